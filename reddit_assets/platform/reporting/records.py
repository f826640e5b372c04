"""What Dagster has: bulk reads of versions and events, and bulk writes of events without a run."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from itertools import groupby
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetKey,
    AssetMaterialization,
    AssetRecordsFilter,
    DagsterEventType,
    DagsterInstance,
    EventLogRecord,
)
from dagster._core.definitions.data_version import extract_data_version_from_entry
from dagster._core.events import DagsterEvent, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    DynamicPartitionsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from sqlalchemy import ColumnElement, select

from reddit_assets.platform.reporting import bulk

__all__ = [
    "Latest",
    "entry",
    "latest",
    "latest_ids",
    "latest_times",
    "latest_versions",
    "partitions_among",
    "report",
    "report_check",
    "reported_jobs",
]

# Partitions or storage ids per query: SQLite of old allows 999 variables.
_CHUNK = 900

_DATA_VERSION = "dagster/data_version"


@dataclass(frozen=True, slots=True)
class Latest:
    """The latest materialization of a partition.

    Attributes:
        id: its place in the event log.
        job_id: the job that made it, if we reported it.
    """

    id: int
    data_version: str = ""
    job_id: str = ""
    timestamp: float = field(default=0.0, compare=False)


def _chunks(items: Collection[str]) -> Iterator[list[str]]:
    ordered = list(items)
    for start in range(0, len(ordered), _CHUNK):
        yield ordered[start : start + _CHUNK]


def partitions_among(instance: DagsterInstance, name: str, keys: Sequence[str]) -> set[str]:
    """Those of some keys that are dynamic partitions: a million others are not loaded for it."""
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    columns = DynamicPartitionsTable.c
    query = select(columns.partition).where(
        columns.partitions_def_name == name, columns.partition.in_(keys)
    )
    with storage.index_connection() as connection:
        return set(connection.execute(query).scalars())


def latest_versions(
    instance: DagsterInstance, asset: AssetKey, partitions: Collection[str]
) -> dict[str, str]:
    """The latest data version of each partition that has one."""
    found: dict[str, str] = {}
    for chunk in _chunks(partitions):
        tags = instance.event_log_storage.get_latest_tags_by_partition(
            asset,
            DagsterEventType.ASSET_MATERIALIZATION,
            tag_keys=[_DATA_VERSION],
            asset_partitions=chunk,
        )
        found.update({key: values.get(_DATA_VERSION, "") for key, values in tags.items()})
    return found


def latest_ids(
    instance: DagsterInstance, asset: AssetKey, partitions: Collection[str]
) -> dict[str, int]:
    """The place in the event log of each partition's latest materialization."""
    found: dict[str, int] = {}
    for chunk in _chunks(partitions):
        found.update(
            instance.event_log_storage.get_latest_storage_id_by_partition(
                asset, DagsterEventType.ASSET_MATERIALIZATION, set(chunk)
            )
        )
    return found


def latest_times(
    instance: DagsterInstance, asset: AssetKey, partitions: Collection[str]
) -> dict[str, float]:
    """When each partition was materialized last, seconds since the epoch."""
    partition_of = {number: key for key, number in latest_ids(instance, asset, partitions).items()}
    found: dict[str, float] = {}
    for number, when in _events(instance, list(partition_of), SqlEventLogStorageTable.c.timestamp):
        # The table keeps UTC without saying so.
        found[partition_of[number]] = when.replace(tzinfo=UTC).timestamp()
    return found


def latest(
    instance: DagsterInstance, asset: AssetKey, partitions: Collection[str]
) -> dict[str, Latest]:
    """The latest materialization of each partition that has one."""
    partition_of = {number: key for key, number in latest_ids(instance, asset, partitions).items()}
    found: dict[str, Latest] = {}
    for number, event in _events(instance, list(partition_of), SqlEventLogStorageTable.c.event):
        found[partition_of[number]] = _read(number, event)
    return found


def _events(
    instance: DagsterInstance, ids: Sequence[int], column: ColumnElement[Any]
) -> Iterator[tuple[int, Any]]:
    """One column of events by their places in the log."""
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)  # as every storage of open-source Dagster
    number = SqlEventLogStorageTable.c.id
    for start in range(0, len(ids), _CHUNK):
        query = select(number, column).where(number.in_(ids[start : start + _CHUNK]))
        with storage.index_connection() as connection:
            yield from connection.execute(query).tuples()


def _read(number: int, event: str) -> Latest:
    """From an event's text: Dagster's own reader takes ten times as long."""
    record = json.loads(event)
    made = record["dagster_event"]["event_specific_data"]["materialization"]
    jobs = [e["entry_data"] for e in made["metadata_entries"] if e["label"] == "job_id"]
    return Latest(
        number,
        (made.get("tags") or {}).get(_DATA_VERSION, ""),
        str(jobs[0].get("text", "")) if jobs else "",
        record["timestamp"],
    )


def reported_jobs(
    instance: DagsterInstance, asset: AssetKey, partitions: Collection[str], each: int = 10
) -> dict[str, set[str]]:
    """The jobs whose results are among a partition's latest materializations.

    Args:
        each: how far to look back, in materializations per partition on average.
    """
    found: dict[str, set[str]] = {}
    for chunk in _chunks(partitions):
        records = instance.fetch_materializations(
            AssetRecordsFilter(asset, asset_partitions=chunk), limit=min(1000, each * len(chunk))
        ).records
        for record in records:
            found.setdefault(record.partition_key or "", set()).add(_known(record).job_id)
    return found


def _known(record: EventLogRecord) -> Latest:
    entry = record.event_log_entry
    version = extract_data_version_from_entry(entry)
    materialization = entry.asset_materialization
    metadata: Mapping = materialization.metadata if materialization is not None else {}
    job = metadata.get("job_id")
    return Latest(
        record.storage_id,
        version.value if version else "",
        str(job.value) if job is not None else "",
        record.timestamp,
    )


def report(instance: DagsterInstance, events: Sequence[AssetMaterialization]) -> None:
    """Store materializations without a run, in order, one batch per asset in a row.

    The asset's own row is updated with the last event of its batch alone; that is why a batch has
    one asset.
    """
    for _, group in groupby(events, key=lambda event: event.asset_key):
        bulk.store(instance, list(group), entry)


def report_check(instance: DagsterInstance, evaluation: AssetCheckEvaluation) -> None:
    """Store a check's evaluation without a run; it replaces an earlier one of the partition.

    Dagster's table allows one evaluation per check, run and partition, and all reports without a
    run count as one run: the second report of a partition would be refused.
    """
    storage = instance.event_log_storage
    if evaluation.partition is not None and isinstance(storage, SqlEventLogStorage):
        rows = AssetCheckExecutionsTable.c
        with storage.index_connection() as connection:
            connection.execute(
                AssetCheckExecutionsTable.delete().where(
                    rows.asset_key == evaluation.asset_key.to_string(),
                    rows.check_name == evaluation.check_name,
                    rows.partition == evaluation.partition,
                    rows.run_id == RUNLESS_RUN_ID,
                )
            )
    instance.report_runless_asset_event(evaluation)


def entry(event: AssetMaterialization, when: float | None = None) -> EventLogEntry:
    """The log's entry of a materialization without a run.

    Args:
        when: seconds since the epoch; now if not given.
    """
    dagster_event = DagsterEvent(
        event_type_value=DagsterEventType.ASSET_MATERIALIZATION.value,
        job_name=RUNLESS_JOB_NAME,
        event_specific_data=StepMaterializationData(event),
    )
    return EventLogEntry(
        error_info=None,
        level=20,  # logging.INFO
        user_message="",
        run_id=RUNLESS_RUN_ID,
        timestamp=when or time.time(),
        job_name=RUNLESS_JOB_NAME,
        dagster_event=dagster_event,
    )
