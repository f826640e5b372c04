"""A worker's slot for one kind of job: its queue, its computing child, and the claims it holds."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from reddit_assets.corpus.layout import Layout
from reddit_assets.ledger.intake import Intake
from reddit_assets.ledger.job import Claim, Kind
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.settings import Settings
from reddit_assets.tasks.messages import Recall
from reddit_assets.worker.child import child_main
from reddit_assets.worker.liveness import Liveness

__all__ = ["TASKS", "Held", "WorkerSlot"]

# What computes the jobs of a kind: module and class, imported by the child alone.
TASKS = {
    Kind.EMBED: "reddit_assets.tasks.embed:EmbedTask",
    Kind.CLUSTER: "reddit_assets.tasks.cluster:ClusterTask",
    Kind.INGEST: "reddit_assets.tasks.ingest:IngestTask",
}

# A child with this many bytes of chain files waiting has enough to do. More would only be withheld
# from other workers, and the last files of a queue would be computed by one worker alone.
_ENOUGH_BYTES = 500_000
# Of so many waiting jobs, half of that will do.
_MANY_JOBS = 16

# Rests after faults of the host: doubled from the first to the longest.
_FIRST_REST, _LONGEST_REST = 1.0, 60.0


@dataclass(slots=True)
class Held:
    """A claim in this worker's hands.

    Attributes:
        size: bytes of its input.
        sent: whether the child has it.
        started: whether the child computes it.
        since: when it was claimed, and then when it was started (monotonic seconds).
    """

    claim: Claim
    size: int = 0
    sent: bool = False
    started: bool = False
    since: float = field(default_factory=time.monotonic)


class WorkerSlot:
    """One kind's queue and child, and what is held for it.

    ``held`` is shared with the thread that renews leases: take ``lock`` to change it.

    Args:
        queue: where the jobs come from.
        tasks: what computes them; tests and experiments pass their own.

    Attributes:
        lost: tokens that no longer hold their jobs.
        facts: what the loaded task says of itself; ``None`` until then.
        deaths: how often the child died in a row without finishing a job.
        failed_starts: how often in a row it died before its engine was loaded.
        unfit: why this host must not do such jobs now, in a sentence; empty if it may.
    """

    def __init__(
        self,
        queue: JobQueue,
        settings: Settings,
        layout: Layout,
        tasks: Mapping[Kind, str] = TASKS,
    ) -> None:
        self.queue = queue
        self.intake = Intake(queue, layout)
        self.kind = queue.kind
        self.settings = settings
        self.layout = layout
        self._task = tasks[queue.kind]
        self.lock = threading.Lock()
        self.held: dict[str, Held] = {}
        self.lost: set[str] = set()
        self.backlog: deque[str] = deque()
        self.facts: dict[str, Any] | None = None
        self.jobs_done = 0
        self.deaths = self.failed_starts = 0
        self.unfit = ""
        self._rest, self._rests_until = 0.0, 0.0
        self._suspect_since: float | None = None
        self.process: multiprocessing.process.BaseProcess | None = None
        self.pipe: Connection | None = None
        self.liveness: Liveness | None = None

    # --- the child -----------------------------------------------------------------------
    def start_child(self) -> None:
        """Start the computing process; it says Ready when its engine is loaded."""
        # A fresh interpreter: a fork would share the parent's threads and connections.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=child_main,
            args=(self._task, self.settings, self.layout, theirs),
            name=f"reddit-assets-{self.kind}",
            daemon=True,
        )
        self.process.start()
        theirs.close()
        assert self.process.pid is not None
        self.liveness = Liveness(self.process.pid, self.settings.stall_seconds)
        self.facts = None
        self.jobs_done = 0

    def ready(self, facts: dict[str, Any], silent: bool) -> None:
        """The child's engine is loaded."""
        self.facts = facts
        self.failed_starts = 0
        if self.liveness is not None:
            self.liveness.silent = silent

    def end_child(self, *, kill: bool = False) -> None:
        """End the computing process: at once, or when it has nothing in hand."""
        process, pipe = self.process, self.pipe
        self.process = self.pipe = self.liveness = self.facts = None
        if process is None or pipe is None:
            return
        if not kill:
            try:
                pipe.send(None)
            except OSError:
                kill = True
            else:
                process.join(10)
        if kill or process.is_alive():
            process.kill()
        process.join(10)
        pipe.close()

    @property
    def worn(self) -> bool:
        """Whether the idle child should be replaced: its memory comes back only then."""
        if self.held or self.liveness is None or self.facts is None or not self.jobs_done:
            return False  # a model that is larger by itself would be loaded again without end
        by_jobs = self.kind.one_at_a_time and self.jobs_done >= self.settings.recycle_jobs
        return by_jobs or self.liveness.resident_mb() > self.settings.recycle_mb

    # --- rests ---------------------------------------------------------------------------
    @property
    def resting(self) -> bool:
        """Whether the slot takes and computes nothing for a while."""
        return time.monotonic() < self._rests_until

    def rest(self, seconds: float | None = None) -> float:
        """Take nothing for a while, longer from time to time; the seconds."""
        if not self.resting:  # several jobs that fail together are one fault of the host
            self._rest = seconds or min(max(2 * self._rest, _FIRST_REST), _LONGEST_REST)
            self._rests_until = time.monotonic() + self._rest
        return self._rest

    def rested(self) -> bool:
        """A job has succeeded: the next rest is short. Returns whether there was one."""
        was, self._rest = self._rest > 0, 0.0
        self.deaths = 0
        return was

    # --- what is held --------------------------------------------------------------------
    def hold(self, claim: Claim, size: int) -> None:
        """Keep a claimed job until the child takes it."""
        with self.lock:
            self.held[claim.token] = Held(claim, size)
            self.backlog.append(claim.token)

    def drop(self, token: str) -> Held | None:
        """The job is no longer this worker's."""
        with self.lock:
            self.lost.discard(token)
            if token in self.backlog:
                self.backlog.remove(token)
            return self.held.pop(token, None)

    def renewable(self) -> list[tuple[Claim, bool]]:
        """The held jobs, each with whether it is being computed."""
        with self.lock:
            return [(held.claim, held.started) for held in self.held.values()]

    def unsent(self) -> list[Claim]:
        """Claims that the child does not have."""
        with self.lock:
            return [held.claim for held in self.held.values() if not held.sent]

    @property
    def suspects(self) -> bool:
        """Whether a job that must run alone is held."""
        return any(held.claim.suspect for held in self.held.values())

    def suspect_waits(self, waits: bool) -> None:
        """Note whether a suspect waits for a worker with nothing in hand."""
        if not waits or not self.held:
            self._suspect_since = None
        elif self._suspect_since is None:
            self._suspect_since = time.monotonic()

    def wants(self) -> int:
        """How many jobs to claim now."""
        if self.facts is None or self.resting:
            return 0
        limit = 1 if self.kind.one_at_a_time else self.settings.claim_jobs
        since = self._suspect_since
        patience = self.settings.lease_seconds
        with self.lock:
            if self.suspects:
                return 0  # others would only wait for it
            if self.held and since is not None and time.monotonic() - since > patience:
                return 0  # no idle worker has taken the suspect: finish what is held, for its sake
            room = limit - len(self.held)
            sizes = [held.size for held in self.held.values()]
            waiting = [held.size for held in self.held.values() if not held.started]
        if self.kind.one_at_a_time or room <= 0:
            return room
        if not sizes:
            return min(room, 2)  # the first jobs show how large they are
        if len(waiting) >= 2 and sum(waiting) >= _ENOUGH_BYTES:
            return 0
        if len(waiting) >= _MANY_JOBS and 2 * sum(waiting) >= _ENOUGH_BYTES:
            return 0  # small files: many with one call, instead of a call for each
        average = max(1, sum(sizes) // len(sizes))
        return max(1, min(room, (_ENOUGH_BYTES - sum(waiting)) // average))

    def feed(self) -> None:
        """Give the child what is waiting for it; a suspect only when it has nothing else.

        Raises:
            OSError: the child has just died.
        """
        if self.pipe is None or self.facts is None or self.resting:
            return
        ordered = sorted(
            (token for token in self.backlog if token in self.held),
            # Suspects last: harmless jobs need not wait for them.
            key=lambda token: self.held[token].claim.suspect,
        )
        sent = [held for held in self.held.values() if held.sent]
        busy, alone = bool(sent), any(held.claim.suspect for held in sent)
        self.backlog = deque(ordered)
        while self.backlog:
            held = self.held[self.backlog[0]]
            if alone or (busy and held.claim.suspect):
                return
            busy, alone = True, held.claim.suspect
            self.backlog.popleft()
            held.sent = True
            if self.liveness is not None:
                self.liveness.progressed()
            self.pipe.send(held.claim)

    @property
    def lost_before_start(self) -> bool:
        """Whether the child has a claim before it that is no longer this worker's."""
        with self.lock:
            return any(
                token in self.lost and held.sent and not held.started
                for token, held in self.held.items()
            )

    def recall(self) -> None:
        """Ask the child for the claims that it has not started.

        Raises:
            OSError: the child has just died.
        """
        if self.pipe is not None:
            self.pipe.send(Recall())
