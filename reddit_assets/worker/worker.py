"""The parent: claims, feeds the children, publishes what they made, acknowledges, gives back."""

from __future__ import annotations

import logging
import multiprocessing.connection
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import TypeVar

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.output import publish, remove_temporary
from reddit_assets.errors import (
    Failure,
    LeaseLostError,
    QueueFullError,
    QueueUnavailableError,
    RedditAssetsError,
    WriteError,
)
from reddit_assets.ledger.intake import Claimed
from reddit_assets.ledger.job import Claim, Kind, Result, new_token, outputs_of
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.settings import Settings
from reddit_assets.tasks.messages import (
    Broken,
    Event,
    Failed,
    Finished,
    Progress,
    Ready,
    Recalled,
    Started,
)
from reddit_assets.worker.display import Display
from reddit_assets.worker.leases import LeaseKeeper
from reddit_assets.worker.slot import PROCESSORS, WorkerSlot

__all__ = ["Worker"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

# Waits between tries while Redis is away: doubled from the first to the second.
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 5.0
# A child that dies this often in a row without finishing a job is not the jobs' fault.
_MOST_DEATHS = 5


class Worker:
    """Works until told to stop, or until nothing is left if ``until_empty``.

    Args:
        queues: the queues to serve, each with a child of its own.
        display: where progress is shown.
        until_empty: return when no job is queued, delayed or leased by anybody.
        processors: what computes the jobs.
    """

    def __init__(
        self,
        queues: Sequence[JobQueue],
        settings: Settings,
        layout: Layout,
        display: Display,
        *,
        until_empty: bool = False,
        processors: Mapping[Kind, str] = PROCESSORS,
    ) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{new_token()[:6]}"
        self.settings = settings
        self.layout = layout
        self.display = display
        self.slots = [WorkerSlot(queue, settings, layout, processors) for queue in queues]
        self._until_empty = until_empty
        self._signals = 0
        self._wake = threading.Event()
        self._recalled = False
        self._deaths = 0
        self._keeper = LeaseKeeper(self.name, self.slots, settings, self._facts)

    # --- life ----------------------------------------------------------------------------
    def run(self) -> int:
        """Work; the process's exit status.

        Raises:
            RedditAssetsError: the child cannot work on this host.
        """
        previous = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            for slot in self.slots:
                slot.start_child()
            self._keeper.start()
            self._work()
            return 130 if self._aborted else 0
        finally:
            self._give_back()
            if self._keeper.is_alive():
                self._keeper.stop()
            for number, handler in previous.items():
                signal.signal(number, handler)

    @property
    def _stopping(self) -> bool:
        return self._signals > 0

    @property
    def _aborted(self) -> bool:
        return self._signals > 1

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        self._wake.set()

    def _work(self) -> None:
        while not self._aborted:
            if self._stopping:
                if not self._recalled:
                    self._begin_stop()
                if not any(slot.held for slot in self.slots):
                    return
            else:
                claimed = sum(self._claim(slot) for slot in self.slots)
                if not claimed and self._until_empty and self._empty():
                    return
            for slot in self.slots:
                slot.feed()
                self.display.holding(slot.kind, len(slot.held))
            self._listen()
            for slot in self.slots:
                if slot.worn:
                    self.display.note(f"The {slot.kind.value} process is renewed.")
                    slot.end_child()
                    slot.start_child()

    def _begin_stop(self) -> None:
        """Give back what is claimed but not started; what is being computed is finished."""
        self._recalled = True
        self.display.note("Stopping after the current job; again to stop at once.")
        for slot in self.slots:
            unsent = slot.unsent()
            self._patiently(partial(slot.queue.release, unsent))
            for claim in unsent:
                slot.drop(claim.token)
            with suppress(OSError):
                slot.recall()

    def _give_back(self) -> None:
        """End the children and give back every job that is still held."""
        for slot in self.slots:
            slot.end_child(kill=bool(slot.held) or self._aborted)
            claims = [claim for claim, _ in slot.renewable()]
            for claim in claims:
                self._clean(claim, [claim.token])
                slot.drop(claim.token)
            try:
                slot.queue.release(claims)
                slot.queue.leave(self.name)
            except (QueueUnavailableError, QueueFullError) as error:
                if claims:
                    log.warning(
                        "%d jobs could not be given back, their leases will run out: %s",
                        len(claims),
                        error,
                    )

    def _empty(self) -> bool:
        if any(slot.held or slot.facts is None for slot in self.slots):
            return False
        counts = [slot.queue.counts() for slot in self.slots]
        return not any(c.public or c.queued or c.delayed or c.leased for c in counts)

    def _facts(self, slot: WorkerSlot) -> dict[str, str | int | float]:
        facts: dict[str, str | int | float] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "kind": slot.kind.value,
            "held": len(slot.held),
            "done": self.display.jobs(slot.kind),
            "seen": time.time(),
        }
        for name in ("backend", "device", "precision"):
            if slot.facts and slot.facts.get(name) is not None:
                facts[name] = str(slot.facts[name])
        return facts

    # --- Redis away ----------------------------------------------------------------------
    def _patiently(self, step: Callable[[], _T], *, then: _T | None = None) -> _T | None:
        """Do a step against Redis, waiting as long as it is away.

        Returns:
            What the step returns; ``then`` if the worker is told to stop at once meanwhile.
        """
        wait, told = _FIRST_WAIT, False
        while True:
            try:
                answer = step()
                if told:
                    self.display.note("Redis is back.")
                return answer
            except (QueueUnavailableError, QueueFullError) as error:
                if not told:
                    self.display.warn(f"{error} Waiting for it.")
                    told = True
                if self._aborted:
                    return then
                self._wake.clear()
                self._wake.wait(wait)
                wait = min(wait * 2, _LONGEST_WAIT)
                if self._stopping and not any(slot.held for slot in self.slots):
                    return then

    # --- claiming ------------------------------------------------------------------------
    def _claim(self, slot: WorkerSlot) -> int:
        """Claim what the slot wants; the number of jobs taken."""
        count = slot.wants()
        if count <= 0:
            return 0
        lease, alone = self.settings.lease_seconds, not slot.held
        claimed = self._patiently(
            lambda: slot.intake.claim(self.name, count, lease, alone=alone), then=Claimed()
        )
        claims = claimed.claims if claimed else []
        for claim in claims:
            self._clean(claim, claim.tombs)
            slot.hold(claim, self._size(claim))
        return len(claims)

    def _size(self, claim: Claim) -> int:
        """Bytes of a claim's input; 0 if it is missing, which is the task's to report."""
        if claim.kind is Kind.EMBED:
            with suppress(OSError):
                return self.layout.chain_path(claim.key).stat().st_size
        return 0

    def _clean(self, claim: Claim, tokens: Sequence[str]) -> None:
        """Delete the temporary files of dead tokens."""
        try:
            for output in outputs_of(self.layout, claim.kind, claim.key):
                remove_temporary(output, tokens)
        except (RedditAssetsError, OSError) as error:
            log.warning("A temporary file of %s cannot be deleted: %s", claim.key, error)

    # --- the children's events -----------------------------------------------------------
    def _listen(self) -> None:
        """Handle what the children say; returns after at most one polling interval."""
        waited_on = [slot.pipe for slot in self.slots if slot.pipe is not None]
        sentinels = [slot.process.sentinel for slot in self.slots if slot.process is not None]
        multiprocessing.connection.wait(
            [*waited_on, *sentinels], timeout=self.settings.poll_seconds
        )
        for slot in self.slots:
            try:
                while slot.pipe is not None and slot.pipe.poll():
                    self._handle(slot, slot.pipe.recv())
                    if self._aborted:
                        return
            except (EOFError, OSError):
                self._child_died(slot)
                continue
            if slot.process is not None and not slot.process.is_alive():
                self._child_died(slot)

    def _handle(self, slot: WorkerSlot, event: Event) -> None:
        if slot.liveness is not None:
            slot.liveness.progressed()
        if isinstance(event, Ready):
            slot.facts = event.facts
            self.display.ready(slot.kind, event.facts)
        elif isinstance(event, Broken):
            failure = event.failure
            raise RedditAssetsError(failure.error, hint=failure.hint)
        elif isinstance(event, Recalled):
            self._recall(slot, event)
        elif isinstance(event, Started | Progress | Finished | Failed):
            held = slot.held.get(event.token)
            if held is None:
                return
            if isinstance(event, Started):
                held.started = True
                self.display.started(slot.kind, held.claim.key)
            elif isinstance(event, Progress):
                held.rows += event.rows
                self.display.progressed(slot.kind, event.rows)
            elif isinstance(event, Finished):
                self._finish(slot, held.claim, event)
            else:
                slot.drop(event.token)
                self._fail(slot, held.claim, event.failure)

    def _recall(self, slot: WorkerSlot, event: Recalled) -> None:
        claims = [slot.held[token].claim for token in event.tokens if token in slot.held]
        self._patiently(lambda: slot.queue.release(claims))
        for claim in claims:
            slot.drop(claim.token)

    def _child_died(self, slot: WorkerSlot) -> None:
        """Its jobs are queued again; those that it computed are suspects."""
        code = slot.process.exitcode if slot.process is not None else None
        claims = slot.renewable()
        slot.end_child(kill=True)
        self.display.warn(
            f"The {slot.kind.value} process died (exit status {code}) with {len(claims)} jobs."
        )
        failure = Failure(
            f"The worker's process died {self.settings.max_recoveries} times with this job.",
            "Look at the worker's log and memory, then retry the dead letter.",
            "WorkerDied",
        )
        outcomes: dict[str, str] | None = self._patiently(
            lambda: slot.queue.crashed(claims, failure, max_crashes=self.settings.max_recoveries),
        )
        for claim, _ in claims:
            if (outcomes or {}).get(claim.token) == "dead":
                self._clean(claim, [claim.token])
        for claim, _ in claims:
            slot.drop(claim.token)
        self._deaths += 1
        if self._deaths > _MOST_DEATHS:
            raise RedditAssetsError(
                f"The {slot.kind.value} process died {self._deaths} times in a row.",
                hint="Look at its last output above, and at the host's memory.",
            )
        if not self._stopping:
            self._wake.wait(min(_LONGEST_WAIT, _FIRST_WAIT * 2**self._deaths))
            slot.start_child()

    # --- ends of jobs --------------------------------------------------------------------
    def _finish(self, slot: WorkerSlot, claim: Claim, event: Finished) -> None:
        """Publish and acknowledge what the child made, if the job is still this worker's."""
        self._deaths = 0
        slot.jobs_done += 1
        try:
            if event.files:
                self._publish(slot, claim, event)
            result = Result(
                job=claim.id,
                asset=claim.kind.asset,
                partition=claim.key,
                outcome=event.outcome,
                data_version=event.data_version,
                source_version=event.source_version,
                metadata=event.metadata,
            )
            done = self._patiently(
                lambda: slot.queue.acknowledge(
                    claim, result, rows=event.rows, tokens=event.tokens, seconds=event.seconds
                ),
                then=False,
            )
            if not done:
                raise LeaseLostError(f"{claim.key}: another worker has taken the job over.")
            self.display.finished(slot.kind, claim.key, event)
        except LeaseLostError as error:
            self._clean(claim, [claim.token])
            self.display.warn(f"{error} What was computed here is dropped.")
        except WriteError as error:
            self._clean(claim, [claim.token])
            self._fail(slot, claim, Failure.of(error))
        finally:
            slot.drop(claim.token)

    def _publish(self, slot: WorkerSlot, claim: Claim, event: Finished) -> None:
        """Rename the outputs while the token holds the job with a whole lease to spare.

        Raises:
            LeaseLostError: it does not.
            WriteError: a rename is refused.
        """
        lease = self.settings.lease_seconds
        lost = self._patiently(
            lambda: slot.queue.renew(self.name, [(claim, True)], lease), then={claim.token}
        )
        if lost or claim.token in slot.lost:
            raise LeaseLostError(f"{claim.key}: the lease was lost while it was computed.")
        for temporary, output in event.files:
            publish(temporary, output)

    def _fail(self, slot: WorkerSlot, claim: Claim, failure: Failure) -> None:
        outcome = self._patiently(
            lambda: slot.queue.fail(
                claim,
                failure,
                max_attempts=self.settings.max_attempts,
                retry_seconds=self.settings.retry_seconds,
            ),
            then="lost",
        )
        self.display.failed(slot.kind, claim.key, failure, str(outcome))
