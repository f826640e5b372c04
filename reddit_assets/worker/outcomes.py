"""How claims end: published and acknowledged, failed, crashed, given back."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.output import publish, remove_temporary
from reddit_assets.errors import Failure, LeaseLostError, ModelMismatchError, RedditAssetsError
from reddit_assets.ledger.job import Claim, outputs_of
from reddit_assets.settings import Settings
from reddit_assets.tasks.messages import Finished
from reddit_assets.worker.display import Display
from reddit_assets.worker.fitness import check_model
from reddit_assets.worker.slot import WorkerSlot
from reddit_assets.worker.stop import Stop

__all__ = ["Outcomes"]

log = logging.getLogger(__name__)


class Outcomes:
    """Ends the claims of one worker.

    Args:
        worker: its name.
        slots: all that it has.
        stop: waits with it while Redis is away.
    """

    def __init__(
        self,
        worker: str,
        slots: Sequence[WorkerSlot],
        settings: Settings,
        layout: Layout,
        display: Display,
        stop: Stop,
    ) -> None:
        self._worker = worker
        self._slots = slots
        self._settings = settings
        self._layout = layout
        self._display = display
        self._stop = stop

    def retire(self, slot: WorkerSlot, error: RedditAssetsError) -> None:
        """Take a slot out of service; the worker's others go on.

        Raises:
            RedditAssetsError: ``error``, when no slot is left.
        """
        slot.unfit = str(error)
        slot.end_child(kill=True)
        self.release(slot, [claim for claim, _ in slot.renewable()])
        if all(one.unfit for one in self._slots):
            raise error
        self._display.warn(f"No {slot.kind} jobs here any more: {error}")

    def release(self, slot: WorkerSlot, claims: Sequence[Claim], *, delay: float = 0.0) -> None:
        """Give jobs back unharmed; with a delay, behind all others."""
        for claim in claims:
            self.clean(claim, [claim.token])
        self._stop.patiently(partial(slot.queue.release, claims, delay_seconds=delay))
        for claim in claims:
            slot.drop(claim.token)

    def clean(self, claim: Claim, tokens: Sequence[str]) -> None:
        """Delete the temporary files of dead tokens."""
        try:
            for output in outputs_of(self._layout, claim.kind, claim.key):
                remove_temporary(output, tokens)
        except (RedditAssetsError, OSError) as error:
            log.warning("A temporary file of %s cannot be deleted: %s", claim.key, error)

    def crashed(self, slot: WorkerSlot, claims: list[tuple[Claim, bool]], code: int | None) -> None:
        """The child died with these claims; the ledger queues them again, or buries a job.

        Args:
            claims: each with whether it was being computed.
            code: the child's exit status.
        """
        for claim, _ in claims:
            self.clean(claim, [claim.token])
        crashes = 1 + max((claim.crashes for claim, started in claims if started), default=0)
        failure = Failure(
            f"The computing process died or hung {crashes} times with this job alone in it "
            f"(exit status {code}).",
            hint="Look at the worker's log and at the host's memory; then retry the dead letter.",
            type="ProcessDied",
        )
        limit = self._settings.max_recoveries
        outcomes = self._stop.patiently(
            lambda: slot.queue.crashed(claims, failure, max_crashes=limit)
        )
        for claim, _ in claims:
            slot.drop(claim.token)
            if (outcomes or {}).get(claim.token) == "dead":
                self._display.failed(slot.kind, claim.key, failure, "dead", claim.id)

    def finish(self, slot: WorkerSlot, claim: Claim, event: Finished) -> None:
        """Publish and acknowledge what the child made, if the job is still this worker's."""
        slot.jobs_done += 1
        held = slot.held.get(claim.token)
        size, began = 0 if held is None else held.size, time.monotonic()
        if held is not None:
            self._display.stage(slot.kind, "work", began - held.since)
        try:
            if event.files:
                self.publish(slot, claim, event)
            done = self._stop.patiently(
                lambda: slot.queue.acknowledge(
                    claim,
                    event.result,
                    rows=event.rows,
                    tokens=event.tokens,
                    seconds=event.seconds,
                    size=size,
                ),
                then=False,
            )
            if not done:
                raise LeaseLostError(f"{claim.key}: another worker has taken the job over.")
        except LeaseLostError as error:
            self.clean(claim, [claim.token])
            slot.drop(claim.token)
            self._display.warn(f"{error} What was computed here is dropped.")
        except ModelMismatchError as error:
            self.retire(slot, error)
        except RedditAssetsError as error:
            self.clean(claim, [claim.token])
            self.fail(slot, claim, Failure.of(error))
        else:
            slot.drop(claim.token)
            # A worker that was frozen may have begun its old claim after this one was taken.
            self.clean(claim, claim.tombs)
            if slot.rested():
                self._display.note(f"{slot.kind} goes on.")
            self._display.stage(slot.kind, "publish", time.monotonic() - began)
            self._display.finished(slot.kind, claim.key, event, size)

    def publish(self, slot: WorkerSlot, claim: Claim, event: Finished) -> None:
        """Rename the outputs while the token holds the job with a whole lease to spare.

        Raises:
            LeaseLostError: it does not.
            ModelMismatchError: another model is wanted by now.
            WriteError: a rename is refused.
        """
        check_model(self._layout, slot.facts)
        lease = self._settings.lease_seconds
        lost = self._stop.patiently(
            lambda: slot.queue.renew(self._worker, [(claim, True)], lease), then={claim.token}
        )
        if lost or claim.token in slot.lost:
            raise LeaseLostError(f"{claim.key}: the lease was lost while it was computed.")
        for temporary, output in event.files:
            publish(temporary, output)

    def fail(self, slot: WorkerSlot, claim: Claim, failure: Failure) -> None:
        """A failed attempt; where the host is at fault, the job goes back unharmed instead."""
        if failure.host_fault:
            rest = slot.rest()
            self.release(slot, [claim, *slot.unsent()], delay=rest)
            self._display.trouble(slot.kind, claim.key, failure, rest)
            return
        outcome = self._stop.patiently(
            lambda: slot.queue.fail(
                claim,
                failure,
                max_attempts=self._settings.max_attempts,
                retry_seconds=self._settings.retry_seconds,
            ),
            then="lost",
        )
        slot.drop(claim.token)
        slot.deaths = 0
        self._display.failed(slot.kind, claim.key, failure, str(outcome), claim.id)
