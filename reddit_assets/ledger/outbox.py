"""The outbox: results that wait to be reported to Dagster without a run.

A stream with one consumer group: several reporters share it, and what a dead one had taken is
taken over after a while. An entry is deleted only when Dagster has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import redis

from reddit_assets.ledger.connection import redis_errors
from reddit_assets.ledger.entries import Item, read_results, set_aside
from reddit_assets.ledger.job import Result
from reddit_assets.ledger.queue import JobQueue

__all__ = ["Outbox", "OutboxEntry"]

_GROUP = "reporters"


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A result to report.

    Attributes:
        uncertain: an earlier attempt may have reached Dagster: look it up before sending.
    """

    entry: str
    result: Result
    uncertain: bool


class Outbox:
    """One queue's outbox, read as ``reporter``.

    Args:
        queue: whose outbox.
        reporter: a name of this process's own.
        takeover_seconds: entries that another reporter has held for this long are taken over.
    """

    def __init__(self, queue: JobQueue, reporter: str, *, takeover_seconds: float = 60.0) -> None:
        self.queue = queue
        self.reporter = reporter
        self._name = f"{queue.prefix}outbox"
        self._takeover = int(takeover_seconds * 1000)

    def put(self, results: list[Result]) -> None:
        """Add results, as a rescan does for outputs that Dagster does not have."""
        with redis_errors(self.queue.client):
            pipeline = self.queue.client.pipeline(transaction=False)
            for result in results:
                pipeline.xadd(self._name, {"r": result.to_json()})
            pipeline.execute()

    def take(self, count: int) -> list[OutboxEntry]:
        """Up to ``count`` entries: first this reporter's own unfinished and abandoned ones."""
        while True:
            items, uncertain = self._fetch(count)
            entries = self._entries(items, uncertain=uncertain)
            if entries or not items:
                return entries

    def _fetch(self, count: int) -> tuple[list[Item], bool]:
        """Entries, and whether an earlier attempt may have reported them."""
        client = self.queue.client
        with redis_errors(client):
            for attempt in range(2):
                try:
                    _, claimed, *_ = client.xautoclaim(
                        self._name,
                        _GROUP,
                        self.reporter,
                        min_idle_time=self._takeover,
                        count=count,
                    )
                    # Redis 6.2 hands out entries that were deleted by hand as well: without fields.
                    if there := [item for item in claimed if item[1]]:
                        return there, True
                    fresh = client.xreadgroup(_GROUP, self.reporter, {self._name: ">"}, count=count)
                    break
                except redis.exceptions.ResponseError as error:
                    if attempt or not str(error).startswith("NOGROUP"):
                        raise
                    self._make_group()
        return [item for _, items in (fresh or []) for item in items], False

    def done(self, entries: list[str]) -> None:
        """Dagster has these: delete them."""
        if entries:
            with redis_errors(self.queue.client):
                # Not in MULTI, which is refused under maxmemory. Deleted first: an entry that was
                # only acknowledged would stay, and nobody would be given it.
                pipeline = self.queue.client.pipeline(transaction=False)
                pipeline.xdel(self._name, *entries)
                pipeline.xack(self._name, _GROUP, *entries)
                pipeline.execute()

    def set_aside(self, entry: OutboxEntry, why: str) -> None:
        """Move an entry that Dagster does not take to the stream ``rejected``."""
        fields = {"r": entry.result.to_json()}
        set_aside(self.queue, self._name, entry.entry, fields, why, _GROUP)

    def __len__(self) -> int:
        with redis_errors(self.queue.client):
            return int(self.queue.client.xlen(self._name))

    def slot(self, slots: int, seconds: float) -> bool:
        """Take or keep one of the connection slots that all REST reporters share."""
        return bool(
            self.queue.run_script("slot", self.reporter, slots, max(1, int(seconds * 1000)))
        )

    def free_slot(self) -> None:
        """Give the slot back."""
        self.queue.run_script("slot", self.reporter, 0, 0)

    def _make_group(self) -> None:
        try:
            self.queue.client.xgroup_create(self._name, _GROUP, id="0", mkstream=True)
        except redis.exceptions.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def _entries(self, items: list[Item], *, uncertain: bool) -> list[OutboxEntry]:
        return [
            OutboxEntry(entry, result, uncertain or "uncertain" in fields)
            for entry, result, fields in read_results(self.queue, self._name, items, group=_GROUP)
        ]
