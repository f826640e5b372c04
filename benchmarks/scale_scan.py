"""Looks at a large tree against ``find``: the first, one where nothing changed, one with new files.

``python benchmarks/scale_scan.py --files 1000000``; writes ``results/scale_scan.csv``. Each step is
a process of its own; its peer, ``find … -printf '%T@ %s %p\\n'``, runs right before it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import date
from itertools import islice
from pathlib import Path

import psutil
from scale_tree import Shape, add_chains, cluster_keys, make_tree

from reddit_assets.corpus.layout import Layout
from reddit_assets.engines.host import cpu_name
from reddit_assets.settings import Settings
from reddit_assets.workspace import Workspace

RESULTS = Path(__file__).parent / "results" / "scale_scan.csv"
NEW = 1_000


def find(root: Path) -> tuple[float, float]:
    """Seconds that ``find`` takes, and its processor's."""
    began, used = time.perf_counter(), _processor(resource.RUSAGE_CHILDREN)
    subprocess.run(
        ["find", str(root), "-printf", "%T@ %s %p\\n"], stdout=subprocess.DEVNULL, check=True
    )
    return time.perf_counter() - began, _processor(resource.RUSAGE_CHILDREN) - used


def _processor(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def step(root: Path, snapshots: Path, whole: bool | None, in_full: float) -> dict[str, float]:
    """One scan: a look, the counts of all that is done, and each output that is not."""
    began, used = time.perf_counter(), _processor(resource.RUSAGE_SELF)
    settings = Settings(root=root, snapshot_dir=snapshots, settle_seconds=0)
    scanner = Workspace.of_trees(settings).scanner(whole=whole)
    scanner.look()
    if in_full:
        scanner.read_in_full(in_full)
    done = scanner.finished()
    files, wanted = done.files, 0
    for status in scanner.unfinished():
        files += len(status.files)
        wanted += sum(file.verdict.wanted for file in status.files)
    assert scanner.looked is not None
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {
        "seconds": time.perf_counter() - began,
        # Without the start of Python, which does not grow; that of further processes counts.
        "processor_seconds": _processor(resource.RUSAGE_SELF)
        - used
        + _processor(resource.RUSAGE_CHILDREN),
        "listed": scanner.looked.listed,
        "files": files,
        "wanted": wanted,
        # Two processes list; each is counted with the largest.
        "megabytes": (own + 2 * children) / 1024,
    }


def run(
    root: Path, snapshots: Path, *, whole: bool | None = None, in_full: float = 0.0
) -> dict[str, float]:
    command = [sys.executable, __file__, "--step", str(root), "--snapshots", str(snapshots)]
    command += ["--in-full", str(in_full), *(["--whole"] if whole else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(layout: Layout, shape: Shape, snapshots: Path) -> list[dict[str, object]]:
    root = layout.chains.parent
    find(root)  # warm
    rows: list[dict[str, object]] = []

    def row(name: str, *, whole: bool | None = None, in_full: float = 0.0) -> dict[str, float]:
        peer, peer_processor = find(root)
        found = run(root, snapshots, whole=whole, in_full=in_full)
        rows.append(
            {
                "step": name,
                "find_seconds": round(peer, 2),
                "seconds": round(found["seconds"], 2),
                "times_find": round(found["seconds"] / peer, 3),
                # Processor seconds: what other programs on the host do changes these little.
                "find_processor_seconds": round(peer_processor, 2),
                "processor_seconds": round(found["processor_seconds"], 2),
                "processor_times_find": round(found["processor_seconds"] / peer_processor, 3),
                "megabytes": round(found["megabytes"]),
                "subreddits_listed": int(found["listed"]),
                "files": int(found["files"]),
                "wanted": int(found["wanted"]),
            }
        )
        print(rows[-1], flush=True)
        return found

    first = row("first look")
    row("nothing changed")
    keys = add_chains(layout, shape, islice(cluster_keys(shape), 0, None, shape.files // 10 // NEW))
    try:
        more = row(f"{len(keys)} new files")
        assert more["wanted"] == first["wanted"] + len(keys), "new files were not found"
    finally:
        for key in keys:
            layout.chain_path(key).unlink()
    row("they are gone again")
    row("every file, nothing changed (--whole)", whole=True)
    row("nightly: every file, a seventh of outputs in full", whole=True, in_full=1 / 7)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--tree", type=Path, help="a tree of this many files, to use again")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--step", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--snapshots", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--in-full", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        whole = True if options.whole else None
        print(json.dumps(step(options.step, options.snapshots, whole, options.in_full)))
        return
    shape = Shape(options.files)
    with tempfile.TemporaryDirectory() as folder:
        tree = options.tree or Path(folder) / "tree"
        layout = Layout.of(tree) if options.tree else make_tree(tree, shape)
        snapshots = Path(folder) / "snapshots"
        rows = measure(layout, shape, snapshots)
        size = sum(path.stat().st_size for path in snapshots.iterdir())
    facts = {
        "date": date.today().isoformat(),
        "processor": cpu_name(),
        "cores": psutil.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "find": shutil.which("find"),
        "snapshot_megabytes": round(size / 1e6),
    }
    with open(options.output, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*facts, *rows[0]])
        writer.writeheader()
        writer.writerows({**facts, **row} for row in rows)


if __name__ == "__main__":
    main()
