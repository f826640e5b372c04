"""The parent: claims, feeds the children, publishes what they made, acknowledges, gives back."""

from __future__ import annotations

import logging
import multiprocessing.connection
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import (
    ModelMismatchError,
    QueueFullError,
    QueueUnavailableError,
    RedditAssetsError,
    StartupError,
)
from reddit_assets.ledger.job import Claim, Kind, new_token
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
from reddit_assets.worker.outcomes import Outcomes
from reddit_assets.worker.slot import TASKS, Held, WorkerSlot
from reddit_assets.worker.stop import LONGEST_WAIT, Stop

__all__ = ["Worker"]

log = logging.getLogger(__name__)

# A child that dies this often in a row is started again only after a rest.
_MANY_DEATHS = 5
# A child that never came up will not do so by itself.
_MOST_FAILED_STARTS = 3


class Worker:
    """Works until told to stop, or until nothing is left if ``until_empty``.

    Args:
        queues: the queues to serve, each with a slot and a child of its own.
        display: where progress is shown.
        until_empty: return when no job is queued, delayed or leased by anybody.
        tasks: what computes the jobs.
    """

    outcomes_type = Outcomes  # experiments watch how claims end

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
        self._recalled = False
        self._stop = Stop(display, lambda: not any(slot.held for slot in self.slots))
        self.outcomes = self.outcomes_type(
            self.name, self.slots, settings, layout, display, self._stop
        )
        self._keeper = LeaseKeeper(self.name, self.slots, settings, self._facts)

    # --- life ----------------------------------------------------------------------------
    def run(self) -> int:
        """Work; the process's exit status.

        Raises:
            RedditAssetsError: no child can work on this host.
        """
        with self._stop.on_signals():
            try:
                for slot in self.slots:
                    slot.start_child()
                self._keeper.start()
                self._work()
                return 130 if self._stop.at_once else 0
            finally:
                self._give_back()
                if self._keeper.is_alive():
                    self._keeper.stop()

    def _work(self) -> None:
        while not self._stop.at_once:
            if self._stop.asked:
                if not self._recalled:
                    self._begin_stop()
                if not any(slot.held for slot in self.slots):
                    return
            else:
                self._hurried = False
                claimed = sum(self._claim(slot) for slot in self.slots)
                if not (claimed or self._hurried) and self._until_empty and self._empty():
                    return
            for slot in self.slots:
                with suppress(OSError):  # the child has just died: _listen finds that out
                    if slot.lost_before_start:
                        slot.recall()  # after a freeze: others have them by now
                    slot.feed()
                self.display.holding(slot.kind, len(slot.held))
            self._listen()
            for slot in self.slots:
                if slot.worn:
                    self.display.note(f"The {slot.kind} process is replaced.")
                    slot.end_child()
                if slot.process is None and not (slot.unfit or slot.resting or self._stop.asked):
                    slot.start_child()

    def _begin_stop(self) -> None:
        """Give back what is claimed but not started; what is being computed is finished."""
        self._recalled = True
        self.display.note("Stopping after the current job; again to stop at once.")
        for slot in self.slots:
            self.outcomes.release(slot, slot.unsent())
            with suppress(OSError):
                slot.recall()

    def _give_back(self) -> None:
        """End the children and give back every job that is still held."""
        for slot in self.slots:
            slot.end_child(kill=bool(slot.held) or self._stop.at_once)
            claims = [claim for claim, _ in slot.renewable()]
            for claim in claims:
                self.outcomes.clean(claim, [claim.token])
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
        counts = self._stop.patiently(lambda: [slot.queue.counts() for slot in fit])
        return counts is not None and not any(
            c.public or c.queued or c.delayed or c.leased for c in counts
        )

    def _facts(self, slot: WorkerSlot) -> dict[str, str | int | float]:
        facts: dict[str, str | int | float] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "kind": str(slot.kind),
            "held": len(slot.held),
            "computing": sum(computed for _, computed in slot.renewable()),
            **self.display.figures(slot.kind),
            "seen": time.time(),
        }
        for name in ("backend", "device", "precision"):
            if slot.facts and slot.facts.get(name) is not None:
                facts[name] = str(slot.facts[name])
        return facts

    # --- claiming ------------------------------------------------------------------------
    def _claim(self, slot: WorkerSlot) -> int:
        """Claim what the slot wants; the number of jobs taken."""
        count = slot.wants()
        if count <= 0 or not self._fit(slot):
            return 0
        lease, alone = self.settings.lease_seconds, not slot.held
        claimed = self._stop.patiently(
            lambda: slot.intake.claim(self.name, count, lease, alone=alone)
        )
        if claimed is None:
            return 0
        slot.suspect_waits(claimed.suspects)
        self._hurried |= claimed.more
        for claim in claimed.claims:
            self.outcomes.clean(claim, claim.tombs)
            slot.hold(claim, self._size(claim))
        return len(claimed.claims)

    def _fit(self, slot: WorkerSlot) -> bool:
        """Whether this host's engine is the wanted one; if not, everything is given back.

        Raises:
            ModelMismatchError: it is not, and the worker serves no other kind.
        """
        try:
            check_model(self.layout, slot.facts)
        except ModelMismatchError as error:
            self.outcomes.retire(slot, error)
            return False
        except RedditAssetsError as error:
            self.display.warn(f"{error} The next try is in {slot.rest():.0f} s.")
            return False
        return True

    def _size(self, claim: Claim) -> int:
        """Bytes of the job's input; a missing file is the child's to report, in one place."""
        if claim.kind is not Kind.EMBED:
            return 0
        try:
            return self.layout.chain_path(claim.key).stat().st_size
        except OSError:
            return 0

    # --- the children's events -----------------------------------------------------------
    def _listen(self) -> None:
        """Handle what the children say; returns after at most one polling interval.

        Returns at once where jobs may lie behind lines that were not jobs.
        """
        seconds = 0 if self._hurried else self.settings.poll_seconds
        waited_on = [slot.pipe for slot in self.slots if slot.pipe is not None]
        sentinels = [slot.process.sentinel for slot in self.slots if slot.process is not None]
        if waited_on:
            multiprocessing.connection.wait([*waited_on, *sentinels], timeout=seconds)
        else:
            self._stop.wait(seconds)
        for slot in self.slots:
            alive = slot.process is None or slot.process.is_alive()
            # After that look, so that the last words of a child that has just died are heard.
            while (event := _next_event(slot)) is not None:
                self._handle(slot, event)
                if self._stop.at_once:
                    return
            if not alive and slot.process is not None:
                self._child_died(slot)

    def _handle(self, slot: WorkerSlot, event: Event) -> None:
        if slot.liveness is not None:
            slot.liveness.progressed()
        if isinstance(event, Ready):
            slot.ready(event.facts, event.silent)
            self.display.ready(slot.kind, event.facts)
        elif isinstance(event, Broken):
            self.outcomes.retire(slot, StartupError(event.failure.error, hint=event.failure.hint))
        elif isinstance(event, Recalled):
            held = [slot.held[token].claim for token in event.tokens if token in slot.held]
            self.outcomes.release(slot, held)
        elif isinstance(event, Started | Progress | Finished | Failed):
            known = slot.held.get(event.token)
            if known is not None:
                self._job_event(slot, known, event)

    def _job_event(
        self, slot: WorkerSlot, held: Held, event: Started | Progress | Finished | Failed
    ) -> None:
        if isinstance(event, Started):
            if not held.started:
                now = time.monotonic()
                self.display.stage(slot.kind, "ahead", now - held.since)
                held.since = now
            held.started = True
            self.display.started(slot.kind, held.claim.key)
        elif isinstance(event, Progress):
            self.display.progressed(slot.kind, event.rows)
        elif isinstance(event, Finished):
            self.outcomes.finish(slot, held.claim, event)
        else:
            self.outcomes.fail(slot, held.claim, event.failure)

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
        slot.failed_starts += not came_up
        if slot.failed_starts >= _MOST_FAILED_STARTS:
            self.outcomes.retire(
                slot,
                StartupError(
                    f"The {slot.kind} process dies before its engine is loaded "
                    f"(exit status {code}).",
                    hint="Look at its last output above, and at the host's memory.",
                ),
            )
            return
        self.outcomes.crashed(slot, claims, code)
        if slot.deaths > _MANY_DEATHS:
            rest = slot.rest()
            self.display.warn(
                f"It has died {slot.deaths} times in a row; the next try is in {rest:.0f} s. "
                "Look at its last output above, and at the host's memory."
            )
        elif not self._stop.asked:
            self._stop.wait(min(LONGEST_WAIT, 0.2 * 2**slot.deaths))


def _next_event(slot: WorkerSlot) -> Event | None:
    """What the child has said next; ``None`` if nothing, or if it is dead."""
    try:
        if slot.pipe is not None and slot.pipe.poll():
            event: Event = slot.pipe.recv()
            return event
    except (EOFError, OSError):
        if slot.process is not None:
            slot.process.join(
                1
            )  # the child's end of the pipe closes a moment before the child is gone
            slot.process.kill()
            slot.process.join(10)
    return None
