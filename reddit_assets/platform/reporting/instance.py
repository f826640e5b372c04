"""Drains the outboxes through a DagsterInstance, in batches, from a process beside Dagster.

The same promise as the REST reporter's: an entry leaves the outbox only when Dagster has it, and
no result is reported twice. Dagster is asked for the job ids of the partitions' latest
materializations before anything is stored.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from dagster import AssetKey, DagsterInstance
from sqlalchemy.exc import SQLAlchemyError

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import (
    QueueFullError,
    QueueUnavailableError,
    RedditAssetsError,
    ReportingError,
    first_line,
)
from reddit_assets.ledger.job import Result, new_token
from reddit_assets.ledger.outbox import Outbox, OutboxEntry
from reddit_assets.platform.names import key_of_result
from reddit_assets.platform.reporting import records
from reddit_assets.platform.reporting.inputs import materializer, report_inputs
from reddit_assets.settings import Settings
from reddit_assets.workspace import Workspace

__all__ = ["InstanceSink", "run"]

log = logging.getLogger(__name__)

_BATCH = 1_000
_IDLE_SECONDS = 1.0
_LONGEST_WAIT = 30.0


@dataclass
class InstanceSink:
    """Stores results in one instance's event log.

    Attributes:
        shards: shards with assets of their own.
        layout: this host's trees, where clusters' footers tell what they were made of.
    """

    instance: DagsterInstance
    settings: Settings
    layout: Layout
    shards: tuple[str, ...] = ()
    _inputs_reported: bool = field(default=False, init=False)

    def report(self, entries: Sequence[OutboxEntry]) -> int:
        """Let Dagster have every result of ``entries``, each once; the number stored.

        Raises:
            ReportingError: the storage does not take them; which ones it has is uncertain.
        """
        try:
            return self._report(entries)
        except SQLAlchemyError as error:
            raise ReportingError(
                f"Dagster's storage does not take reports: {first_line(error)}.",
                hint="Is Postgres there? Nothing is lost meanwhile.",
            ) from None

    def _report(self, entries: Sequence[OutboxEntry]) -> int:
        if not self._inputs_reported:
            report_inputs(self.instance, self.settings, self.layout)
            self._inputs_reported = True
        results = self._new(entries)
        make = materializer(self.instance, self.layout, self.shards)
        # In the order of the dependencies: each asks the log where its inputs lie.
        records.report(self.instance, make.chains(results))
        for asset in ("embeddings", "clusters"):
            records.report(self.instance, make.outputs(r for r in results if r.asset == asset))
        return len(results)

    def _new(self, entries: Sequence[OutboxEntry]) -> list[Result]:
        """The results that Dagster does not have, in order; the last one per job."""
        by_asset: dict[AssetKey, list[OutboxEntry]] = {}
        for entry in entries:
            if entry.result.ok:
                key = key_of_result(entry.result.asset, entry.result.partition, self.shards)
                by_asset.setdefault(key, []).append(entry)
        new: list[Result] = []
        for key, group in by_asset.items():
            known = records.latest(self.instance, key, {e.result.partition for e in group})
            uncertain = {e.result.partition for e in group if e.uncertain}
            earlier = records.reported_jobs(self.instance, key, uncertain)
            taken: set[str] = set()
            for entry in group:
                result = entry.result
                mine = known.get(result.partition)
                jobs = earlier.get(result.partition, set()) | taken
                if result.job in jobs or (mine is not None and mine.job_id == result.job):
                    continue
                unchanged = mine is not None and mine.data_version == result.data_version
                if result.outcome == "fresh" and unchanged:
                    continue
                taken.add(result.job)
                new.append(result)
        return new


class Drain:
    """Takes batches from outboxes into a sink."""

    def __init__(self, outboxes: Sequence[Outbox], sink: InstanceSink) -> None:
        self._outboxes = outboxes
        self._sink = sink
        self._unfinished: dict[int, list[OutboxEntry]] = {}

    def once(self) -> int:
        """Report one batch of each outbox; the number of entries that left them."""
        return sum(self._one(index) for index in range(len(self._outboxes)))

    def _one(self, index: int) -> int:
        outbox = self._outboxes[index]
        entries = self._unfinished.get(index) or outbox.take(_BATCH)
        if not entries:
            return 0
        # Until it is done, every entry of the batch is uncertain.
        self._unfinished[index] = [
            OutboxEntry(entry.entry, entry.result, uncertain=True) for entry in entries
        ]
        self._sink.report(entries)
        outbox.done([entry.entry for entry in entries])
        del self._unfinished[index]
        return len(entries)


def run(
    settings: Settings,
    *,
    until_empty: bool = False,
    stop: threading.Event | None = None,
    instance: DagsterInstance | None = None,
) -> int:
    """Drain the outboxes into the instance of DAGSTER_HOME until told to stop.

    Args:
        until_empty: end when nothing is left.
        stop: set it to end; without one, SIGINT and SIGTERM do.
        instance: another instance than DAGSTER_HOME's.

    Returns:
        The number of entries that left the outboxes.

    Raises:
        SettingsError: a setting is missing, or there is no DAGSTER_HOME.
    """
    if stop is None:
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
    workspace = Workspace.load(settings)
    sink = InstanceSink(
        instance or DagsterInstance.get(), settings, workspace.layout, workspace.shards
    )
    name = f"instance-{new_token()}"
    drain = Drain([Outbox(queue, name) for queue in workspace.queues.values()], sink)
    total, wait, told = 0, _IDLE_SECONDS, False
    while not stop.is_set():
        try:
            left = drain.once()
            total += left
            wait, told = _IDLE_SECONDS, False
            if left:
                log.info("Reported %d results to Dagster.", left)
                continue
            if until_empty:
                break
            stop.wait(_IDLE_SECONDS)
        except (ReportingError, QueueUnavailableError, QueueFullError) as error:
            _tell(error, told)
            told = True
            stop.wait(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
    return total


def _tell(error: RedditAssetsError, told: bool) -> None:
    if not told:
        log.warning("%s Reports wait in the outbox.", error)
