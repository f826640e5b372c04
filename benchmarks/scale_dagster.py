"""From the disk to Dagster at 100,000 files: each part's files per second, and Postgres' growth.

Embedded Postgres and Valkey of this machine, and a worker that writes nothing. Parts: partitions,
scan and queue, claim and acknowledge, outbox to Dagster; then adopted files to Dagster, and what
pruning gives back. The peer is Dagster's own batch writer. Writes ``results/scale_dagster.csv``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from dagster import DagsterInstance
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from scale_common import host_facts, write_rows
from scale_tree import Shape, make_tree
from sqlalchemy import text

from reddit_assets.ledger.job import Kind, Result
from reddit_assets.local.servers import PostgresServer, ValkeyServer
from reddit_assets.platform.reporting import bulk, records
from reddit_assets.platform.reporting.drain import Reporter
from reddit_assets.platform.reporting.instance import InstanceSink
from reddit_assets.platform.reporting.prune import prune
from reddit_assets.platform.services.discover import Discover
from reddit_assets.platform.services.reconcile import Reconcile
from reddit_assets.platform.services.tick import Tick
from reddit_assets.settings import Settings
from reddit_assets.workspace import Workspace
from reddit_assets_tests.factories import claim_jobs

RESULTS = Path(__file__).parent / "results" / "scale_dagster.csv"
Row = tuple[str, float, str]


@contextmanager
def site(folder: Path, shape: Shape) -> Iterator[tuple[Workspace, DagsterInstance]]:
    """A tree, a queue and an instance."""
    folder.mkdir()
    make_tree(folder / "root", shape)
    with (
        PostgresServer(folder / "postgres") as postgres,
        ValkeyServer(folder / "valkey", config={"appendonly": "no"}) as valkey,
    ):
        home = folder / "home"
        home.mkdir()
        (home / "dagster.yaml").write_text(
            f"storage:\n  postgres:\n    postgres_url: {postgres.url!r}\n"
            "telemetry:\n  enabled: false\n"
        )
        settings = Settings(root=folder / "root", redis_url=valkey.url, tick_seconds=600)
        with DagsterInstance.from_config(str(home)) as instance:
            yield Workspace.load(settings), instance


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def megabytes(instance: DagsterInstance) -> float:
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    with storage.index_connection() as connection:
        return (
            float(
                connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
            )
            / 1e6
        )


def acknowledge_all(workspace: Workspace) -> int:
    queue, done = workspace.queues[Kind.EMBED], 0
    while claims := claim_jobs(queue, "instant", 500, 600.0):
        for claim in claims:
            metadata = {
                "rows": 3,
                "tokens": 30,
                "seconds": 0.0,
                "backend": "none",
                "job_id": claim.id,
            }
            result = Result(
                claim.id,
                "embeddings",
                claim.key,
                data_version=f"made-{claim.id}",
                source_version=f"of-{claim.key}",
                metadata=metadata,
            )
            queue.acknowledge(claim, result, rows=3)
        done += len(claims)
    return done


def pipeline(folder: Path, files: int) -> Iterator[Row]:
    """Every file is new; outputs are acknowledged, not written."""
    with site(folder, Shape(files)) as (workspace, instance):
        for path in (folder / "root" / "embeddings").glob("??"):
            path.rename(folder / f"away-{path.name}")
        before = megabytes(instance)
        took = seconds(lambda: Discover(workspace).tick(instance))
        yield "scan, partitions, queue", files / took, "files/s"
        queued = workspace.queues[Kind.EMBED].counts().queued
        assert queued == files, queued
        took = seconds(lambda: acknowledge_all(workspace))
        yield "claim, acknowledge", files / took, "files/s"
        reporter = Reporter(
            list(workspace.queues.values()), InstanceSink(workspace, instance), until_empty=True
        )
        took = seconds(reporter.run)
        assert reporter.reported == files, reporter.reported
        yield "outbox to Dagster", files / took, "files/s (two events each)"
        yield "Postgres: growth", 1e3 * (megabytes(instance) - before) / files, "kB per file"


def pruned(folder: Path, files: int) -> Iterator[Row]:
    """Every file made three times, two months apart: what pruning gives back."""
    with site(folder, Shape(10)) as (_, instance):
        for month in (3, 2, 0):
            when = time.time() - month * 30 * 86_400
            for name in ("chains", "embeddings"):
                events = [made(name, f"as/a/{number}") for number in range(files)]
                bulk.store(instance, events, partial(records.entry, when=when))
        found = prune(instance, 30, shrink=True)
        yield "pruned: events", float(found.events), "events"
        yield "pruned: before", found.before / 1e6, "MB"
        yield "pruned: after", found.after / 1e6, "MB"


def made(asset: str, key: str) -> records.AssetMaterialization:
    metadata = {"rows": 3, "tokens": 30, "seconds": 0.0, "job_id": key}
    return records.AssetMaterialization(
        asset, partition=key, metadata=metadata, tags={"dagster/data_version": key}
    )


def adopted(folder: Path, files: int) -> Iterator[Row]:
    """Nine files of ten have outputs of the earlier system."""
    with site(folder, Shape(files, adopted=True)) as (workspace, instance):
        Discover(workspace).tick(instance)
        service = Reconcile(workspace)
        ticks: list[Tick] = []
        took = seconds(lambda: ticks.append(service.tick(instance)))
        made = len(instance.get_materialized_partitions(records.AssetKey("embeddings")))
        yield "adopted outputs", float(made), "files"
        yield "adopted to Dagster", took, "s"
        yield "adopted to Dagster", made / took, "files/s (two events each)"
        yield (
            "nothing new to compare",
            seconds(lambda: service.tick(instance, ticks[0].cursor)),
            "s",
        )


def peer(folder: Path, number: int) -> Iterator[Row]:
    """Dagster's own batches, without reading anything before."""
    with site(folder, Shape(10)) as (_, instance):
        keys = [f"as/a/{i}" for i in range(number)]
        events = [made(asset, key) for asset in ("chains", "embeddings") for key in keys]

        def store() -> None:
            for start in range(0, len(events), 1_000):
                batch = [records.entry(event) for event in events[start : start + 1_000]]
                instance.event_log_storage.store_event_batch(batch)

        yield "Dagster's store_event_batch", number / seconds(store), "files/s (two events each)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    facts = host_facts("dagster")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, part, size in (
            ("pipeline", pipeline, options.files),
            ("adopted", adopted, options.files),
            ("pruned", pruned, options.files),
            ("peer", peer, min(options.files, 10_000)),
        ):
            for row in part(Path(folder) / name, size):
                rows.append(row)
                print("{:32} {:12.2f} {}".format(*row), flush=True)
    write_rows(options.out, ("part", "value", "unit"), rows, facts)


if __name__ == "__main__":
    main()
