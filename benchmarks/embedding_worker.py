"""The whole worker (read, embed, write, acknowledge, report to the outbox) on a real queue.

    python benchmarks/embedding_worker.py files|small|long|split [--rounds 2] [--data FOLDER]
                                          [--before CHECKOUT] [--priority N]

``files``  the data's files against the engine alone on the same texts
``small``  2,000 files of 5 posts, with columns and with lists of vectors, against one file of the
           same 10,000 posts
``long``   one file of 300,000 rows of at most 8 tokens against one of 10,000: rate and memory
``split``  one worker of all cores against as many workers of one thread, and of all cores each

Beside the time on the clock, processor seconds of the worker (parent and child) are counted from
the first job's start on: they tell what the work costs even where other programs take their share.
Each run has an empty Valkey and a fresh copy of the tree. The time goes from the first job's
start to the last acknowledgement. ``--before`` names a checkout of an earlier commit: its worker
takes turns with this one. Writes ``results/embedding_worker_<what>.csv``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
from embedding_common import (
    MODEL,
    REPOSITORY,
    data_name,
    host_facts,
    posts,
    prefer,
    quiet,
    show,
    write_csv,
)
from embedding_trees import copy_tree, middling_posts, short_posts, split_tree, table_of

from reddit_assets.engines.host import available_cores

SMALL_ROWS = 5
LONG_ROWS, LONG_REFERENCE = 300_000, 10_000


# --- one worker ------------------------------------------------------------------------------
def work(root: str, threads: int, target: str, layout: str, priority: int) -> None:
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
                if priority:  # The child has a session of its own.
                    prefer(priority, family[-1].pid)
                seen["first"], seen["cpu_first"] = time.time(), processor_seconds(family)
                seen["parent_first"] = processor_seconds(family[:1])
            super().started(kind, key)

        def finished(self, kind: Kind, key: str, event: Any, *more: Any) -> None:
            seen["last"], seen["cpu_last"] = time.time(), processor_seconds(family)
            seen["parent_last"] = processor_seconds(family[:1])
            seen["rows"] += event.rows
            seen["tokens"] += event.tokens
            seen["files"] += 1
            super().finished(kind, key, event, *more)

    if priority:
        prefer(priority)
    # What earlier commits do not know is left out.
    more: dict[str, Any] = {} if layout == "columns" else {"vector_layout": layout}
    settings = load_settings(root=Path(root), threads=threads, report="none", **more)
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
    make_tree: Callable[[Path], None],
    workers: int = 1,
    layout: str = "columns",
    *,
    threads: int | None = None,
    code: Path = REPOSITORY,
    priority: int = 0,
) -> dict[str, Any]:
    """Queue a fresh tree and let ``workers`` workers embed it.

    Args:
        threads: of each; unset, they share the cores.
        code: the checkout whose programs run.
        priority: of the workers.
    """
    from reddit_assets.ledger.connection import connect
    from reddit_assets.ledger.job import Kind
    from reddit_assets.ledger.queue import JobQueue
    from reddit_assets.local.servers import ValkeyServer
    from reddit_assets.settings import load_settings

    with tempfile.TemporaryDirectory() as folder, ValkeyServer(Path(folder) / "valkey") as server:
        root = Path(folder) / "root"
        make_tree(root)
        environment = {
            **os.environ,
            "PYTHONPATH": str(code),
            "REDIS_URL": server.url,
            "REDDIT_SETTLE_SECONDS": "0",
        }
        queue = JobQueue(connect(load_settings(redis_url=server.url)), Kind.EMBED)
        queue.pause()
        subprocess.run(
            [sys.executable, "-m", "reddit_assets.cli", "scan", "--root", str(root)],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        threads = threads or max(1, available_cores() // workers)
        targets = [Path(folder) / f"worker-{index}.json" for index in range(workers)]
        command = [sys.executable, __file__, "work", "--priority", str(priority), "--work"]
        processes = [
            subprocess.Popen(
                [*command, str(root), str(threads), str(target), layout], env=environment
            )
            for target in targets
        ]
        while not all(Path(f"{target}.ready").exists() for target in targets):
            if any(process.poll() is not None for process in processes):
                raise SystemExit("A worker ended before it was ready.")
            time.sleep(0.1)
        queue.resume()
        peak = 0.0
        while any(process.poll() is None for process in processes):
            peak = max(peak, *(resident_mb(process.pid) for process in processes))
            time.sleep(0.5)
        seen = [json.loads(target.read_text()) for target in targets]
        outputs = list((root / "embeddings").rglob("*.parquet"))
        return {**together(seen, outputs), "resident_mb": peak}


def together(seen: Sequence[dict[str, Any]], outputs: Sequence[Path]) -> dict[str, Any]:
    """What the workers saw, checked against what lies on the disk."""
    rows = sum(pq.read_metadata(path).num_rows for path in outputs)
    if rows != sum(one["rows"] for one in seen):
        raise SystemExit(f"{rows} rows on disk, but {seen} were acknowledged.")
    busy = [one for one in seen if "last" in one]
    return {
        "seconds": max(one["last"] for one in busy) - min(one["first"] for one in busy),
        "cpu_seconds": sum(one["cpu_last"] - one["cpu_first"] for one in busy),
        "parent_cpu_seconds": sum(one["parent_last"] - one["parent_first"] for one in busy),
        "rows": rows,
        "tokens": sum(one["tokens"] for one in seen),
        "files": len(outputs),
        "bytes": sum(path.stat().st_size for path in outputs),
        "engine": seen[0]["engine"],
    }


def resident_mb(pid: int) -> float:
    """Resident memory of a worker's computing child."""
    try:
        children = psutil.Process(pid).children(recursive=True)
        return max((child.memory_info().rss / 1e6 for child in children), default=0.0)
    except psutil.Error:
        return 0.0


# --- the engine alone ------------------------------------------------------------------------
def engine_alone(data: Path | None, priority: int) -> dict[str, Any]:
    """All texts of the data, read before, in a process of its own."""
    command = [sys.executable, __file__, "engine", "--priority", str(priority)]
    done = subprocess.run(
        [*command, *(["--data", str(data)] if data else [])],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def serve_engine(data: Path | None) -> None:
    from reddit_assets.engines.embedding.model import find_model
    from reddit_assets.engines.embedding.select import open_embedder

    embedder = open_embedder(find_model(MODEL, REPOSITORY / "models"))
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


# --- what is compared ------------------------------------------------------------------------
Cases = dict[str, Callable[[], dict[str, Any]]]


def cases_of(what: str, options: argparse.Namespace) -> Cases:
    """What takes turns; the first is what the others are compared with."""

    def worker(tree: Callable[[Path], None], **more: Any) -> Callable[[], dict[str, Any]]:
        return lambda: run_workers(tree, priority=options.priority, **more)

    def both(name: str, tree: Callable[[Path], None], **more: Any) -> Cases:
        """With the earlier commit's worker, where one is given."""
        cases = {name: worker(tree, **more)}
        if options.before:
            cases[f"{name}, before"] = worker(tree, code=options.before, **more)
        return cases

    if what == "files":
        alone = {
            "engine alone, texts in memory": lambda: engine_alone(options.data, options.priority)
        }
        return {**alone, **both("whole worker", copy_tree(options.data))}
    if what == "split":
        tree, cores = copy_tree(options.data, options.share), available_cores()
        each = {f"{cores} workers of {cores} threads": worker(tree, workers=cores, threads=cores)}
        one = both(f"one worker of {cores} threads", tree)
        return {**one, **both(f"{cores} workers of one thread", tree, workers=cores), **each}
    if what == "small":
        table = table_of(middling_posts(options.files * SMALL_ROWS, options.data))
        whole, split = split_tree(table, len(table)), split_tree(table, SMALL_ROWS)
        files = f"files of {SMALL_ROWS} rows"
        return {
            **both("one file", whole),
            **both(files, split),
            "one file, lists": worker(whole, layout="list"),
            f"{files}, lists": worker(split, layout="list"),
        }
    table = table_of(short_posts(LONG_ROWS))
    part = split_tree(table.slice(0, LONG_REFERENCE), LONG_REFERENCE)
    return {
        **both(f"one file of {LONG_REFERENCE:,} rows", part),
        **both(f"one file of {LONG_ROWS:,} rows", split_tree(table, LONG_ROWS)),
    }


def compare(what: str, options: argparse.Namespace) -> None:
    load = f"{quiet(patience=options.patience):.2f}"
    if options.priority:
        load += f", measured with priority {options.priority}"
    data = "generated texts of at most 8 tokens" if what == "long" else data_name(options.data)
    facts = {**host_facts(), "load_before": load, "data": data}
    cases = cases_of(what, options)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
    for round_ in range(options.rounds):
        for name, run in cases.items():
            found[name].append(run())
            print(f"round {round_ + 1}: {name}: {found[name][-1]}", flush=True)
    rows = report(found)
    show(rows, __doc__.splitlines()[0] if __doc__ else what)
    print(write_csv(f"embedding_worker_{what}", rows, facts))


def report(found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row per case; of the rounds the best counts."""
    rows = []
    first = first_per_cpu = None
    for name, runs in found.items():
        best = min(runs, key=lambda run: run["seconds"])
        cpu_seconds = min(run["cpu_seconds"] for run in runs)
        rate, per_cpu = best["rows"] / best["seconds"], best["rows"] / cpu_seconds
        first, first_per_cpu = first or rate, first_per_cpu or per_cpu
        resident = [run["resident_mb"] for run in runs if "resident_mb" in run]
        parent = [run["parent_cpu_seconds"] for run in runs if "parent_cpu_seconds" in run]
        rows.append(
            {
                "case": name,
                "engine": best["engine"],
                "files": best.get("files", ""),
                "rows": best["rows"],
                "tokens": best["tokens"],
                "seconds": f"{best['seconds']:.2f}",
                "rounds": " ".join(f"{run['seconds']:.2f}" for run in runs),
                "cpu_seconds": f"{cpu_seconds:.2f}",
                "parent_cpu_seconds": f"{min(parent):.2f}" if parent else "",
                "rows_per_s": f"{rate:.1f}",
                "tokens_per_s": f"{best['tokens'] / best['seconds']:.0f}",
                "rate_to_first_case": f"{rate / first:.3f}",
                "rows_per_cpu_s": f"{per_cpu:.1f}",
                "rows_per_cpu_s_to_first_case": f"{per_cpu / first_per_cpu:.3f}",
                "resident_mb": f"{max(resident):.0f}" if resident else "",
                "output_bytes": best.get("bytes", ""),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["files", "small", "long", "split", "engine", "work"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--files", type=int, default=2_000, help="Small files.")
    parser.add_argument("--share", type=int, default=1, help="For split: every so many-th file.")
    parser.add_argument("--before", type=Path, help="A checkout of an earlier commit.")
    parser.add_argument("--priority", type=int, default=0, help="Of the measured processes.")
    parser.add_argument(
        "--patience", type=float, default=300, help="Seconds to wait for an idle host."
    )
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what == "work":
        root, threads, target, layout = options.work
        work(root, int(threads), target, layout, options.priority)
    elif options.what == "engine":
        if options.priority:
            prefer(options.priority)
        serve_engine(options.data)
    else:
        compare(options.what, options)


if __name__ == "__main__":
    main()
