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
    ModelMismatchError,
    QueueFullError,
    QueueUnavailableError,
    RedditAssetsError,
    StartupError,
)
from reddit_assets.ledger.job import Claim, Kind, new_token, outputs_of
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
from reddit_assets.worker.fitness import check_model
from reddit_assets.worker.leases import LeaseKeeper
from reddit_assets.worker.slot import TASKS, Held, WorkerSlot

__all__ = ["Worker"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

# Waits between tries while Redis is away: doubled from the first to the second.
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 5.0
# A child that dies this often in a row is started again only after a rest.
_MANY_DEATHS = 5
# One that never came up does not do so by itself.
_MOST_FAILED_STARTS = 3


class Worker:
    """Works until told to stop, or until nothing is left if ``until_empty``.

    Args:
        queues: the queues to serve, each with a slot and a child of its own.
        display: where progress is shown.
        until_empty: return when no job is queued, delayed or leased by anybody.
        tasks: what computes the jobs.
    """

    def __init__(
        self,
        queues: Sequence[JobQueue],
        settings: Settings,
        layout: Layout,
        display: Display,
        *,
        until_empty: bool = False,
        tasks: Mapping[Kind, str] = TASKS,
    ) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{new_token()[:6]}"
        self.settings = settings
        self.layout = layout
        self.display = display
        self.slots = [WorkerSlot(queue, settings, layout, tasks) for queue in queues]
        self._until_empty = until_empty
        self._signals = 0
        self._wake = threading.Event()
        self._recalled = False
        self._keeper = LeaseKeeper(self.name, self.slots, settings, self._facts)

    # --- life ----------------------------------------------------------------------------
    def run(self) -> int:
        """Work; the process's exit status.

        Raises:
            RedditAssetsError: no child can work on this host.
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
                with suppress(OSError):  # the child has just died: _listen finds that out
                    slot.feed()
                self.display.holding(slot.kind, len(slot.held))
            self._listen()
            for slot in self.slots:
                if slot.worn:
                    self.display.note(f"The {slot.kind} process is renewed.")
                    slot.end_child()
                if slot.process is None and not (slot.unfit or slot.resting or self._stopping):
                    slot.start_child()

    def _begin_stop(self) -> None:
        """Give back what is claimed but not started; what is being computed is finished."""
        self._recalled = True
        self.display.note("Stopping after the current job; again to stop at once.")
        for slot in self.slots:
            self._release(slot, slot.unsent())
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
        fit = [slot for slot in self.slots if not slot.unfit]
        if any(slot.held or slot.facts is None for slot in fit):
            return False
        counts = self._patiently(lambda: [slot.queue.counts() for slot in fit])
        return counts is not None and not any(
            c.public or c.queued or c.delayed or c.leased for c in counts
        )

    def _facts(self, slot: WorkerSlot) -> dict[str, str | int | float]:
        facts: dict[str, str | int | float] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "kind": str(slot.kind),
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
        wait, said = _FIRST_WAIT, False
        while True:
            try:
                answer = step()
                if said:
                    self.display.note("Redis is back.")
                return answer
            except (QueueUnavailableError, QueueFullError) as error:
                if not said:
                    self.display.warn(f"{error} Waiting for it.")
                    said = True
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
        if count <= 0 or not self._fit(slot):
            return 0
        lease, alone = self.settings.lease_seconds, not slot.held
        claimed = self._patiently(lambda: slot.intake.claim(self.name, count, lease, alone=alone))
        if claimed is None:
            return 0
        slot.suspect_waits(claimed.suspects)
        for claim in claimed.claims:
            self._clean(claim, claim.tombs)
            slot.hold(claim, self._size(claim))
        return len(claimed.claims) + claimed.more

    def _fit(self, slot: WorkerSlot) -> bool:
        """Whether this host's engine is the wanted one; if not, everything is given back.

        Raises:
            ModelMismatchError: it is not, and the worker serves no other kind.
        """
        try:
            check_model(self.layout, slot.facts)
        except ModelMismatchError as error:
            self._retire(slot, error)
            return False
        except RedditAssetsError as error:
            self.display.warn(f"{error} A rest of {slot.rest():.0f} s.")
            return False
        return True

    def _retire(self, slot: WorkerSlot, error: RedditAssetsError) -> None:
        """Take a slot out of service; the worker's others go on.

        Raises:
            RedditAssetsError: ``error``, when no slot is left.
        """
        slot.unfit = str(error)
        slot.end_child(kill=True)
        self._release(slot, [claim for claim, _ in slot.renewable()])
        if all(one.unfit for one in self.slots):
            raise error
        self.display.warn(f"No {slot.kind} jobs here any more: {error}")

    def _release(self, slot: WorkerSlot, claims: Sequence[Claim], *, delay: float = 0.0) -> None:
        """Give jobs back unharmed; with a delay, behind all others."""
        for claim in claims:
            self._clean(claim, [claim.token])
        self._patiently(partial(slot.queue.release, claims, delay_seconds=delay))
        for claim in claims:
            slot.drop(claim.token)

    def _size(self, claim: Claim) -> int:
        """Bytes of the job's input; a missing file is the child's to report, in one place."""
        if claim.kind is not Kind.EMBED:
            return 0
        try:
            return self.layout.chain_path(claim.key).stat().st_size
        except OSError:
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
        if waited_on:
            multiprocessing.connection.wait(
                [*waited_on, *sentinels], timeout=self.settings.poll_seconds
            )
        else:
            self._wake.wait(self.settings.poll_seconds)
        for slot in self.slots:
            while (event := _next_event(slot)) is not None:
                self._handle(slot, event)
                if self._aborted:
                    return
            if slot.process is not None and not slot.process.is_alive():
                self._child_died(slot)

    def _handle(self, slot: WorkerSlot, event: Event) -> None:
        if slot.liveness is not None:
            slot.liveness.progressed()
        if isinstance(event, Ready):
            slot.ready(event.facts, event.silent)
            self.display.ready(slot.kind, event.facts)
        elif isinstance(event, Broken):
            self._retire(slot, StartupError(event.failure.error, hint=event.failure.hint))
        elif isinstance(event, Recalled):
            held = [slot.held[token].claim for token in event.tokens if token in slot.held]
            self._release(slot, held)
        elif isinstance(event, Started | Progress | Finished | Failed):
            known = slot.held.get(event.token)
            if known is not None:
                self._job_event(slot, known, event)

    def _job_event(
        self, slot: WorkerSlot, held: Held, event: Started | Progress | Finished | Failed
    ) -> None:
        if isinstance(event, Started):
            held.started = True
            self.display.started(slot.kind, held.claim.key)
        elif isinstance(event, Progress):
            self.display.progressed(slot.kind, event.rows)
        elif isinstance(event, Finished):
            self._finish(slot, held.claim, event)
        else:
            self._fail(slot, held.claim, event.failure)

    def _child_died(self, slot: WorkerSlot) -> None:
        """The ledger counts the crash, and queues the jobs again."""
        code = slot.process.exitcode if slot.process is not None else None
        claims, came_up = slot.renewable(), slot.facts is not None
        slot.end_child(kill=True)
        slot.deaths += 1
        started = sum(computed for _, computed in claims)
        self.display.warn(
            f"The {slot.kind} process died (exit status {code}) with {started} jobs begun."
        )
        if not came_up and slot.deaths >= _MOST_FAILED_STARTS:
            self._retire(
                slot,
                StartupError(
                    f"The {slot.kind} process dies before its engine is loaded "
                    f"(exit status {code}).",
                    hint="Look at its last output above, and at the host's memory.",
                ),
            )
            return
        self._crashed(slot, claims, code)
        if slot.deaths > _MANY_DEATHS:
            rest = slot.rest()
            self.display.warn(
                f"It has died {slot.deaths} times in a row: a rest of {rest:.0f} s. "
                "Look at its last output above, and at the host's memory."
            )
        elif not self._stopping:
            self._wake.wait(min(_LONGEST_WAIT, _FIRST_WAIT * 2**slot.deaths))

    def _crashed(
        self, slot: WorkerSlot, claims: list[tuple[Claim, bool]], code: int | None
    ) -> None:
        for claim, _ in claims:
            self._clean(claim, [claim.token])
        crashes = 1 + max((claim.crashes for claim, started in claims if started), default=0)
        failure = Failure(
            f"The computing process died or hung {crashes} times with this job alone in it "
            f"(exit status {code}).",
            hint="Look at the worker's log and at the host's memory; then retry the dead letter.",
            type="ProcessDied",
        )
        limit = self.settings.max_recoveries
        outcomes = self._patiently(lambda: slot.queue.crashed(claims, failure, max_crashes=limit))
        for claim, _ in claims:
            slot.drop(claim.token)
            if (outcomes or {}).get(claim.token) == "dead":
                self.display.failed(slot.kind, claim.key, failure, "dead")

    # --- ends of jobs --------------------------------------------------------------------
    def _finish(self, slot: WorkerSlot, claim: Claim, event: Finished) -> None:
        """Publish and acknowledge what the child made, if the job is still this worker's."""
        slot.jobs_done += 1
        try:
            if event.files:
                self._publish(slot, claim, event)
            done = self._patiently(
                lambda: slot.queue.acknowledge(
                    claim,
                    event.result,
                    rows=event.rows,
                    tokens=event.tokens,
                    seconds=event.seconds,
                ),
                then=False,
            )
            if not done:
                raise LeaseLostError(f"{claim.key}: another worker has taken the job over.")
        except LeaseLostError as error:
            self._clean(claim, [claim.token])
            slot.drop(claim.token)
            self.display.warn(f"{error} What was computed here is dropped.")
        except ModelMismatchError as error:
            self._retire(slot, error)
        except RedditAssetsError as error:
            self._clean(claim, [claim.token])
            self._fail(slot, claim, Failure.of(error))
        else:
            slot.drop(claim.token)
            if slot.rested():
                self.display.note(f"{slot.kind} goes on.")
            self.display.finished(slot.kind, claim.key, event)

    def _publish(self, slot: WorkerSlot, claim: Claim, event: Finished) -> None:
        """Rename the outputs while the token holds the job with a whole lease to spare.

        Raises:
            LeaseLostError: it does not.
            ModelMismatchError: another model is wanted by now.
            WriteError: a rename is refused.
        """
        check_model(self.layout, slot.facts)
        lease = self.settings.lease_seconds
        lost = self._patiently(
            lambda: slot.queue.renew(self.name, [(claim, True)], lease), then={claim.token}
        )
        if lost or claim.token in slot.lost:
            raise LeaseLostError(f"{claim.key}: the lease was lost while it was computed.")
        for temporary, output in event.files:
            publish(temporary, output)

    def _fail(self, slot: WorkerSlot, claim: Claim, failure: Failure) -> None:
        """A failed attempt; where the host is at fault, the job goes back unharmed instead."""
        if failure.host_fault:
            rest = slot.rest()
            self._release(slot, [claim, *slot.unsent()], delay=rest)
            self.display.trouble(slot.kind, claim.key, failure, rest)
            return
        outcome = self._patiently(
            lambda: slot.queue.fail(
                claim,
                failure,
                max_attempts=self.settings.max_attempts,
                retry_seconds=self.settings.retry_seconds,
            ),
            then="lost",
        )
        slot.drop(claim.token)
        slot.deaths = 0
        self.display.failed(slot.kind, claim.key, failure, str(outcome))


def _next_event(slot: WorkerSlot) -> Event | None:
    """What the child has said next; ``None`` if nothing, or if it is dead."""
    try:
        if slot.pipe is not None and slot.pipe.poll():
            event: Event = slot.pipe.recv()
            return event
    except (EOFError, OSError):
        if slot.process is not None:
            slot.process.join(1)  # its end of the pipe closes a moment before it is gone
            slot.process.kill()
            slot.process.join(10)
    return None
