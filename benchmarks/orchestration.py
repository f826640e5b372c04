"""Dagster's side: how long the definitions take to load, and events per second into Postgres.

Peers measured in the same run: ``import dagster`` alone, and Dagster's own
``report_runless_asset_event`` one by one. Writes ``results/orchestration.csv``.
"""

from __future__ import annotations

import argparse
import csv
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

from dagster import DagsterInstance

from reddit_assets.corpus.buckets import FLAT
from reddit_assets.engines.host import cpu_name
from reddit_assets.ledger.job import Result
from reddit_assets.ledger.outbox import OutboxEntry
from reddit_assets.local.servers import PostgresServer
from reddit_assets.platform.reporting.instance import InstanceSink
from reddit_assets.settings import Settings
from reddit_assets.workspace import Workspace

RESULTS = Path(__file__).parent / "results" / "orchestration.csv"


def seconds_of(code: str, times: int) -> float:
    """Median wall time of a fresh interpreter that runs ``code``, less an empty one's."""

    def once(text: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", text], check=True)
        return time.perf_counter() - started

    once(code)
    return median(once(code) for _ in range(times)) - median(once("") for _ in range(times))


def results(number: int, start: int = 0) -> list[Result]:
    """Results as a worker gives them."""
    return [
        Result(
            job=f"job{i}",
            asset="embeddings",
            partition=f"{i % 256:02x}/sub{i // 10}/chunk_{i % 10}",
            data_version=f"{i:032x}",
            source_version=f"{i:032x}",
            metadata={"rows": 200, "tokens": 20_000, "seconds": 0.5, "backend": "onnx"},
        )
        for i in range(start, start + number)
    ]


def events_per_second(folder: Path, number: int) -> tuple[float, float]:
    """Results per second of the instance sink, and of single run-less reports."""
    with PostgresServer(folder / "postgres") as server:
        home = folder / "home"
        home.mkdir()
        (home / "dagster.yaml").write_text(
            f"storage:\n  postgres:\n    postgres_url: {server.url!r}\n"
            "telemetry:\n  enabled: false\n"
        )
        with DagsterInstance.from_config(str(home)) as instance:
            sink = InstanceSink(_workspace(folder), instance)
            entries = [OutboxEntry(str(i), r, False) for i, r in enumerate(results(number))]
            started = time.perf_counter()
            for start in range(0, number, 1_000):
                sink.report(entries[start : start + 1_000])
            batched = number / (time.perf_counter() - started)
            from reddit_assets.platform.reporting.inputs import materializer

            make = materializer(instance, _workspace(folder).layout, FLAT)
            events = make.outputs(results(100, number))
            started = time.perf_counter()
            for event in events:
                instance.report_runless_asset_event(event)
            single = len(events) / (time.perf_counter() - started)
    return batched, single


def _workspace(folder: Path) -> Workspace:
    return Workspace.load(Settings(root=folder, redis_url="redis://unused"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="Fewer repetitions.")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    times = 3 if options.quick else 7
    number = 2_000 if options.quick else 10_000
    bare = seconds_of("import dagster", times)
    ours = seconds_of("import reddit_assets.definitions", times)
    with tempfile.TemporaryDirectory() as folder:
        batched, single = events_per_second(Path(folder), number)
    host = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": cpu_name(),
        "python": platform.python_version(),
        "dagster": version("dagster"),
    }
    rows = [
        ("import dagster", bare, "s"),
        ("import reddit_assets.definitions", ours, "s"),
        ("ratio", ours / bare, "times"),
        ("instance sink: results", batched, "per s (two events each)"),
        ("report_runless_asset_event", single, "events per s"),
    ]
    options.out.parent.mkdir(exist_ok=True)
    with options.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "value", "unit", *host])
        for what, value, unit in rows:
            print(f"{what:40} {value:10.2f} {unit}")
            writer.writerow([what, f"{value:.2f}", unit, *host.values()])


if __name__ == "__main__":
    main()
