"""The whole worker (read, embed, write, acknowledge, report to the outbox) on a real queue.

    python benchmarks/embedding_worker.py files|small|long|split [--rounds 2] [--data FOLDER]

``files``  the data's files against the engine alone on the same texts
``small``  2,000 files of 5 posts, with columns and with lists of vectors, against one file of the
           same 10,000 posts
``long``   one file of 300,000 rows of at most 8 tokens against one of 10,000: rate and memory
``split``  one worker of all cores against as many workers of one thread

Beside the time on the clock, processor seconds of the worker (parent and child) are counted from
the first job's start on: they tell what the work costs even where other programs take their share.
Each run has an empty Valkey and a fresh copy of the tree. The time goes from the first job's
start to the last acknowledgement. Writes ``results/embedding_worker_<what>.csv``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from embedding_common import (
    MODEL,
    chain_files,
    data_name,
    host_facts,
    posts,
    quiet,
    show,
    write_csv,
)

from reddit_assets.engines.host import available_cores

SMALL_ROWS = 5
LONG_ROWS, LONG_REFERENCE = 300_000, 10_000


# --- one worker ------------------------------------------------------------------------------
def work(root: str, url: str, threads: int, target: str, layout: str) -> None:
    """In a process of its own: a worker until the queue is empty; its times as JSON."""
    from reddit_assets.corpus.layout import Layout
    from reddit_assets.ledger.connection import connect
    from reddit_assets.ledger.job import Kind
    from reddit_assets.ledger.queue import JobQueue
    from reddit_assets.settings import load_settings
    from reddit_assets.worker.display import Display
    from reddit_assets.worker.worker import Worker

    seen: dict[str, Any] = {"rows": 0, "tokens": 0, "files": 0}
    family = [psutil.Process()]

    class Recorder(Display):
        def ready(self, kind: Kind, facts: dict[str, Any]) -> None:
            super().ready(kind, facts)
            seen["engine"] = f"{facts['backend']} {facts['precision']}"
            Path(target + ".ready").touch()

        def started(self, kind: Kind, key: str) -> None:
            if "first" not in seen:
                # Looking for children reads every process's state: once, not for each file.
                family.extend(psutil.Process().children(recursive=True))
                seen["first"], seen["cpu_first"] = time.time(), processor_seconds(family)
            super().started(kind, key)

        def finished(self, kind: Kind, key: str, event: Any) -> None:
            seen["last"], seen["cpu_last"] = time.time(), processor_seconds(family)
            seen["rows"] += event.rows
            seen["tokens"] += event.tokens
            seen["files"] += 1
            super().finished(kind, key, event)

    settings = load_settings(
        root=Path(root), redis_url=url, threads=threads, report="none", vector_layout=layout
    )
    queues = [JobQueue(connect(settings), Kind.EMBED)]
    trees = Layout.from_settings(settings)
    with Recorder() as display:
        Worker(queues, settings, trees, display, until_empty=True).run()
    Path(target).write_text(json.dumps(seen))


def processor_seconds(family: list[psutil.Process]) -> float:
    """Of these processes so far."""
    total = 0.0
    for process in family:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def run_workers(
    make_tree: Callable[[Path], None], workers: int = 1, layout: str = "columns"
) -> dict[str, Any]:
    """Queue a fresh tree and let ``workers`` workers, which share the cores, embed it."""
    from reddit_assets.ledger.connection import connect
    from reddit_assets.ledger.job import Kind
    from reddit_assets.ledger.queue import JobQueue
    from reddit_assets.local.servers import ValkeyServer
    from reddit_assets.settings import load_settings

    with tempfile.TemporaryDirectory() as folder, ValkeyServer(Path(folder) / "valkey") as server:
        root = Path(folder) / "root"
        make_tree(root)
        environment = {**os.environ, "REDIS_URL": server.url, "REDDIT_SETTLE_SECONDS": "0"}
        queue = JobQueue(connect(load_settings(redis_url=server.url)), Kind.EMBED)
        queue.pause()
        subprocess.run(
            [sys.executable, "-m", "reddit_assets.cli", "scan", "--root", str(root)],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        threads = max(1, available_cores() // workers)
        targets = [str(Path(folder) / f"worker-{index}.json") for index in range(workers)]
        context = multiprocessing.get_context("spawn")
        processes = [
            context.Process(target=work, args=(str(root), server.url, threads, target, layout))
            for target in targets
        ]
        for process in processes:
            process.start()
        while not all(Path(target + ".ready").exists() for target in targets):
            if not all(process.is_alive() for process in processes):
                raise SystemExit("A worker ended before it was ready.")
            time.sleep(0.1)
        queue.resume()
        peak = 0.0
        while any(process.is_alive() for process in processes):
            peak = max(peak, *(resident_mb(process.pid) for process in processes))
            time.sleep(0.1)
        seen = [json.loads(Path(target).read_text()) for target in targets]
        outputs = list((root / "embeddings").rglob("*.parquet"))
        rows = sum(pq.read_metadata(path).num_rows for path in outputs)
        if rows != sum(one["rows"] for one in seen):
            raise SystemExit(f"{rows} rows on disk, but {seen} were acknowledged.")
        seconds = max(s["last"] for s in seen if "last" in s) - min(
            s["first"] for s in seen if "first" in s
        )
        return {
            "seconds": seconds,
            "cpu_seconds": sum(s["cpu_last"] - s["cpu_first"] for s in seen if "last" in s),
            "rows": rows,
            "tokens": sum(one["tokens"] for one in seen),
            "files": len(outputs),
            "bytes": sum(path.stat().st_size for path in outputs),
            "engine": seen[0]["engine"],
            "resident_mb": peak,
        }


def resident_mb(pid: int | None) -> float:
    """Resident memory of a worker's computing child."""
    try:
        children = psutil.Process(pid).children(recursive=True)
        return max((child.memory_info().rss / 1e6 for child in children), default=0.0)
    except psutil.Error:
        return 0.0


# --- the engine alone ------------------------------------------------------------------------
def engine_alone(data: Path | None) -> dict[str, Any]:
    """All texts of the data, read before, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "engine", *(["--data", str(data)] if data else [])],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def serve_engine(data: Path | None) -> None:
    from reddit_assets.engines.embedding.model import find_model
    from reddit_assets.engines.embedding.select import open_embedder

    embedder = open_embedder(find_model(MODEL, Path("models")))
    texts = posts(data)
    family = [psutil.Process()]
    began, before = time.perf_counter(), processor_seconds(family)
    encoded = embedder.encode_counted(texts)
    seconds, used = time.perf_counter() - began, processor_seconds(family) - before
    backend = embedder.backend
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu_seconds": used,
                "rows": len(texts),
                "tokens": int(encoded.tokens.sum()),
                "engine": f"{backend.name} {backend.precision}",
            }
        )
    )


# --- trees -----------------------------------------------------------------------------------
def copy_tree(data: Path | None) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for file in chain_files(data):
            target = root / "chains" / Path(*file.parts[-3:])
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)

    return make


def table_of(texts: pa.Array) -> pa.Table:
    """Texts with the columns of a chain file, as the data's files have them."""
    whole = pa.concat_tables([pq.read_table(file) for file in chain_files()])
    repeated = np.resize(np.arange(len(whole)), len(texts))
    table = whole.take(pa.array(repeated))
    return table.set_column(table.schema.get_field_index("body"), "body", texts)


def split_tree(table: pa.Table, rows_per_file: int) -> Callable[[Path], None]:
    """A tree of ten subreddits, ``rows_per_file`` rows in every file."""

    def make(root: Path) -> None:
        for index, start in enumerate(range(0, len(table), rows_per_file)):
            folder = root / "chains" / "be" / f"bench{index % 10}"
            folder.mkdir(parents=True, exist_ok=True)
            part = table.slice(start, rows_per_file)
            pq.write_table(part, folder / f"chunk_{index}.parquet", row_group_size=10_000)

    return make


def middling_posts(count: int, data: Path | None) -> pa.Array:
    """Posts of about 116 tokens on average: the longest of the shortest are left out."""
    from reddit_assets.engines.embedding.model import find_model
    from reddit_assets.engines.embedding.tokenizer import Tokenizer

    texts = posts(data)
    lengths = Tokenizer(find_model(MODEL, Path("models")))(texts).lengths
    order = np.argsort(-lengths, kind="stable")
    chosen = order[:count]
    for keep in range(count, len(order)):
        if lengths[chosen].mean() <= 116:
            break
        chosen = order[keep - count : keep]
    if lengths[chosen].mean() > 116 or len(order) < count:
        chosen = np.random.default_rng(0).choice(len(order), count, replace=len(order) < count)
    return texts.take(pa.array(np.random.default_rng(0).permutation(chosen)))


def short_posts(count: int) -> pa.Array:
    """Different texts of at most 8 tokens."""
    words = np.array(["cat", "dog", "tree", "river", "stone", "house", "war", "love", "king"])
    random = np.random.default_rng(0)
    chosen = words[random.integers(0, len(words), (count, 4))]
    sizes = random.integers(1, 5, count)
    texts = [" ".join(row[:size]) for row, size in zip(chosen, sizes, strict=True)]
    return pa.array([f"{t} {i % 997}" for i, t in enumerate(texts)], pa.large_string())


# --- what is compared ------------------------------------------------------------------------
def compare(what: str, options: argparse.Namespace) -> None:
    quiet(patience=options.patience)
    facts = {**host_facts(), "data": data_name(options.data)}
    cases: dict[str, Callable[[], dict[str, Any]]]
    if what == "files":
        tree = copy_tree(options.data)
        cases = {
            "engine alone, texts in memory": lambda: engine_alone(options.data),
            "whole worker": lambda: run_workers(tree),
        }
    elif what == "split":
        tree = copy_tree(options.data)
        cores = available_cores()
        cases = {
            f"one worker of {cores} threads": lambda: run_workers(tree),
            f"{cores} workers of one thread": lambda: run_workers(tree, cores),
        }
    elif what == "small":
        table = table_of(middling_posts(options.files * SMALL_ROWS, options.data))
        cases = {
            "one file": lambda: run_workers(split_tree(table, len(table))),
            f"{options.files:,} files of {SMALL_ROWS} rows": lambda: run_workers(
                split_tree(table, SMALL_ROWS)
            ),
            "the same, one file, lists": lambda: run_workers(
                split_tree(table, len(table)), layout="list"
            ),
            f"{options.files:,} files of {SMALL_ROWS} rows, lists": lambda: run_workers(
                split_tree(table, SMALL_ROWS), layout="list"
            ),
        }
    else:
        table = table_of(short_posts(LONG_ROWS))
        facts["data"] = "generated texts of at most 8 tokens"
        cases = {
            f"one file of {LONG_REFERENCE:,} rows": lambda: run_workers(
                split_tree(table.slice(0, LONG_REFERENCE), LONG_REFERENCE)
            ),
            f"one file of {LONG_ROWS:,} rows": lambda: run_workers(split_tree(table, LONG_ROWS)),
        }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
    for round_ in range(options.rounds):
        for name, run in cases.items():
            found[name].append(run())
            print(f"round {round_ + 1}: {name}: {found[name][-1]}", flush=True)
    rows = []
    first = first_per_cpu = None
    for name, runs in found.items():
        best = min(runs, key=lambda run: run["seconds"])
        rate = best["rows"] / best["seconds"]
        per_cpu = best["rows"] / min(run["cpu_seconds"] for run in runs)
        first, first_per_cpu = first or rate, first_per_cpu or per_cpu
        rows.append(
            {
                "case": name,
                "engine": best["engine"],
                "files": best.get("files", ""),
                "rows": best["rows"],
                "tokens": best["tokens"],
                "seconds": f"{best['seconds']:.2f}",
                "rounds": " ".join(f"{run['seconds']:.2f}" for run in runs),
                "cpu_seconds": f"{min(run['cpu_seconds'] for run in runs):.2f}",
                "rows_per_s": f"{rate:.1f}",
                "tokens_per_s": f"{best['tokens'] / best['seconds']:.0f}",
                "rate_to_first_case": f"{rate / first:.3f}",
                "rows_per_cpu_s_to_first_case": f"{per_cpu / first_per_cpu:.3f}",
                "resident_mb": f"{max(r['resident_mb'] for r in runs):.0f}"
                if "resident_mb" in best
                else "",
                "output_bytes": best.get("bytes", ""),
            }
        )
    show(rows, __doc__.splitlines()[0] if __doc__ else what)
    print(write_csv(f"embedding_worker_{what}", rows, facts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["files", "small", "long", "split", "engine"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--files", type=int, default=2_000, help="Small files.")
    parser.add_argument(
        "--patience", type=float, default=300, help="Seconds to wait for an idle host."
    )
    options = parser.parse_args()
    if options.what == "engine":
        serve_engine(options.data)
    else:
        compare(options.what, options)


if __name__ == "__main__":
    main()
