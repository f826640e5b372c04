"""Dagster runs that wait for results: open, collect, renew, withdraw."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from reddit_assets.errors import BadJobError
from reddit_assets.ledger.connection import redis_errors
from reddit_assets.ledger.entries import read_results
from reddit_assets.ledger.job import Result
from reddit_assets.ledger.queue import JobQueue

__all__ = [
    "Withdrawn",
    "collect",
    "expired_runs",
    "open_run",
    "open_runs",
    "recorded",
    "unreported",
    "waited_for",
    "withdraw",
]


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What became of a run's jobs.

    Attributes:
        withdrawn: left the queue: nobody else wanted them.
        kept: others want them, or they are being computed.
    """

    withdrawn: int
    kept: int


def open_run(queue: JobQueue, run: str, lease_seconds: float) -> None:
    """Let ``run`` wait for results, or renew its lease. Call it more often than the lease lasts."""
    queue.run_script("run", run, int(lease_seconds * 1000))


def expired_runs(queue: JobQueue) -> list[str]:
    """Runs whose process has not renewed its lease: it died."""
    return list(queue.run_script("run", "", 0))


def open_runs(queue: JobQueue) -> list[str]:
    """Runs that wait for results, or did when they died."""
    with redis_errors(queue.client):
        return list(queue.client.zrange(f"{queue.prefix}runs", 0, -1))


def waited_for(queue: JobQueue, run: str) -> set[str]:
    """The keys whose results the run still waits for."""
    with redis_errors(queue.client):
        return set(queue.client.smembers(f"{queue.prefix}run:{run}"))


def unreported(queue: JobQueue, read: dict[str, str]) -> set[str]:
    """Partitions whose results Dagster does not have yet: in the outbox, or a waiting run's.

    Args:
        read: the last entry read of each stream, to go on from at the next call; updated.
    """
    found: set[str] = set()
    streams = ["outbox", *(f"results:{run}" for run in open_runs(queue))]
    for name in (f"{queue.prefix}{stream}" for stream in streams):
        while True:
            with redis_errors(queue.client):
                items = queue.client.xrange(name, min=f"({read.get(name, '0')}", count=1_000)
            if not items:
                break
            for entry, fields in items:
                read[name] = entry
                # An entry that is not a result is set aside by the reader that empties the stream.
                with suppress(BadJobError):
                    found.add(Result.from_json(fields.get("r", ""), queue.kind.asset).partition)
    return found


def collect(
    queue: JobQueue, run: str, *, after: str = "0", count: int = 200, block_seconds: float = 1.0
) -> list[tuple[str, Result]]:
    """The run's next results, each with its entry id; empty when none came in time.

    Args:
        after: the last entry id already seen.
    """
    name = f"{queue.prefix}results:{run}"
    with redis_errors(queue.client):
        answer = queue.client.xread(
            {name: after},
            count=count,
            block=int(block_seconds * 1000) or None,  # 0 would wait without end
        )
    return [
        (entry, result)
        for _, items in (answer or [])
        for entry, result, _ in read_results(queue, name, items)
    ]


def recorded(queue: JobQueue, run: str, entries: list[str]) -> None:
    """Forget results that Dagster has."""
    if entries:
        with redis_errors(queue.client):
            queue.client.xdel(f"{queue.prefix}results:{run}", *entries)


def withdraw(queue: JobQueue, run: str) -> Withdrawn:
    """Take ``run`` off the waiters.

    Queued jobs that nobody else wants leave the queue; what is being computed is finished and
    reported without a run, as are results that the run has not recorded.
    """
    withdrawn = kept = 0
    while True:
        gone, stayed, left = queue.run_script("withdraw", run, 500)
        withdrawn += gone
        kept += stayed
        if not left:
            return Withdrawn(withdrawn, kept)
