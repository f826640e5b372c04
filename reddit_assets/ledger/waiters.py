"""Dagster runs that wait for results: open, collect, renew, withdraw."""

from __future__ import annotations

from dataclasses import dataclass

from reddit_assets.ledger.connection import redis_errors
from reddit_assets.ledger.entries import read_results
from reddit_assets.ledger.job import Result
from reddit_assets.ledger.queue import JobQueue

__all__ = ["Withdrawn", "collect", "expired_runs", "open_run", "recorded", "withdraw"]


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
