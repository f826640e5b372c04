"""Backfills of many partitions: time to start, overhead per partition, runs, cancelling.

A real daemon, webserver and code server over Postgres and Valkey of this machine; a worker that
acknowledges at once, so that all time is the orchestration's. Two selections: all partitions, and
every 50th; both end right, which is checked. The peer is Dagster's own way, a run per contiguous
range, with a few scattered partitions. Writes ``results/scale_backfills.csv``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from dagster import DagsterInstance, RunsFilter
from dagster._core.instance.ref import InstanceRef
from scale_common import host_facts, write_rows
from scale_tree import Shape, cluster_keys, keys_of

from reddit_assets.ledger.job import Kind, Result
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.local.servers import PostgresServer, ValkeyServer
from reddit_assets_tests.factories import claim_jobs
from reddit_assets_tests.platform_stack import Stack, wait_for

RESULTS = Path(__file__).parent / "results" / "scale_backfills.csv"
Row = tuple[str, str, float | int | str, str]


def work(url: str, done: Any) -> None:
    """Acknowledges every embedding job at once; counts them."""
    queue = JobQueue(redis.Redis.from_url(url, decode_responses=True), Kind.EMBED)
    while True:
        claims = claim_jobs(queue, "instant", 500, 60.0) or []
        for claim in claims:
            metadata = {"rows": 3, "tokens": 30, "seconds": 0.0, "job_id": claim.id}
            queue.acknowledge(
                claim,
                Result(
                    claim.id,
                    "embeddings",
                    claim.key,
                    data_version=f"made-{claim.id}",
                    source_version=f"of-{claim.key}",
                    metadata=metadata,
                ),
            )
        done.value += len(claims)
        if not claims:
            time.sleep(0.05)


@contextmanager
def worker(site: Site) -> Iterator[Any]:
    """Gives the number of jobs done, as it grows."""
    context = multiprocessing.get_context("spawn")
    done = context.Value("q", 0)
    url = site.stack.settings.require_redis_url()
    process = context.Process(target=work, args=(url, done), daemon=True)
    process.start()
    try:
        yield done
    finally:
        process.terminate()
        process.join()


class Site:
    """A stack whose sensors see no files: nothing but backfills makes work."""

    def __init__(self, folder: Path, postgres: str, valkey: str, run_size: int) -> None:
        self.stack = Stack(
            folder,
            valkey,
            postgres,
            discovery_seconds=3600,
            subreddits="no such subreddit",
            run_lease_seconds=60.0,
            backfill_run_size=run_size,
        )
        self.queue = self.stack.queues[Kind.EMBED]
        self.instance = DagsterInstance.from_ref(InstanceRef.from_dir(str(self.stack.home)))

    def backfill(self, keys: Sequence[str], done: Any) -> dict[str, Any]:
        """Launch one and wait: seconds to its first job and in all, runs, what was made."""
        started = time.monotonic()
        before = done.value
        found = self.stack.backfill(["embeddings"], keys)
        wait_for(lambda: done.value > before, 300, "the first job is done")
        first = time.monotonic() - started
        ended = self.stack.wait_backfill(found, 1_800)
        seconds = time.monotonic() - started
        runs = self.instance.get_run_records(RunsFilter(tags={"dagster/backfill": found}))
        created = sorted(run.create_timestamp.timestamp() for run in runs)
        (status,) = ended["assetBackfillData"]["assetBackfillStatuses"]
        assert ended["status"] == "COMPLETED_SUCCESS", ended
        assert status["numPartitionsMaterialized"] == len(keys), status
        assert status["numPartitionsFailed"] == 0, status
        return {
            "to the first job": first,
            "in all": seconds,
            "per partition": 1_000 * seconds / len(keys),
            "runs": len(runs),
            "daemon per run": (created[-1] - created[0]) / max(1, len(created) - 1),
        }

    def cancel(self, keys: Sequence[str]) -> tuple[float, float]:
        """Seconds until nothing is queued, and until the backfill says that it is cancelled."""
        found = self.stack.backfill(["embeddings"], keys)
        wait_for(lambda: self.queue.counts().queued >= len(keys) // 2, 600, "jobs are queued")
        started = time.monotonic()
        self.stack.gql(
            "mutation($b: String!) { cancelPartitionBackfill(backfillId: $b) { __typename } }",
            b=found,
        )
        wait_for(lambda: not self.queue.counts().queued, 120, "the jobs are withdrawn")
        withdrawn = time.monotonic() - started
        assert self.stack.wait_backfill(found, 180)["status"] == "CANCELED"
        return withdrawn, time.monotonic() - started


@contextmanager
def site(folder: Path, keys: Sequence[str], run_size: int) -> Iterator[Site]:
    folder.mkdir()
    with (
        PostgresServer(folder / "postgres") as postgres,
        ValkeyServer(folder / "valkey", config={"appendonly": "no"}) as valkey,
    ):
        found = Site(folder, postgres.url, valkey.url, run_size)
        for start in range(0, len(keys), 5_000):
            found.instance.add_dynamic_partitions("chain_files", list(keys[start : start + 5_000]))
        found.stack.start()
        try:
            yield found
        finally:
            found.stack.kill()
            found.instance.dispose()


def measure(folder: Path, number: int, every: int, peers: int) -> Iterator[Row]:
    keys = [key for cluster in cluster_keys(Shape(number)) for key in keys_of(cluster, 10)]
    keys = sorted(keys)[:number]
    scattered = keys[::every]
    units = {"to the first job": "s", "in all": "s", "per partition": "ms", "runs": "processes"}
    with site(folder / "ours", keys, 10_000) as ours:
        with worker(ours) as done:
            for name, chosen in (("contiguous", keys), ("scattered", scattered)):
                found = ours.backfill(chosen, done)
                for what, unit in units.items():
                    yield f"{name}: {len(chosen)} of {number}", what, found[what], unit
        withdrawn, ended = ours.cancel(keys)
        yield f"cancel: {number} of {number}", "jobs withdrawn", withdrawn, "s"
        yield f"cancel: {number} of {number}", "backfill cancelled", ended, "s"
    few = keys[:: number // peers][:peers]
    with site(folder / "theirs", keys, 1) as theirs, worker(theirs) as done:
        found = theirs.backfill(few, done)
        name = f"a run per range: {len(few)} of {number}"
        for what, unit in units.items():
            yield name, what, found[what], unit
        yield name, "daemon: to make a run", 1_000 * found["daemon per run"], "ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--peers", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    facts = host_facts("dagster")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for row in measure(Path(folder), options.partitions, options.every, options.peers):
            rows.append(row)
            print("{:40} {:24} {:10.2f} {}".format(*row), flush=True)
    write_rows(options.out, ("backfill", "what", "value", "unit"), rows, facts)


if __name__ == "__main__":
    main()
