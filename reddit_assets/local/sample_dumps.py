"""The sample as public dumps: two small months of comments and submissions, with every quirk.

The same bytes every time. What the quirks are is in docs/ingest.md; of some there are only a few.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reddit_assets.local.sample import SEED, sentences
from reddit_assets.local.sample_themes import THEMES

__all__ = ["SAMPLE_DUMPS", "write_sample_dumps"]

SAMPLE_DUMPS = ("RS_2023-11.zst", "RC_2023-11.zst")
_MONTH = 1_698_796_800  # 2023-11-01
_THREADS = 45
_FIRST_POST, _FIRST_COMMENT = 1_000_000_000, 18_000_000_000
_SIGNS = "0123456789abcdefghijklmnopqrstuvwxyz"


def write_sample_dumps(root: Path) -> list[Path]:
    """Writes the two dumps to ``root/dumps``; files that are there already are left alone."""
    folder = root / "dumps"
    folder.mkdir(parents=True, exist_ok=True)
    posts, comments = _lines()
    paths = []
    for name, lines in zip(SAMPLE_DUMPS, (posts, comments), strict=True):
        path = folder / name
        paths.append(path)
        if not path.exists():
            temporary = path.with_name(f".{name}.sample.tmp")
            temporary.write_bytes(compressed(b"".join(lines)))
            temporary.replace(path)
    return paths


def compressed(text: bytes, frames: int = 3) -> bytes:
    """As zstandard, in several frames that do not end where lines do."""
    from reddit_assets.ingest.engine import zstandard

    size = len(text) // frames + 1
    writer = zstandard.ZstdCompressor(level=3)
    return b"".join(writer.compress(text[at : at + size]) for at in range(0, len(text), size))


def base36(number: int) -> str:
    """A number as an id."""
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _SIGNS[digit] + text
    return text or "0"


def _lines() -> tuple[list[bytes], list[bytes]]:
    posts: list[tuple[int, dict[str, Any]]] = []
    comments: list[tuple[int, dict[str, Any]]] = []
    for subreddit in THEMES:
        if subreddit.isascii() and subreddit != "tinytown":
            for post, answers in _threads(subreddit):
                posts.append(post)
                comments += answers
    return _with_quirks(posts, b""), _with_quirks(comments, b'{"id": "cut off in the mid')


def _threads(
    subreddit: str,
) -> Iterator[tuple[tuple[int, dict[str, Any]], list[tuple[int, dict[str, Any]]]]]:
    dice = random.Random(f"{SEED}/dumps/{subreddit}")
    place = list(THEMES).index(subreddit)
    for number in range(_THREADS):
        topic = THEMES[subreddit][dice.randrange(len(THEMES[subreddit]))]
        thread = place * 1_000 + number
        link = base36(_FIRST_POST + thread)
        created = _MONTH + dice.randrange(28 * 86_400)
        words = " ".join(sentences(dice, subreddit, topic)).split(". ", 1)
        post = _common(dice, subreddit, created, f"/r/{subreddit}/comments/{link}/_/")
        post |= {"id": link, "name": f"t3_{link}", "title": words[0][:300], "is_self": True}
        post["selftext"] = words[1] if len(words) > 1 else ""
        answers: list[tuple[int, dict[str, Any]]] = []
        for answer in range(dice.randrange(0, 14)):
            at = created + 60 * (answer + 1) + dice.randrange(50)
            name = base36(_FIRST_COMMENT + thread * 100 + answer)
            parent = f"t3_{link}"
            if answers and dice.random() < 0.6:
                parent = "t1_" + str(answers[dice.randrange(len(answers))][1]["id"])
            row = _common(dice, subreddit, at, f"/r/{subreddit}/comments/{link}/_/{name}/")
            row |= {"id": name, "name": f"t1_{name}", "link_id": f"t3_{link}", "parent_id": parent}
            row["body"] = " ".join(sentences(dice, subreddit, topic)).strip()
            answers.append((at, row))
        yield (created, post), answers


def _common(dice: random.Random, subreddit: str, created: int, permalink: str) -> dict[str, Any]:
    score = int(dice.paretovariate(1.1))
    return {
        "author": f"user_{dice.randrange(400):03d}",
        "created_utc": created,
        "edited": False,
        "permalink": permalink,
        "retrieved_on": created + 36 * 3600,
        "score": score,
        "subreddit": subreddit,
        "ups": score,
        "_meta": {"retrieved_2nd_on": created + 72 * 3600, "is_edited": False},
    }


def _with_quirks(rows: list[tuple[int, dict[str, Any]]], cut: bytes) -> list[bytes]:
    """By time, as lines; every so many rows have a quirk."""
    lines = []
    for number, (_, row) in enumerate(sorted(rows, key=lambda pair: (pair[0], pair[1]["id"]))):
        text = "body" if "body" in row else "selftext"
        match number % 61:
            case 3:
                row["created_utc"] = str(row["created_utc"])
            case 7:
                row["edited"] = row["created_utc"] + 300
            case 11:
                row["score"] = None
            case 13:
                del row["ups"], row["name"]
            case 17:
                del row["permalink"]
            case 19:
                del row["author"]
            case 23:
                del row["subreddit"]  # the permalink has it
            case 29 | 31:
                row |= {text: "[deleted]", "author": "[deleted]"}
            case 37 | 41:
                row |= {text: "[removed]", "_meta": {"removal_type": "moderator"}}
            case 43:
                row |= {"author": "AutoModerator"}
            case 47 if "parent_id" in row:
                row["parent_id"] = "t1_zzzzzz"  # never seen
        line = json.dumps(row, ensure_ascii=number % 2 == 0, separators=(",", ":")).encode() + b"\n"
        lines.append(line)
        if number % 97 == 50:  # the same again, looked at later
            later = row | {"retrieved_on": row["retrieved_on"] + 86_400, "score": 4242}
            lines.append(json.dumps(later).encode() + b"\n")
        if number % 401 == 200:
            lines += [b"\n", cut + b"\n", b'{"id": "\xff\xfe"}\n', b"null\n", b'{"author": "x"}\n']
    return lines
