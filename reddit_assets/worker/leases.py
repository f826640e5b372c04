"""The thread that renews a worker's leases, and takes its turn at reaping those of dead workers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from reddit_assets.errors import RedditAssetsError
from reddit_assets.settings import Settings
from reddit_assets.worker.liveness import Life
from reddit_assets.worker.slot import WorkerSlot

__all__ = ["LeaseKeeper"]

log = logging.getLogger(__name__)


class LeaseKeeper(threading.Thread):
    """Renews the leases of jobs whose child is alive, until told to stop.

    Args:
        worker: this worker's name.
        facts: what people should see of it.
    """

    def __init__(
        self,
        worker: str,
        slots: Sequence[WorkerSlot],
        settings: Settings,
        facts: Callable[[WorkerSlot], dict[str, str | int | float]],
    ) -> None:
        super().__init__(name="leases", daemon=True)
        self._worker = worker
        self._slots = slots
        self._settings = settings
        self._facts = facts
        self._stop_event = threading.Event()
        self._reap_from = 0.0

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._stop_event.set()
        self.join(self._settings.lease_seconds)

    def run(self) -> None:
        """Renew, announce and reap, several times per lease."""
        pause = self._settings.lease_seconds / 5
        away = False
        while not self._stop_event.wait(pause):
            try:
                for slot in self._slots:
                    self.renew(slot)
                    self._announce(slot)
                    self._reap(slot)
                away = False
            except Exception as error:
                # This thread must not die: without it every lease of the worker runs out.
                if not away:
                    ours = isinstance(error, RedditAssetsError)
                    log.warning("Leases cannot be renewed: %s", error, exc_info=not ours)
                away = True
                # After an outage every lease looks expired: their holders get time to renew
                # before anybody reaps.
                self._reap_from = time.monotonic() + self._settings.lease_seconds

    def renew(self, slot: WorkerSlot) -> None:
        """Renew a slot's leases if its child is alive."""
        claims = slot.renewable()
        if not claims and slot.facts is not None:
            slot.queue.renew(self._worker, [], self._settings.lease_seconds)
            return  # idle, and free to be silent
        liveness, process = slot.liveness, slot.process
        life = Life.DEAD if liveness is None else liveness.state()
        if life in (Life.STOPPED, Life.DEAD):
            return  # the leases run out, or the main thread finds the child dead
        if life is Life.STALLED:
            log.error(
                "The %s process has shown no sign of life for %.0f s: it is replaced.",
                slot.kind,
                self._settings.stall_seconds,
            )
            if process is not None:
                process.kill()
            return
        lost = slot.queue.renew(self._worker, claims, self._settings.lease_seconds)
        with slot.lock:
            slot.lost |= lost & slot.held.keys()

    def _announce(self, slot: WorkerSlot) -> None:
        slot.queue.announce(self._worker, self._facts(slot), 3 * self._settings.lease_seconds)

    def _reap(self, slot: WorkerSlot) -> None:
        if time.monotonic() < self._reap_from:
            return
        if not slot.queue.lead(self._worker, self._settings.lease_seconds):
            return
        for reaped in slot.queue.reap(retry_seconds=self._settings.retry_seconds):
            log.warning(
                "%s: the lease of worker %s expired; the job is %s.",
                reaped.key,
                reaped.worker,
                reaped.outcome,
            )
