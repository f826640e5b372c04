"""One computing child of a worker and the jobs that the worker holds for it."""

from __future__ import annotations

import multiprocessing
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from reddit_assets.corpus.layout import Layout
from reddit_assets.ledger.intake import Intake
from reddit_assets.ledger.job import Claim, Kind
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.settings import Settings
from reddit_assets.tasks.messages import Recall, Task
from reddit_assets.worker.child import child_main
from reddit_assets.worker.liveness import Liveness

__all__ = ["PROCESSORS", "Held", "WorkerSlot"]

# What computes the jobs of a kind: module and class, imported by the child alone.
PROCESSORS = {
    Kind.EMBED: "reddit_assets.tasks.embed:EmbedProcessor",
    Kind.CLUSTER: "reddit_assets.tasks.cluster:ClusterProcessor",
}

# A child with this many bytes of chain files before it, beside what it has begun, has enough to
# do: more would only be withheld from other workers, and the last files of a queue would be
# computed by one of them alone.
_ENOUGH_BYTES = 500_000


@dataclass(slots=True)
class Held:
    """A claim in this worker's hands.

    Attributes:
        size: bytes of its input.
        sent: whether the child has it.
        started: whether the child computes it.
    """

    claim: Claim
    size: int = 0
    sent: bool = False
    started: bool = False
    rows: int = 0


class WorkerSlot:
    """A queue, a child that computes its jobs, and what is held for it.

    ``held`` is shared with the thread that renews leases: take ``lock`` to change it.

    Args:
        queue: where the jobs come from.
        processors: what computes them; tests and experiments give their own.
    """

    def __init__(
        self,
        queue: JobQueue,
        settings: Settings,
        layout: Layout,
        processors: Mapping[Kind, str] = PROCESSORS,
    ) -> None:
        self.queue = queue
        self.intake = Intake(queue, layout)
        self.kind = queue.kind
        self.settings = settings
        self.layout = layout
        self._processor = processors[queue.kind]
        self.lock = threading.Lock()
        self.held: dict[str, Held] = {}
        self.lost: set[str] = set()
        self.backlog: deque[str] = deque()
        self.facts: dict[str, Any] | None = None
        self.jobs_done = 0
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
            args=(self._processor, self.settings, self.layout, theirs),
            name=f"reddit-assets-{self.kind.value}",
            daemon=True,
        )
        self.process.start()
        theirs.close()
        assert self.process.pid is not None
        self.liveness = Liveness(self.process.pid, self.settings.stall_seconds)
        self.facts = None
        self.jobs_done = 0

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
        if self.held or self.liveness is None or self.facts is None:
            return False
        by_jobs = self.kind is Kind.CLUSTER and self.jobs_done >= self.settings.recycle_jobs
        return by_jobs or self.liveness.resident_mb() > self.settings.recycle_mb

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

    def wants(self) -> int:
        """How many jobs to claim now."""
        if self.facts is None:
            return 0
        limit = 1 if self.kind is Kind.CLUSTER else self.settings.claim_jobs
        with self.lock:
            room = limit - len(self.held)
            holding = list(self.held.values())
        if any(held.claim.suspect for held in holding):
            return 0  # it must be alone in its process
        sizes = [held.size for held in holding]
        waiting = [held.size for held in holding if not held.started]
        if self.kind is Kind.CLUSTER or room <= 0:
            return room
        if not sizes:
            return min(room, 2)  # the first jobs tell how large they are
        if len(waiting) >= 2 and sum(waiting) >= _ENOUGH_BYTES:
            return 0
        average = max(1, sum(sizes) // len(sizes))
        return max(1, min(room, (_ENOUGH_BYTES - sum(waiting)) // average))

    def feed(self) -> None:
        """Give the child what is waiting for it."""
        if self.pipe is None or self.facts is None:
            return
        while self.backlog:
            token = self.backlog.popleft()
            held = self.held.get(token)
            if held is None:
                continue
            claim = held.claim
            held.sent = True
            if self.liveness is not None:
                self.liveness.progressed()
            self.pipe.send(
                Task(
                    kind=self.kind,
                    key=claim.key,
                    token=claim.token,
                    job_id=claim.id,
                    force=claim.force,
                    stamp=claim.stamp,
                )
            )

    def recall(self) -> None:
        """Ask the child for the tasks that it has not started."""
        if self.pipe is not None:
            self.pipe.send(Recall())

    def unsent(self) -> list[Claim]:
        """Claims that the child does not have."""
        with self.lock:
            return [held.claim for held in self.held.values() if not held.sent]
