"""Made-up dumps, and a straightforward program in memory that makes chain rows of them."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from reddit_assets.local.sample_dumps import base36

Row = dict[str, Any]


def months(
    messages: int, seed: int = 1, names: tuple[str, ...] = ("2023-04", "2023-05")
) -> dict[str, list[Row]]:
    """Lines of ``RC_…`` and ``RS_…`` of some months: late answers, orphans, doubles, circles."""
    dice = random.Random(seed)
    dumps: dict[str, list[Row]] = {f"{kind}_{m}.jsonl": [] for m in names for kind in ("RS", "RC")}
    threads: list[tuple[str, str, list[str]]] = []
    for number in range(messages):
        month = names[number * len(names) // messages]
        created = 1_680_000_000 + number * 7 + dice.randrange(30)
        row: Row = {"created_utc": created, "retrieved_on": created + 100, "score": number % 50}
        if not threads or dice.random() < 0.07:
            identity = base36(1_000_000 + number)
            subreddit = f"sub{int(dice.paretovariate(0.7)) % 40}"
            threads.append((identity, subreddit, []))
            row |= {"id": identity, "title": f"Title {number}", "selftext": "", "author": "a"}
            row |= {"subreddit": subreddit}
            dumps[f"RS_{month}.jsonl"].append(row)
            continue
        # Mostly young threads, some of the month before.
        thread, subreddit, comments = threads[-min(len(threads), int(dice.paretovariate(0.8)))]
        identity = base36(9_000_000 + number)
        parent = f"t3_{thread}"
        if comments and dice.random() < 0.8:
            parent = "t1_" + comments[-min(len(comments), int(dice.paretovariate(0.9)))]
        if dice.random() < 0.01:
            parent = dice.choice(["t1_zzzzzz", "t3_yyyyyy", "t1_" + identity, "odd"])
        comments.append(identity)
        row |= {"id": identity, "link_id": f"t3_{thread}", "parent_id": parent}
        row |= {"body": f"Comment {number}", "author": f"u{number % 9}", "subreddit": subreddit}
        dump = dumps[f"RC_{month}.jsonl"]
        dump.append(row)
        if dice.random() < 0.02:
            dump.append(row | {"body": f"Comment {number}, edited", "retrieved_on": created + 500})
        if dice.random() < 0.01:
            dump.append(row | {"body": "an older look", "retrieved_on": created})
    return dumps


def write(folder: Path, dumps: dict[str, list[Row]]) -> None:
    """As JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in dumps.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def in_memory(dumps: dict[str, list[Row]]) -> dict[str, list[tuple]]:
    """By subreddit: (id, text, depth, position, thread size), in the order of the chain files."""
    best: dict[tuple, Row] = {}
    section: dict[tuple, str] = {}
    for name, rows in sorted(dumps.items(), key=lambda pair: (pair[0][3:10], pair[0])):
        for row in rows:
            key = row["subreddit"], "link_id" in row, row["id"]
            if key not in best or row["retrieved_on"] >= best[key]["retrieved_on"]:
                best[key] = row
            section.setdefault(key, name[3:10])
    threads: dict[tuple, list[tuple]] = defaultdict(list)
    for key, row in best.items():
        thread = row["link_id"][3:] if key[1] else row["id"]
        threads[key[0], int(thread, 36)].append(key)
    found: dict[str, list[tuple]] = defaultdict(list)
    for (subreddit, thread), keys in threads.items():
        keys.sort(key=lambda k: (section[k], k[1], best[k]["created_utc"], int(k[2], 36)))
        depths: dict[tuple, int] = {}

        def depth(key: tuple, depths: dict = depths, own: set = set(keys)) -> int:  # noqa: B006
            if key not in depths:
                name = best[key].get("parent_id", "")
                parent = key[0], name.startswith("t1_"), name[3:]
                seen = name[:3] in ("t1_", "t3_") and parent in own and parent != key
                seen = seen and section[parent] <= section[key]
                depths[key] = depth(parent) + 1 if seen else 0
            return depths[key]

        for position, key in enumerate(keys):
            size = sum(section[other] <= section[key] for other in keys)
            row = best[key]
            text = row.get("body") or row["title"]
            order = section[key], thread, position
            found[subreddit].append((order, row["id"], text, depth(key), position, size))
    return {name: [row[1:] for row in sorted(rows)] for name, rows in found.items()}


def chain_rows(chains: Path) -> dict[str, list[tuple]]:
    """The same of chain files."""
    found: dict[str, list[tuple]] = {}
    for folder in sorted(path for path in chains.glob("*/*") if path.is_dir()):
        files = sorted(folder.glob("*.parquet"), key=lambda path: int(path.stem.split("_")[-1]))
        for path in files:
            table = pq.ParquetFile(path).read().to_pydict()
            columns = ("id", "body", "depth", "position", "thread_size")
            found.setdefault(folder.name, []).extend(
                zip(*(table[name] for name in columns), strict=True)
            )
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def zst_block(rows: list[bytes]) -> bytes:
    """A block of ``.zst_blocks``, not yet compressed."""
    places, at = [], 0
    for row in rows:
        places += [at, len(row)]
        at += len(row)
    numbers_ = b"".join(number.to_bytes(4, "little") for number in [len(rows), *places])
    return numbers_ + b"".join(rows)
