"""The one loop that empties outboxes into Dagster, whichever way the results travel.

An entry leaves its outbox only when Dagster has it. After an uncertain attempt it is looked up by
its job before it is sent again. Whatever the sink meets, the loop logs it, waits and goes on. An
entry that Dagster refuses again and again is set aside, so that it blocks no other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from reddit_assets.errors import QueueUnavailableError, RedditAssetsError, ReportingError
from reddit_assets.ledger.job import Kind, new_token
from reddit_assets.ledger.outbox import Outbox, OutboxEntry
from reddit_assets.ledger.queue import JobQueue

__all__ = ["Known", "Refusal", "Reporter", "Sink", "not_yet_known"]

log = logging.getLogger(__name__)

_IDLE_SECONDS = 1.0
_LONGEST_WAIT = 30.0
_SLOT_SECONDS = 60.0
# Attempts at an entry, at least a minute apart, before it is set aside.
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Known:
    """What Dagster has of a partition.

    Attributes:
        data_version: of the latest materialization; empty if there is none.
        jobs: the jobs whose results are among the latest.
    """

    data_version: str = ""
    jobs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why Dagster did not take an entry.

    Attributes:
        certain: the entry is at fault. Otherwise an attempt counts only if others succeeded since
            the one before.
    """

    why: str
    certain: bool


class Sink(Protocol):
    """A way into Dagster.

    Attributes:
        batch: entries that it takes at a time.
        slots: how many reporters may use it at a time; ``None``: any number.
    """

    batch: int
    slots: int | None

    def report(self, entries: Sequence[OutboxEntry]) -> Mapping[str, Refusal]:
        """Let Dagster have every result of ``entries``, each once.

        Returns:
            The entries that Dagster refuses, by id; it has all others.

        Raises:
            ReportingError: Dagster does not answer as it should; what it has is uncertain.
        """

    def close(self) -> None:
        """Close the connection."""


def not_yet_known(
    entries: Iterable[OutboxEntry], known: Mapping[tuple[str, str], Known]
) -> list[OutboxEntry]:
    """The successful results that Dagster does not have, in order, one per job.

    Args:
        known: by asset (``embeddings``, ``clusters``) and partition.
    """
    new: list[OutboxEntry] = []
    taken: set[tuple[str, str, str]] = set()
    for entry in entries:
        result = entry.result
        mine = known.get((result.asset, result.partition), Known())
        name = (result.asset, result.partition, result.job)
        unchanged = result.outcome == "fresh" and mine.data_version == result.data_version
        if result.ok and not unchanged and result.job not in mine.jobs and name not in taken:
            taken.add(name)
            new.append(entry)
    return new


class Reporter(threading.Thread):
    """Empties outboxes into a sink until stopped.

    Args:
        queues: whose outboxes; at least one.
        sink: where to; closed at the end.
        until_empty: end when nothing is left that Dagster takes.
        takeover_seconds: after this time an entry that was refused is tried again, and one that
            another reporter holds is taken over.
    """

    def __init__(
        self,
        queues: Sequence[JobQueue],
        sink: Sink,
        *,
        until_empty: bool = False,
        takeover_seconds: float = 60.0,
    ) -> None:
        super().__init__(name="reporter", daemon=True)
        name = f"reporter-{new_token()}"
        self._outboxes = [Outbox(q, name, takeover_seconds=takeover_seconds) for q in queues]
        # One lease for all reporters, whichever queues they empty.
        self._lease = Outbox(JobQueue(queues[0].client, Kind.EMBED), name)
        self._sink = sink
        self._until_empty = until_empty
        self._stop_event = threading.Event()
        self._unfinished: dict[int, list[OutboxEntry]] = {}
        # By entry: attempts that count, and how many results were reported at the last of them.
        self._refused: dict[str, tuple[int, int]] = {}
        self._said = ""
        self.reported = 0

    def stop(self) -> None:
        """End after the current batch; what was not sent stays in the outbox."""
        self._stop_event.set()

    def run(self) -> None:
        """Report until stopped."""
        wait = _IDLE_SECONDS
        while not self._stop_event.is_set():
            try:
                if self._may_report():
                    taken = self.drain()
                    wait, self._said = _IDLE_SECONDS, ""
                    if taken:
                        continue
                    if self._until_empty:
                        break
                self._stop_event.wait(_IDLE_SECONDS)
            except RedditAssetsError as error:
                self._say(error)
                self._stop_event.wait(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
            except Exception:
                log.exception("Reporting failed unexpectedly; it goes on in %.0f s.", wait)
                self._stop_event.wait(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
        self._end()

    def drain(self) -> int:
        """Report one batch of each outbox; the number of entries that were dealt with.

        Raises:
            ReportingError: Dagster does not answer as it should, or refuses a whole batch.
            QueueUnavailableError: Redis cannot be reached.
        """
        left, problem = 0, None
        for index in range(len(self._outboxes)):
            try:
                left += self._drain(index)
            except ReportingError as error:  # the other outbox need not wait for this one
                problem = problem or error
        if problem is not None:
            raise problem
        return left

    def _drain(self, index: int) -> int:
        outbox = self._outboxes[index]
        entries = self._unfinished.get(index) or outbox.take(self._sink.batch)
        if not entries:
            return 0
        # Until it is done, every entry of the batch is uncertain.
        self._unfinished[index] = [replace(entry, uncertain=True) for entry in entries]
        refused = self._sink.report(entries)
        taken = [entry for entry in entries if entry.entry not in refused]
        outbox.done([entry.entry for entry in taken])
        del self._unfinished[index]
        self.reported += len(taken)
        if taken:
            log.debug("Reported %d results to Dagster.", len(taken))
        for entry in entries:
            if (refusal := refused.get(entry.entry)) is not None:
                self._refuse(outbox, entry, refusal)
        if not taken:
            raise ReportingError(next(iter(refused.values())).why)
        return len(taken)

    def _refuse(self, outbox: Outbox, entry: OutboxEntry, refusal: Refusal) -> None:
        """Let a refused entry wait until it is taken over, or set it aside."""
        tries, before = self._refused.get(entry.entry, (0, self.reported - 1))
        if refusal.certain or self.reported > before:
            tries += 1
        self._refused[entry.entry] = (tries, self.reported)
        if tries < _TRIES:
            return
        del self._refused[entry.entry]
        outbox.set_aside(entry, refusal.why)
        log.error(
            "%s of %s is set aside: Dagster has refused it %d times. %s",
            entry.result.partition,
            entry.result.asset,
            _TRIES,
            refusal.why,
        )

    def _may_report(self) -> bool:
        slots = self._sink.slots
        return slots is None or self._lease.slot(slots, _SLOT_SECONDS)

    def _say(self, error: RedditAssetsError) -> None:
        if str(error) != self._said:
            self._said = str(error)
            log.warning("%s Reports wait in the outbox.", error)

    def _end(self) -> None:
        try:
            if self._sink.slots is not None:
                self._lease.free_slot()
        except QueueUnavailableError:
            log.debug("The connection slot runs out by itself.")
        self._sink.close()
