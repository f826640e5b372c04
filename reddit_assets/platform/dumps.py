"""The asset ``dumps``: one partition per public dump, ingested by workers of kind ``ingest``.

Without ``from __future__ import annotations``: Dagster reads the types of an op's parameters.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetDep,
    AssetExecutionContext,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    DagsterInstance,
    Failure,
    MetadataValue,
    ResourceParam,
    SpecificPartitionsPartitionMapping,
    multi_asset,
)

from reddit_assets.platform.dagster_errors import run_errors
from reddit_assets.platform.descriptions import about
from reddit_assets.platform.names import CODE_VERSION, DUMP_FILES, DUMPS, OWNERS
from reddit_assets.platform.resources import Platform
from reddit_assets.platform.services.tick import Tick

if TYPE_CHECKING:
    from reddit_assets.ledger.job import Job, Result
    from reddit_assets.workspace import Workspace

__all__ = ["Dumps", "chains_dep", "make_dumps"]


def chains_dep() -> AssetDep:
    """What ``chains`` depends on: drawn in the lineage, and no reason to call a file stale.

    A chain file changes only where a dump has rows for it, and is noticed then by itself.
    """
    return AssetDep(DUMPS, partition_mapping=SpecificPartitionsPartitionMapping([]))


def make_dumps(run_size: int) -> AssetsDefinition:
    """The asset. Partitions per run of a backfill at most ``run_size``."""

    @multi_asset(
        name="ingest",
        specs=[
            AssetSpec(
                DUMPS,
                partitions_def=DUMP_FILES,
                description=about(DUMPS.path[0]),
                kinds={"zstd"},
                owners=list(OWNERS),
                tags={"made_by": "workers"},
                code_version=CODE_VERSION,
                skippable=True,
                group_name="reddit",
            )
        ],
        backfill_policy=BackfillPolicy.multi_run(run_size),
    )
    def op(context: AssetExecutionContext, platform: ResourceParam[Platform]) -> Iterator[Any]:
        with run_errors():
            _have_ingested(context, platform.workspace)
        yield from ()

    return op


def _have_ingested(context: AssetExecutionContext, workspace: "Workspace") -> None:
    from reddit_assets.ledger.job import Kind
    from reddit_assets.platform.reporting.inputs import materializer
    from reddit_assets.platform.run_logic import Lease, failed_partitions, wait_for_jobs

    make = materializer(context.instance, workspace.layout, workspace.buckets)

    def record(results: "Sequence[Result]") -> None:
        for event in make.outputs(results):
            context.log_event(event)

    lease = Lease.of(workspace, Kind.INGEST, context.run_id)
    with lease.held():
        outcome = wait_for_jobs(
            workspace.queues[Kind.INGEST],
            workspace.layout,
            lease,
            _jobs(workspace, list(context.partition_keys), force=True),
            record=record,
            log=context.log,
        )
    if outcome.failed:
        raise Failure(
            description=failed_partitions(outcome.failed, outcome.total),
            metadata={"failed": MetadataValue.json(outcome.failed)},
            allow_retries=False,
        )


def _jobs(workspace: "Workspace", keys: Sequence[str], *, force: bool) -> "list[Job]":
    from reddit_assets.ingest.wanted import wanted_dumps
    from reddit_assets.ledger.job import Job, Kind

    wanted = wanted_dumps(workspace.settings, workspace.layout, keys, force=force)
    return [Job(Kind.INGEST, key, stamp, force=force) for key, stamp in wanted.items()]


class Dumps:
    """Finds new and changed dumps: adds partitions and queues jobs."""

    def __init__(self, workspace: "Workspace") -> None:
        self._workspace = workspace

    def tick(self, instance: DagsterInstance, cursor: str | None = None) -> Tick:
        """One look below ``dumps/``."""
        from reddit_assets.ingest.wanted import dump_keys
        from reddit_assets.ledger.job import Kind
        from reddit_assets.platform.services.looks import job_counts

        workspace = self._workspace
        found = dump_keys(workspace.settings, workspace.layout)
        if not found:
            return Tick(["There are no dumps."])
        name = DUMP_FILES.name or ""
        known = set(instance.get_dynamic_partitions(name))
        new = [key for key in found if key not in known]
        if new:
            instance.add_dynamic_partitions(name, new)
        jobs = _jobs(workspace, found, force=False)
        counts = workspace.queues[Kind.INGEST].enqueue(jobs, workspace.layout)
        return Tick(
            [
                f"{len(found)} dumps, {len(jobs)} of them to be ingested.",
                f"{len(new)} partitions added." if new else "",
                job_counts(counts),
            ]
        )
