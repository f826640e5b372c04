"""Verify jobs: workers compute a sample of embedding files again with the exact backend."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reddit_assets.jobqueue.job import Job, Kind, Result
from reddit_assets.jobqueue.runs import collect, recorded
from reddit_assets.orchestration.run_logic import Lease
from reddit_assets.orchestration.surroundings import Surroundings

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
        unanswered: partitions that no worker has looked at.
        why: a sentence on why not, or ``""``.
    """

    results: dict[str, Mapping[str, object]] = field(default_factory=dict)
    unanswered: list[str] = field(default_factory=list)
    why: str = ""

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


def verify_sample(
    around: Surroundings,
    lease: Lease,
    keys: Sequence[str],
    *,
    patience: float,
    files: int = FILES,
    rows: int = ROWS,
) -> Verified:
    """Have a sample of embedding files compared with the reference, and wait for the answers.

    Args:
        lease: of the run that waits, held by the caller; what is still queued when it gives the
            lease back is withdrawn.
        keys: partitions to draw from; all must have outputs.
        patience: seconds without any answer after which the rest counts as unanswered.
        files: partitions drawn at the most.
        rows: rows of each.

    Raises:
        QueueUnavailableError, QueueFullError: the queue cannot take the jobs.
    """
    queue = around.queues[Kind.EMBED]
    drawn = sorted(random.sample(list(keys), min(files, len(keys))))
    found = Verified(unanswered=drawn)
    counts = queue.counts()
    if not drawn:
        return found
    if counts.paused:
        found.why = "The queue is paused."
        return found
    if not counts.workers:
        found.why = "No embedding worker is there."
        return found
    wanted = [Job(Kind.EMBED, key, "", verify=rows) for key in drawn]
    jobs = {job.queue_key: job for job in wanted}
    queue.enqueue(wanted, around.layout, run=lease.run)
    heard = time.monotonic()
    while jobs and time.monotonic() - heard < patience:
        entries = collect(queue, lease.run, block_seconds=1.0)
        for _, result in entries:
            job = jobs.pop(result.partition, None)
            if job is not None:
                found.results[job.key] = _answer(result)
                heard = time.monotonic()
        recorded(queue, lease.run, [entry for entry, _ in entries])
    found.unanswered = sorted(job.key for job in jobs.values())
    if found.unanswered:
        found.why = f"No worker has answered for {patience:.0f} s."
    return found


def _answer(result: Result) -> Mapping[str, object]:
    return result.metadata if result.ok else {"problem": result.error}
