"""Resident memory of an ONNX worker while one large file of short rows passes through it.

``python benchmarks/worker_memory.py --rows 500000 --output benchmarks/results/worker_memory.csv``.
The rows repeat 1,000 different texts, which are computed once per window: memory is the question
here, not speed.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import date
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from reddit_assets.corpus.layout import Layout
from reddit_assets.engines.host import available_cores, cpu_name
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Job, Kind
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.local.servers import ValkeyServer
from reddit_assets.settings import Settings


def resident_mb(pid: int) -> float:
    """Megabytes of a process and its children together."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
    return total / 1e6


def measure(rows: int, folder: Path) -> dict[str, object]:
    layout = Layout.of(folder / "root")
    path = layout.chain_path("as/Long/c_0")
    path.parent.mkdir(parents=True)
    texts = [f"short post {number % 1_000}" for number in range(rows)]
    pq.write_table(pa.table({"id": range(rows), "body": texts}), path, row_group_size=rows)
    with ValkeyServer(folder / "valkey") as server:
        queue = JobQueue(connect(Settings(redis_url=server.url)), Kind.EMBED)
        queue.enqueue([Job(Kind.EMBED, "as/Long/c_0", "1-1")], layout)
        began = time.monotonic()
        worker = subprocess.Popen(
            [
                *(sys.executable, "-m", "reddit_assets.cli", "worker", "--kind", "embed"),
                *("--backend", "onnx", "--until-empty", "--report", "none"),
            ],
            env={**os.environ, "REDIS_URL": server.url, "REDDIT_ROOT": str(folder / "root")},
            stderr=subprocess.DEVNULL,
        )
        peak = 0.0
        while worker.poll() is None:
            peak = max(peak, resident_mb(worker.pid))
            time.sleep(0.2)
        seconds = time.monotonic() - began
    written = pq.read_metadata(layout.embedding_path("as/Long/c_0")).num_rows
    assert written == rows
    return {"rows": rows, "peak_resident_mb": round(peak), "seconds": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.rows, Path(folder))
    row = {
        "date": date.today().isoformat(),
        "processor": cpu_name(),
        "cores": available_cores(),
        "backend": "onnx",
        **found,
    }
    print(", ".join(f"{name} {value}" for name, value in row.items()))
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with open(options.output, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerow(row)


if __name__ == "__main__":
    main()
