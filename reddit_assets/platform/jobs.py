"""The ``corpus`` asset with its nightly job, and small jobs that steer the workers.

Without ``from __future__ import annotations``: Dagster reads the type of an op's context.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
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

from reddit_assets.platform.bucket_overview import BucketCounts, by_bucket
from reddit_assets.platform.checks import corpus_check
from reddit_assets.platform.dagster_errors import run_errors
from reddit_assets.platform.names import CODE_VERSION, CORPUS, NIGHTLY, OWNERS, AssetSet
from reddit_assets.platform.resources import Platform

__all__ = ["make_corpus", "make_nightly", "make_schedule", "make_steering_jobs"]


def make_nightly() -> UnresolvedAssetJobDefinition:
    """The rescan, with the checks that look at a sample: button, command and schedule."""
    return define_asset_job(
        NIGHTLY,
        selection=AssetSelection.assets(CORPUS),
        description="Looks at every file, reads new outputs and a share of the others in full, "
        "queues what must be made again, evaluates the checks. The same as the schedule of this "
        "name and `reddit-assets nightly`.",
    )


def make_schedule(
    job: UnresolvedAssetJobDefinition, cron: str, timezone: str
) -> ScheduleDefinition:
    """The nightly rescan, switched on."""
    return ScheduleDefinition(
        name=NIGHTLY,
        job=job,
        description="Every night (REDDIT_NIGHTLY_CRON): opens every output, queues what is "
        "damaged, missing or stale, reports what Dagster does not have, evaluates the checks. "
        "Launch the job of this name, or `reddit-assets nightly`, to have it now.",
        cron_schedule=cron,
        execution_timezone=timezone,
        default_status=DefaultScheduleStatus.RUNNING,
    )


def make_corpus(sets: Sequence[AssetSet]) -> AssetsDefinition:
    """The overview: a quick look, or in the job ``nightly`` a look at everything.

    Args:
        sets: whose checks the nightly evaluates.
    """

    @multi_asset(
        name="rescan",
        specs=[
            AssetSpec(
                CORPUS,
                description="Everything at a glance: what is done, left and failed, how fast it "
                "goes, how long it takes. *Plots* beside *Table* shows the history.\n\nMade every "
                "hour, and by the job `nightly` with a look at every output. *Materialize* makes "
                "the hourly one now.",
                group_name="reddit",
                code_version=CODE_VERSION,
                skippable=True,
                owners=list(OWNERS),
                tags={"made_by": "sensor"},
            )
        ],
        check_specs=[corpus_check()],
        can_subset=True,
    )
    def corpus(context: AssetExecutionContext, platform: ResourceParam[Platform]) -> Iterator[Any]:
        from reddit_assets.figures import Figures
        from reddit_assets.platform.checks import evaluate_corpus, evaluate_samples
        from reddit_assets.platform.overview import corpus_metadata, oldest_unprocessed
        from reddit_assets.platform.services.corpus_map import draw_corpus_map
        from reddit_assets.platform.services.glance import glance_metadata, news_metadata

        with run_errors():
            workspace = platform.workspace
            if context.selected_asset_keys and context.job_name == NIGHTLY:
                found = platform.rescan.run(context.instance, context.log.info)
                statuses = found.statuses
                keys = [status.cluster_key for status in statuses]
                draw_corpus_map(workspace, keys, context.log.info)
                metadata = corpus_metadata(workspace, context.instance, found)
                for name, result in evaluate_samples(context.instance, sets, workspace).items():
                    outcome = "passed" if result.passed else "FAILED"
                    found.checks.append(f"{name} {outcome}: {result.description}")
                    context.log.info(found.checks[-1])
            else:
                statuses = list(workspace.scanner().scan())
                metadata = glance_metadata(workspace, Figures.of(workspace, statuses))
                keys = [status.cluster_key for status in statuses]
                metadata |= news_metadata(workspace.layout, keys)
            counts = BucketCounts(workspace)
            deque(counts.watch(statuses), maxlen=0)
            metadata |= by_bucket(context.instance, counts)
        if context.selected_asset_keys:
            yield MaterializeResult(asset_key=CORPUS, metadata=metadata)
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
