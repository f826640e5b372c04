"""Verify jobs: workers compute a sample of embedding files again with the exact backend."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import QueueFullError, QueueUnavailableError
from reddit_assets.ledger.job import Job, Kind, Result
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.ledger.waiters import collect, recorded
from reddit_assets.platform.run_logic import Lease
from reddit_assets.workspace import Workspace

__all__ = ["FILES", "ROWS", "Verified", "verify_sample"]

FILES = 16
"""Files computed again at the most …"""
ROWS = 16
"""… with so many rows of each: some six seconds of one core in all."""


@dataclass
class Verified:
    """What workers measured.

    Attributes:
        results: metadata of each answer by partition (see ``worker.verifier``).
        unanswered: why partitions could not be compared, by partition.
    """

    results: dict[str, Mapping[str, object]] = field(default_factory=dict)
    unanswered: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows compared."""
        return sum(int(str(found.get("rows", 0))) for found in self.results.values())

    @property
    def min_cosine(self) -> float | None:
        """The worst row's, or ``None`` if none was compared."""
        values = [
            float(str(found["min_cosine"]))
            for found in self.results.values()
            if found.get("rows") and "min_cosine" in found
        ]
        return min(values, default=None)

    def take(self, key: str, result: Result) -> None:
        """Note a worker's answer."""
        unable = result.metadata.get("unable") if result.ok else result.error
        if unable:
            self.unanswered[key] = str(unable)
        else:
            self.results[key] = result.metadata


def verify_sample(
    workspace: Workspace,
    lease: Lease,
    keys: Sequence[str],
    *,
    patience: float,
    files: int = FILES,
    rows: int = ROWS,
) -> Verified:
    """Have a sample of embedding files compared with the reference, and wait for the answers.

    What cannot be compared, for whatever reason, is told as such: a run whose outputs are all
    recorded does not fail because nobody could look at them again.

    Args:
        lease: of the run that waits, held by the caller; what is still queued when it gives the
            lease back is withdrawn.
        keys: partitions to draw from; all must have outputs.
        patience: seconds without any answer after which the rest counts as unanswered.
        files: partitions drawn at the most.
        rows: rows of each.
    """
    drawn = sorted(random.sample(list(keys), min(files, len(keys))))
    found = Verified()
    try:
        why = _ask(
            workspace.queues[Kind.EMBED], workspace.layout, lease, drawn, rows, patience, found
        )
    except (QueueUnavailableError, QueueFullError) as error:
        why = error.message
    for key in drawn:
        if key not in found.results:
            found.unanswered.setdefault(key, why)
    return found


def _ask(
    queue: JobQueue,
    layout: Layout,
    lease: Lease,
    keys: Sequence[str],
    rows: int,
    patience: float,
    found: Verified,
) -> str:
    """Queue verify jobs and take the answers; why some are missing."""
    counts = queue.counts()
    if counts.paused:
        return "The queue is paused: resume it with `reddit-assets resume`."
    if not counts.workers:
        return "No embedding worker is there: start one with `reddit-assets worker`."
    wanted = [Job(Kind.EMBED, key, "", verify=rows) for key in keys]
    jobs = {job.queue_key: job for job in wanted}
    queue.enqueue(wanted, layout, run=lease.run)
    after, heard = "0", time.monotonic()
    while jobs and time.monotonic() - heard < patience:
        own = []
        for entry, result in collect(queue, lease.run, after=after, block_seconds=1.0):
            after = entry
            job = jobs.pop(result.partition, None)
            if job is not None:
                own.append(entry)
                found.take(job.key, result)
                heard = time.monotonic()
        recorded(queue, lease.run, own)
    return (
        f"No worker has answered for {patience:.0f} s: look at the workers' logs, or raise "
        "REDDIT_VERIFY_SECONDS."
    )
