"""Results → a DagsterInstance's event log, in batches, from a process beside Dagster.

The way of ``reddit-assets report --sink instance`` and of the reconciliation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dagster import AssetKey, DagsterInstance
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from reddit_assets.errors import QueueUnavailableError, ReportingError, first_line
from reddit_assets.ledger.outbox import OutboxEntry
from reddit_assets.platform.names import key_of_result
from reddit_assets.platform.reporting import records
from reddit_assets.platform.reporting.drain import Known, Refusal, not_yet_known
from reddit_assets.platform.reporting.inputs import materializer, report_inputs
from reddit_assets.workspace import Workspace

__all__ = ["InstanceSink"]

# Materializations looked at for an uncertain result: newer ones may lie before it.
_DEPTH = 10


class InstanceSink:
    """Stores results in one instance's event log.

    Args:
        workspace: this host's trees, where clusters' provenance says what they were made of.
    """

    batch = 1_000
    slots: int | None = None

    def __init__(self, workspace: Workspace, instance: DagsterInstance) -> None:
        self.instance = instance
        self._workspace = workspace
        self._inputs_reported = False

    def close(self) -> None:
        """The instance stays open: it belongs to the caller."""

    def report(self, entries: Sequence[OutboxEntry]) -> Mapping[str, Refusal]:
        """As :meth:`~reddit_assets.platform.reporting.drain.Sink.report`.

        A batch that Dagster does not take is halved until the entries at fault are found.
        """
        try:
            self._store(entries)
        except (OperationalError, InterfaceError) as error:
            raise ReportingError(
                f"Dagster's storage does not take reports: {first_line(error)}.",
                hint="Is Postgres there? Nothing is lost meanwhile.",
            ) from None
        except (ReportingError, QueueUnavailableError):
            raise
        except Exception as error:
            if len(entries) == 1:
                return {entries[0].entry: Refusal(_why(error), certain=False)}
            half = len(entries) // 2
            unsure = [replace(entry, uncertain=True) for entry in entries]
            return {**self.report(unsure[:half]), **self.report(unsure[half:])}
        return {}

    def _store(self, entries: Sequence[OutboxEntry]) -> None:
        workspace = self._workspace
        if not self._inputs_reported:
            report_inputs(self.instance, workspace.settings, workspace.layout)
            self._inputs_reported = True
        results = [entry.result for entry in not_yet_known(entries, self._known(entries))]
        make = materializer(self.instance, workspace.layout, workspace.buckets)
        # In the order of the dependencies: each asks the log where its inputs lie.
        records.report(self.instance, make.chains(results))
        for asset in ("dumps", "embeddings", "clusters"):
            records.report(self.instance, make.outputs(r for r in results if r.asset == asset))

    def _known(self, entries: Sequence[OutboxEntry]) -> dict[tuple[str, str], Known]:
        """What Dagster has of the entries' partitions."""
        groups: dict[tuple[str, AssetKey], list[OutboxEntry]] = {}
        buckets = self._workspace.buckets
        for entry in entries:
            if entry.result.ok:
                name, partition = entry.result.asset, entry.result.partition
                key = key_of_result(name, partition, buckets)
                groups.setdefault((name, key), []).append(entry)
        found: dict[tuple[str, str], Known] = {}
        for (name, key), group in groups.items():
            latest = records.latest(self.instance, key, {e.result.partition for e in group})
            uncertain = {e.result.partition for e in group if e.uncertain}
            earlier = records.reported_jobs(self.instance, key, uncertain, each=_DEPTH)
            for partition, event in latest.items():
                jobs = {event.job_id, *earlier.get(partition, ())} - {""}
                found[name, partition] = Known(event.data_version, frozenset(jobs))
        return found


def _why(error: Exception) -> str:
    storage = "storage" if isinstance(error, SQLAlchemyError) else "library"
    return f"Dagster's {storage} does not take it: {type(error).__name__}: {first_line(error)}."
