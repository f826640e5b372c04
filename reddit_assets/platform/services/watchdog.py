"""Runs whose process died: failed in Dagster, their jobs withdrawn, their results handed on.

Dagster's default launcher does not notice a run process that died with its code server. A run
that waits for workers holds a lease in Redis; so a run without one is dead.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from dagster import AssetKey, DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.storage.dagster_run import RunRecord

from reddit_assets.ledger.connection import redis_errors
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.ledger.waiters import expired_runs, withdraw
from reddit_assets.platform.names import AssetSet
from reddit_assets.workspace import Workspace

__all__ = ["bury_dead_runs"]

# Since when a run has been seen without a lease; the code server keeps it between ticks.
_SUSPECTS: dict[str, float] = {}

_UNFINISHED = [DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


def bury_dead_runs(workspace: Workspace, instance: DagsterInstance) -> list[str]:
    """Fail runs that have died; sentences that say which.

    A run that was being cancelled ends as cancelled.
    """
    told = []
    for queue in workspace.queues.values():
        for run_id in expired_runs(queue):
            told += _bury(instance, run_id)
            told.append(_withdraw(queue, run_id))
    for run_id in _lost(workspace, instance):
        told += _bury(instance, run_id)
    return told


def _lost(workspace: Workspace, instance: DagsterInstance) -> list[str]:
    """Runs without a lease, now and half a lease ago: between two steps a run may have none."""
    now = time.monotonic()
    ids = {record.dagster_run.run_id for record in _without_lease(workspace, instance)}
    for run_id in set(_SUSPECTS) - ids:
        del _SUSPECTS[run_id]
    patience = workspace.settings.run_lease_seconds / 2
    return [run_id for run_id in ids if now - _SUSPECTS.setdefault(run_id, now) >= patience]


def _bury(instance: DagsterInstance, run_id: str) -> list[str]:
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return []
    message = (
        "The run's process has died: it has not renewed its lease. What was queued for it is "
        "withdrawn; what workers finish is reported without a run."
    )
    if run.status is DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, message=message)
        return [f"Run {run_id[:8]} was being cancelled and is dead: cancelled."]
    instance.report_run_failed(run, message=message)
    return [f"Run {run_id[:8]} is dead: failed."]


def _withdraw(queue: JobQueue, run_id: str) -> str:
    gone = withdraw(queue, run_id)
    return f"Run {run_id[:8]}: {gone.withdrawn} {queue.kind} jobs withdrawn, {gone.kept} kept."


def _without_lease(workspace: Workspace, instance: DagsterInstance) -> list[RunRecord]:
    """Runs of our assets that have been going for a while, but never had or lost their lease."""
    runs = instance.get_run_records(RunsFilter(statuses=_UNFINISHED), limit=200)
    if not runs:
        return []
    leased: set[str] = set()
    for queue in workspace.queues.values():
        with redis_errors(queue.client):
            leased.update(queue.client.zrange(f"{queue.prefix}runs", 0, -1))
    ours = _waiting_assets(workspace.shards)
    horizon = time.time() - 2 * workspace.settings.run_lease_seconds
    return [
        record
        for record in runs
        if record.dagster_run.run_id not in leased
        and (record.start_time or time.time()) < horizon
        and (record.dagster_run.asset_selection or frozenset()) & ours
    ]


def _waiting_assets(shards: Collection[str]) -> frozenset[AssetKey]:
    sets = [AssetSet(), *(AssetSet(shard) for shard in shards)]
    return frozenset(
        key for assets in sets for key in (assets.chains, assets.embeddings, assets.clusters)
    )
