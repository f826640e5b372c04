"""What a run records: materializations in batches, and partitions that failed.

``context.log_event`` stores one event at a time, 15 ms each on Postgres.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Sequence
from itertools import groupby

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetMaterialization,
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    EventLogEntry,
)
from dagster._core.events import AssetMaterializationPlannedData, StepMaterializationData
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

from reddit_assets.platform.reporting import bulk

__all__ = ["materialized", "plan", "record"]

_BATCH = 1_000


def record(context: AssetExecutionContext, events: Sequence[AssetMaterialization]) -> None:
    """Store materializations of a run's step, as ``context.log_event`` would, in order."""
    step = context.get_step_execution_context()

    def entry(event: AssetMaterialization) -> EventLogEntry:
        message = f"Materialized value {event.label}."
        dagster_event = DagsterEvent(
            event_type_value=DagsterEventType.ASSET_MATERIALIZATION.value,
            job_name=step.job_name,
            step_handle=step.step.handle,
            node_handle=step.step.node_handle,
            step_kind_value=step.step.kind.value,
            logging_tags=step.event_tags,
            event_specific_data=StepMaterializationData(event),
            message=message,
            pid=os.getpid(),
        )
        return EventLogEntry(
            error_info=None,
            level=logging.DEBUG,
            user_message=message,
            run_id=context.run_id,
            timestamp=time.time(),
            step_key=step.step.key,
            job_name=step.job_name,
            dagster_event=dagster_event,
        )

    for _, group in groupby(events, key=lambda event: event.asset_key):
        bulk.store(context.instance, list(group), entry)


def materialized(instance: DagsterInstance, run_id: str, asset: AssetKey) -> set[str]:
    """The partitions of an asset that a run has materialized."""
    found = instance.event_log_storage.get_asset_partitions_for_run(
        run_id, DagsterEventType.ASSET_MATERIALIZATION
    )
    return {key for key in found.get(asset, ()) if key is not None}


def plan(
    instance: DagsterInstance,
    run: DagsterRun,
    asset: AssetKey,
    partitions: Collection[str],
    step_key: str = "",
) -> None:
    """Say of partitions that a run was to make them.

    Dagster shows a partition as being made while such a run goes on, and as failed if it has failed
    without making it.
    """
    keys = list(partitions)
    storage = instance.event_log_storage
    for start in range(0, len(keys), _BATCH):
        entries = [
            EventLogEntry(
                error_info=None,
                level=logging.DEBUG,
                user_message="",
                run_id=run.run_id,
                timestamp=time.time(),
                step_key=step_key or None,
                job_name=run.job_name,
                dagster_event=DagsterEvent.build_asset_materialization_planned_event(
                    run.job_name, step_key, AssetMaterializationPlannedData(asset, key)
                ),
            )
            for key in keys[start : start + _BATCH]
        ]
        if isinstance(storage, SqlEventLogStorage) and bulk.on_postgres(storage):
            with storage.index_transaction() as connection:
                connection.execute(storage.prepare_insert_event_batch(entries))
        else:
            storage.store_event_batch(entries)
