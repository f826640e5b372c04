"""The thread that keeps a worker's leases, and takes its turn at reaping those of the dead."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from reddit_assets.catalog.output import remove_temporary
from reddit_assets.errors import QueueFullError, QueueUnavailableError, RedditAssetsError
from reddit_assets.jobqueue.job import outputs_of
from reddit_assets.settings import Settings
from reddit_assets.worker.station import Station

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
        stations: Sequence[Station],
        settings: Settings,
        facts: Callable[[Station], dict[str, str | int | float]],
    ) -> None:
        super().__init__(name="leases", daemon=True)
        self._worker = worker
        self._stations = stations
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
                for station in self._stations:
                    self.renew(station)
                    self._announce(station)
                    self._reap(station)
                away = False
            except (QueueUnavailableError, QueueFullError) as error:
                if not away:
                    log.warning("Leases cannot be renewed: %s", error)
                away = True
                # After an outage every lease looks expired: their holders get time to renew
                # before anybody reaps.
                self._reap_from = time.monotonic() + self._settings.lease_seconds

    def renew(self, station: Station) -> None:
        """Renew a station's leases if its child is alive."""
        claims = station.renewable()
        if not claims:
            station.queue.renew(self._worker, [], self._settings.lease_seconds)
            return
        liveness = station.liveness
        state = "dead" if liveness is None else liveness.state()
        if state in ("stopped", "dead"):
            return  # the leases run out, or the main thread finds the child dead
        if state == "stalled":
            log.error(
                "The %s process has shown no sign of life for %.0f s: it is replaced.",
                station.kind.word,
                self._settings.stall_seconds,
            )
            if station.process is not None:
                station.process.kill()
            return
        lost = station.queue.renew(self._worker, claims, self._settings.lease_seconds)
        with station.lock:
            station.lost |= lost & station.held.keys()

    def _announce(self, station: Station) -> None:
        station.queue.announce(self._worker, self._facts(station), 3 * self._settings.lease_seconds)

    def _reap(self, station: Station) -> None:
        if time.monotonic() < self._reap_from:
            return
        if not station.queue.lead(self._worker, self._settings.lease_seconds):
            return
        for reaped in station.queue.reap(max_recoveries=self._settings.max_recoveries):
            log.warning(
                "%s: the lease of worker %s expired; %s.",
                reaped.key,
                reaped.worker,
                "a dead letter now" if reaped.dead else "queued again",
            )
            if reaped.dead:
                try:
                    for output in outputs_of(station.layout, station.kind, reaped.key):
                        remove_temporary(output, [reaped.token])
                except (RedditAssetsError, OSError) as error:
                    log.warning("Its temporary file cannot be deleted: %s", error)
