"""Dead letters as failed partitions, also where no run asked for them.

Dagster counts a partition as failed when a run that planned it has failed; an event without a run
cannot say it, and its own event for it is not read by the open-source page. So the failures of a
look are recorded as a run that has failed: it planned those partitions, observed each with its
reason, and ends with a sentence. Nothing is computed. A later materialization heals a partition.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dagster import AssetKey, AssetObservation, DagsterInstance, DagsterRunStatus, MetadataValue
from dagster._core.events import (
    AssetMaterializationPlannedData,
    AssetObservationData,
    DagsterEvent,
    DagsterEventType,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.storage.partition_status_cache import AssetPartitionStatus
from dagster._core.utils import make_new_run_id

from reddit_assets.platform.names import DUMP_FILES, DUMPS, AssetSet

__all__ = ["RUN_NAME", "Failed", "not_yet_failed", "report_failed", "report_healed"]

RUN_NAME = "dead_letters"
_NAMED = 20


@dataclass(frozen=True, slots=True)
class Failed:
    """A partition that failed.

    Attributes:
        why: a sentence.
        metadata: reason, host, what to do.
    """

    partition: str
    why: str
    metadata: Mapping[str, MetadataValue]


def not_yet_failed(
    instance: DagsterInstance, assets: AssetSet, key: AssetKey, partitions: Sequence[str]
) -> set[str]:
    """Those that no run shows as failed, or is still working on."""
    definition = assets.files if key == assets.embeddings else assets.subreddits
    if key == DUMPS:
        definition = DUMP_FILES
    known = instance.get_status_by_partition(key, partitions, definition) or {}
    shown = (AssetPartitionStatus.FAILED, AssetPartitionStatus.IN_PROGRESS)
    there = set(instance.get_dynamic_partitions(definition.name or ""))
    return {each for each in partitions if each in there and known.get(each) not in shown}


def report_failed(instance: DagsterInstance, key: AssetKey, failures: Sequence[Failed]) -> str:
    """Records partitions of an asset as failed; the id of the run that says so."""
    run = _begin(instance, key, [each.partition for each in failures], "Jobs were given up.")
    observed = [
        _entry(
            run,
            DagsterEventType.ASSET_OBSERVATION,
            AssetObservationData(
                AssetObservation(
                    key, description=each.why, partition=each.partition, metadata=each.metadata
                )
            ),
            each.why,
        )
        for each in failures
    ]
    instance.event_log_storage.store_event_batch(observed)
    named = ", ".join(each.partition for each in failures[:_NAMED])
    more = f" and {len(failures) - _NAMED:,} more" if len(failures) > _NAMED else ""
    instance.report_run_failed(
        run,
        f"{len(failures):,} jobs were given up: {named}{more}. Each has its reason above and on "
        "its partition. Mend the cause, then materialize the failed partitions, or launch the job "
        "retry_dead_letters.",
    )
    return run.run_id


def report_healed(instance: DagsterInstance, key: AssetKey, partitions: Sequence[str]) -> None:
    """Records that partitions of an asset have their outputs: else their pages would go on to name
    the run that failed, since a worker's report has no run of its own.
    """
    run = _begin(instance, key, partitions, "Outputs are there that were given up before.")
    done = f"{len(partitions):,} partitions are healed: {', '.join(partitions[:_NAMED])}."
    event = DagsterEvent(DagsterEventType.RUN_SUCCESS.value, RUN_NAME, message=done)
    instance.report_dagster_event(event, run_id=run.run_id)


def _begin(
    instance: DagsterInstance, key: AssetKey, partitions: Sequence[str], message: str
) -> DagsterRun:
    """A run that plans partitions and computes nothing."""
    run = DagsterRun(
        job_name=RUN_NAME,
        run_id=make_new_run_id(),
        status=DagsterRunStatus.NOT_STARTED,
        asset_selection=frozenset([key]),
        # Nobody should start it again: there is no job behind it.
        tags={"dagster/max_retries": "0", "dagster/sensor_name": RUN_NAME},
    )
    instance.add_run(run)
    started = DagsterEvent(DagsterEventType.RUN_START.value, RUN_NAME, message=message)
    instance.report_dagster_event(started, run_id=run.run_id)
    instance.event_log_storage.store_event_batch(
        [
            _entry(
                run,
                DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
                AssetMaterializationPlannedData(key, partition=partition),
                f"{partition} is shown.",
            )
            for partition in partitions
        ]
    )
    return run


def _entry(run: DagsterRun, kind: DagsterEventType, data: Any, message: str) -> EventLogEntry:
    event = DagsterEvent(
        event_type_value=kind.value,
        job_name=run.job_name,
        event_specific_data=data,
        message=message,
    )
    return EventLogEntry(
        error_info=None,
        level=20 if kind is DagsterEventType.ASSET_MATERIALIZATION_PLANNED else 40,
        user_message=message,
        run_id=run.run_id,
        timestamp=time.time(),
        job_name=run.job_name,
        dagster_event=event,
    )
