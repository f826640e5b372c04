"""What a run does while it waits for workers: enqueue, collect, record, withdraw. Needs no op.

The run holds a lease in Redis and renews it while it lives; when it dies, the watchdog sensor
finds the lease expired, fails the run and hands its results on (``watchdog``).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import QueueUnavailableError, RedditAssetsError
from reddit_assets.ledger.job import Job, Kind, Result
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.ledger.waiters import (
    Withdrawn,
    collect,
    open_run,
    recorded,
    waited_for,
    withdraw,
)
from reddit_assets.workspace import Workspace

__all__ = ["NAMED_FAILURES", "Lease", "Outcome", "Waiting", "failed_partitions", "wait_for_jobs"]

# A run waits this long for Redis to come back before it gives up.
_PATIENCE_SECONDS = 600.0

_PROGRESS_SECONDS = 10.0
_CHECK_SECONDS = 30.0

# Results recorded at a time.
_BATCH = 1_000

NAMED_FAILURES = 50
"""Failed partitions that a run names, in its log and in its error."""


class Lease:
    """A run's lease on the queue: a run that waits shows with it that it is alive.

    Args:
        queue: whose results the run waits for.
        run: the run's id.
        seconds: a run that has not renewed its lease for this long is dead.
    """

    def __init__(self, queue: JobQueue, run: str, seconds: float) -> None:
        self.run = run
        self._queue, self._seconds = queue, seconds

    @classmethod
    def of(cls, workspace: Workspace, kind: Kind, run: str) -> Lease:
        """The lease of a run that waits for one queue's jobs."""
        return cls(workspace.queues[kind], run, workspace.settings.run_lease_seconds)

    def keep(self) -> None:
        """Take or renew the lease."""
        open_run(self._queue, self.run, self._seconds)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the lease for the length of a block, whatever the block does; then give it back.

        Raises:
            QueueUnavailableError: Redis cannot be reached at the beginning. Later the lease just
                runs out.
        """
        self.keep()
        done = threading.Event()

        def renew() -> None:
            while not done.wait(self._seconds / 4):
                with suppress(RedditAssetsError):
                    self.keep()

        renewer = threading.Thread(target=renew, name="lease", daemon=True)
        renewer.start()
        try:
            yield
        finally:
            done.set()
            renewer.join()
            with suppress(QueueUnavailableError):  # the watchdog withdraws what it left
                self.give_back()

    def give_back(self) -> Withdrawn:
        """Wait no longer: jobs that nobody else wants leave the queue."""
        return withdraw(self._queue, self.run)


@dataclass
class Outcome:
    """How a run's jobs ended.

    Attributes:
        recorded: partitions whose results are recorded.
        failed: why the others' jobs are dead letters, by partition.
        rows: rows of all recorded outputs.
    """

    recorded: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    rows: int = 0

    @property
    def total(self) -> int:
        """Partitions that have ended."""
        return len(self.recorded) + len(self.failed)


def failed_partitions(failed: Mapping[str, str], total: int) -> str:
    """Which of a run's partitions failed and why, as the run's error."""
    lines = [f"{key}: {reason}" for key, reason in list(failed.items())[:NAMED_FAILURES]]
    more = f"\n… and {left} more" if (left := len(failed) - NAMED_FAILURES) > 0 else ""
    return f"{len(failed)} of {total} partitions failed:\n" + "\n".join(lines) + more


class Waiting:
    """One run's jobs on one queue.

    Args:
        queue: where they go.
        layout: this host's trees.
        lease: of the run.
        record: called with results that succeeded; they count as recorded when it returns.
        log: the run's log.
    """

    def __init__(
        self,
        queue: JobQueue,
        layout: Layout,
        lease: Lease,
        *,
        record: Callable[[Sequence[Result]], None],
        log: logging.Logger,
    ) -> None:
        self.queue = queue
        self.layout = layout
        self.run = lease.run
        self.lease = lease
        self._record = record
        self._log = log
        self._jobs: dict[str, Job] = {}
        self._pending: dict[str, None] = {}
        self._after = "0"
        self.outcome = Outcome()
        self._started = self._told = self._checked = time.monotonic()

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Open the run and queue its jobs.

        Raises:
            QueueUnavailableError: Redis cannot be reached.
            QueueFullError: its memory is used up.
        """
        self.lease.keep()
        self._jobs.update({job.key: job for job in jobs})
        self._pending.update(dict.fromkeys(self._jobs))
        for start in range(0, len(jobs), 2_000):
            self.queue.enqueue(jobs[start : start + 2_000], self.layout, run=self.run)
        counts = self.queue.counts()
        self._log.info(
            f"{len(jobs)} {self.queue.kind.value} jobs queued; {counts.workers} workers run, "
            f"{counts.queued} jobs wait in all."
        )
        if counts.paused:
            self._log.warning("The queue is paused: nothing starts before it is resumed.")
        elif not counts.workers:
            self._log.warning("No worker is running: start one with `reddit-assets worker`.")

    def wait(self) -> Outcome:
        """Record results until all jobs have ended.

        Raises:
            QueueUnavailableError: Redis stayed away for ten minutes.
        """
        away_since: float | None = None
        while self._pending:
            try:
                taken = self._take(block_seconds=1.0)
                if 0 < taken < _BATCH // 2 and len(self._pending) > _BATCH:
                    time.sleep(0.5)  # many small batches would cost more than a few large ones
                self._look_for_lost()
                away_since = None
            except QueueUnavailableError as error:
                now = time.monotonic()
                if away_since is None:
                    away_since = now
                    self._log.warning(f"{error} The run waits for it.")
                if now - away_since > _PATIENCE_SECONDS:
                    raise
                time.sleep(1.0)
            self._tell()
        self._tell(last=True)
        return self.outcome

    def _take(self, block_seconds: float) -> int:
        entries = collect(
            self.queue, self.run, after=self._after, count=_BATCH, block_seconds=block_seconds
        )
        if not entries:
            return 0
        fine: dict[str, Result] = {}
        for _, result in entries:
            if result.partition not in self._pending:
                continue  # a second result for a job that was wanted twice
            if result.ok:
                fine[result.partition] = result
            else:
                why = f"{result.error} {result.hint}".strip()
                self.outcome.failed[result.partition] = why
                del self._pending[result.partition]
                if len(self.outcome.failed) <= NAMED_FAILURES:
                    self._log.error(f"{result.partition}: {why}")
        if fine:
            self._record(list(fine.values()))
        for key, result in fine.items():
            del self._pending[key]
            self.outcome.recorded.append(key)
            self.outcome.rows += int(result.metadata.get("rows") or 0)
        recorded(self.queue, self.run, [entry for entry, _ in entries])
        self._after = entries[-1][0]
        return len(entries)

    def _look_for_lost(self) -> None:
        """Queue again what Redis has forgotten, after it was wiped or rolled back."""
        if time.monotonic() - self._checked < _CHECK_SECONDS:
            return
        self._checked = time.monotonic()
        wanted = waited_for(self.queue, self.run)
        while self._take(block_seconds=0.001):
            pass
        lost = [self._jobs[key] for key in self._pending if key not in wanted]
        if lost:
            self._log.warning(f"{len(lost)} jobs are gone from Redis: they are queued again.")
            self.lease.keep()
            self.queue.enqueue(lost, self.layout, run=self.run)

    def _tell(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self._told < _PROGRESS_SECONDS:
            return
        self._told = now
        done = len(self.outcome.recorded)
        failed = len(self.outcome.failed)
        seconds = max(now - self._started, 1e-6)
        rate = (done + failed) / seconds
        parts = [f"{done} of {len(self._jobs)} partitions done"]
        if failed:
            parts.append(f"{failed} failed")
        parts.append(f"{rate:.2f} partitions/s, {self.outcome.rows / seconds:.0f} rows/s")
        if self._pending and rate:
            parts.append(f"about {_duration(len(self._pending) / rate)} left")
        self._log.info("; ".join(parts) + ".")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5_400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def wait_for_jobs(
    queue: JobQueue,
    layout: Layout,
    lease: Lease,
    jobs: Sequence[Job],
    *,
    record: Callable[[Sequence[Result]], None],
    log: logging.Logger,
) -> Outcome:
    """Have outputs made, whether or not they are fresh, and record each result.

    On any exception, a cancelled run's included, the run's jobs are withdrawn: queued ones that
    nobody else wants leave the queue; what is being computed is finished and reported without a
    run, as is what was not recorded.

    Args:
        lease: of the run; its owner gives it back, unless this fails.
        jobs: what is wanted; forced, to make fresh outputs again.
        record: see :class:`Waiting`.

    Returns:
        What was recorded and what failed; the caller decides whether the run fails.

    Raises:
        QueueUnavailableError: Redis cannot be reached, or stayed away too long.
        QueueFullError: its memory is used up; the jobs queued before are withdrawn.
    """
    waiting = Waiting(queue, layout, lease, record=record, log=log)
    try:
        waiting.enqueue(jobs)
        return waiting.wait()
    except BaseException:
        try:
            withdrawn = waiting.lease.give_back()
            log.warning(
                f"{withdrawn.withdrawn} queued jobs withdrawn; {withdrawn.kept} are wanted by "
                "others or being computed, and are reported without a run."
            )
        except QueueUnavailableError:
            # The lease runs out by itself, and the watchdog withdraws the run's jobs then.
            log.warning("Redis cannot be reached: the run's jobs are withdrawn when it is back.")
        raise
