"""Runs whose process died: failed in Dagster, their jobs withdrawn, their results handed on.

A run that waits for workers holds a lease in Redis; so a run without one is dead. Why not Dagster's
own run monitoring: ``docs/architecture.md``, *A run whose process died*.
"""

from __future__ import annotations

import time

from dagster import AssetKey, DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.storage.tags import WILL_RETRY_TAG

from reddit_assets.ledger.job import Kind, partition_of
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.ledger.waiters import expired_runs, open_runs, waited_for, withdraw
from reddit_assets.platform.backfills import SIZE_TAG
from reddit_assets.platform.names import asset_sets
from reddit_assets.platform.reporting.runs import plan
from reddit_assets.platform.services.tick import Tick
from reddit_assets.workspace import Workspace

__all__ = ["Watchdog"]

_UNFINISHED = [DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


class Watchdog:
    """Looks for dead runs."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        # Since when a run has been seen without a lease.
        self._suspects: dict[str, float] = {}

    def tick(self, instance: DagsterInstance, cursor: str | None = None) -> Tick:
        """Fail runs that have died. A run that was being cancelled ends as cancelled."""
        sentences = []
        for queue in self._workspace.queues.values():
            for run_id in expired_runs(queue):
                unmade = {partition_of(key) or "" for key in waited_for(queue, run_id)}
                sentences.append(_fail(instance, run_id))
                sentences.append(_withdraw(queue, run_id))
                _name_unmade(instance, run_id, queue.kind, unmade - {""})
        sentences += [_fail(instance, run_id) for run_id in self._lost(instance)]
        sentences = [sentence for sentence in sentences if sentence]
        return Tick(sentences or ["All runs that wait for workers are alive."])

    def _lost(self, instance: DagsterInstance) -> list[str]:
        """Runs without a lease, now and half a lease ago: between two steps a run may have none."""
        now = time.monotonic()
        ids = self._without_lease(instance)
        for run_id in set(self._suspects) - ids:
            del self._suspects[run_id]
        patience = self._workspace.settings.run_lease_seconds / 2
        return [run for run in ids if now - self._suspects.setdefault(run, now) >= patience]

    def _without_lease(self, instance: DagsterInstance) -> set[str]:
        """Runs of our assets that have been going for a while, and hold no lease."""
        found = instance.get_run_records(RunsFilter(statuses=_UNFINISHED), limit=200)
        if not found:
            return set()
        leased = {run for queue in self._workspace.queues.values() for run in open_runs(queue)}
        ours = self._waiting_assets()
        horizon = time.time() - 2 * self._workspace.settings.run_lease_seconds
        return {
            record.dagster_run.run_id
            for record in found
            if record.dagster_run.run_id not in leased
            and (record.start_time or time.time()) < horizon
            and (record.dagster_run.asset_selection or frozenset()) & ours
        }

    def _waiting_assets(self) -> frozenset[AssetKey]:
        sets = asset_sets(self._workspace.buckets)
        return frozenset(key for one in sets for key in (one.chains, one.embeddings, one.clusters))


def _fail(instance: DagsterInstance, run_id: str) -> str:
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return ""
    message = (
        "The run's process has died: it has not renewed its lease. What was queued for it is "
        "withdrawn; what workers finish is reported without a run."
    )
    if run.status is DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, message=message)
        return f"Run {run_id[:8]} was being cancelled and is dead: cancelled."
    if instance.run_retries_enabled:
        # Dagster itself decides after the status has changed: a backfill that looks in between
        # would take the run for the last one, and give up what is left.
        instance.add_run_tags(run_id, {WILL_RETRY_TAG: "true"})
    instance.report_run_failed(run, message=message)
    return f"Run {run_id[:8]} is dead: failed."


def _name_unmade(instance: DagsterInstance, run_id: str, kind: Kind, unmade: set[str]) -> None:
    """Let Dagster show a large run's partitions as failed, unless another run goes on with them."""
    run = instance.get_run_by_id(run_id)
    if run is None or run.status is not DagsterRunStatus.FAILURE:
        return
    if SIZE_TAG in run.tags and run.tags.get(WILL_RETRY_TAG) != "true":
        for asset in run.asset_selection or ():
            if asset.path[0] == kind.asset:
                plan(instance, run, asset, sorted(unmade))


def _withdraw(queue: JobQueue, run_id: str) -> str:
    gone = withdraw(queue, run_id)
    return (
        f"Run {run_id[:8]}: {gone.withdrawn} {queue.kind.value} jobs withdrawn, {gone.kept} kept."
    )
