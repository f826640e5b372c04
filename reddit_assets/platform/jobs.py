"""The ``corpus`` asset with its nightly job, and small jobs that steer the workers.

Without ``from __future__ import annotations``: Dagster reads the type of an op's context.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import dagster
from dagster import (
    AssetExecutionContext,
    AssetsDefinition,
    AssetSelection,
    AssetSpec,
    DefaultScheduleStatus,
    JobDefinition,
    MaterializeResult,
    OpExecutionContext,
    ResourceParam,
    ScheduleDefinition,
    define_asset_job,
    multi_asset,
    op,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from reddit_assets.platform.checks import check_specs, corpus_check
from reddit_assets.platform.dagster_errors import run_errors
from reddit_assets.platform.names import CODE_VERSION, CORPUS, AssetSet
from reddit_assets.platform.resources import Platform

__all__ = ["make_corpus", "make_nightly", "make_schedule", "make_steering_jobs"]


def make_nightly(sets: Iterable[AssetSet]) -> UnresolvedAssetJobDefinition:
    """The rescan, with the checks that look at a sample."""
    sampled = [
        spec.key
        for assets in sets
        for name in ("embeddings", "clusters")
        for spec in check_specs(assets, name)
        if spec.partitions_def is None
    ]
    return define_asset_job(
        "nightly_rescan",
        selection=AssetSelection.assets(CORPUS) | AssetSelection.checks(*sampled),
        description="Opens every output, finds what is wrong, queues what must be made again.",
    )


def make_schedule(
    job: UnresolvedAssetJobDefinition, cron: str, timezone: str
) -> ScheduleDefinition:
    """The nightly rescan, switched on."""
    return ScheduleDefinition(
        name="nightly",
        job=job,
        cron_schedule=cron,
        execution_timezone=timezone,
        default_status=DefaultScheduleStatus.RUNNING,
    )


def make_corpus() -> AssetsDefinition:
    """The overview; materializing it is the rescan."""

    @multi_asset(
        name="rescan",
        specs=[
            AssetSpec(
                CORPUS,
                description="Everything at a glance, made by the nightly rescan.",
                group_name="reddit",
                code_version=CODE_VERSION,
                skippable=True,
            )
        ],
        check_specs=[corpus_check()],
        can_subset=True,
    )
    def corpus(context: AssetExecutionContext, platform: ResourceParam[Platform]) -> Iterator[Any]:
        from reddit_assets.platform.checks import evaluate_corpus
        from reddit_assets.platform.overview import corpus_metadata, oldest_unprocessed

        with run_errors():
            workspace = platform.workspace
            if context.selected_asset_keys:
                found = platform.rescan.run(context.instance, context.log.info)
                statuses = found.statuses
                yield MaterializeResult(
                    asset_key=CORPUS, metadata=corpus_metadata(workspace, context.instance, found)
                )
            else:
                statuses = list(workspace.scanner().scan())
        if context.selected_asset_check_keys:
            hours = oldest_unprocessed(statuses) / 3600
            yield evaluate_corpus(hours, workspace.settings.fresh_hours)

    return corpus


def make_steering_jobs() -> list[JobDefinition]:
    """Pause, resume, and retry of all dead letters."""

    def pause(queue: Any) -> str:
        queue.pause()
        return f"{queue.kind.value}: nothing new is claimed; work in progress finishes."

    def resume(queue: Any) -> str:
        queue.resume()
        return f"{queue.kind.value}: claiming goes on."

    def retry(queue: Any) -> str:
        return f"{queue.kind.value}: {queue.retry(sorted(queue.dead_keys()))} dead letters queued."

    return [
        _steering("pause_workers", "Workers claim nothing new; work in progress finishes.", pause),
        _steering("resume_workers", "Workers claim jobs again.", resume),
        _steering("retry_dead_letters", "Queues every dead letter again.", retry),
    ]


def _steering(name: str, description: str, act: Callable[[Any], str]) -> JobDefinition:
    @op(name=f"{name}_op")
    def steer(context: OpExecutionContext, platform: ResourceParam[Platform]) -> None:
        with run_errors():
            for queue in platform.workspace.queues.values():
                context.log.info(act(queue))

    @dagster.job(name=name, description=description)
    def steering() -> None:
        steer()

    return steering
