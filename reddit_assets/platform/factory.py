"""The assets of the whole tree or of one bucket: chains → embeddings → clusters.

Without ``from __future__ import annotations``: Dagster reads the types of an op's parameters.
"""

from collections.abc import Callable, Iterator
from typing import Any

from dagster import (
    AssetCheckSpec,
    AssetDep,
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    PartitionsDefinition,
    ResourceParam,
    multi_asset,
)

from reddit_assets.platform.checks import check_specs
from reddit_assets.platform.dagster_errors import run_errors
from reddit_assets.platform.descriptions import about, columns
from reddit_assets.platform.dumps import chains_dep
from reddit_assets.platform.mapping import FileToSubredditMapping
from reddit_assets.platform.names import (
    ASSET_TAG,
    CODE_VERSION,
    MODEL,
    OWNERS,
    SETTINGS,
    AssetSet,
)
from reddit_assets.platform.resources import Platform

__all__ = ["make_assets", "make_inputs"]

Body = Callable[[AssetExecutionContext, Platform], Iterator[Any]]


def make_assets(assets: AssetSet, run_size: int) -> list[AssetsDefinition]:
    """The three assets.

    Each can be materialized in a run and takes reports from outside as well. An op yields check
    results alone and logs one event per partition: a yielded output would stand for every
    partition of the run's range, also for those that failed.

    Args:
        run_size: partitions per run of a backfill at most.
    """
    group = "reddit" if assets.bucket is None else assets.named("bucket")

    def spec(
        key: AssetKey,
        partitions: PartitionsDefinition,
        *deps: AssetKey | AssetDep,
    ) -> AssetSpec:
        return AssetSpec(
            key,
            deps=deps,
            partitions_def=partitions,
            description=about(key.path[0]),
            metadata=columns(key.path[0]),
            kinds={"parquet"},
            owners=list(OWNERS),
            tags={
                ASSET_TAG: key.path[0],
                "made_by": "delivery" if key == assets.chains else "workers",
            },
            code_version=CODE_VERSION,
            skippable=True,
            group_name=group,
        )

    chains = spec(
        assets.chains,
        assets.files,
        chains_dep(),
    )
    embeddings = spec(
        assets.embeddings,
        assets.files,
        assets.chains,
        MODEL,
    )
    clusters = spec(
        assets.clusters,
        assets.subreddits,
        AssetDep(assets.embeddings, partition_mapping=FileToSubredditMapping()),
        SETTINGS,
    )
    checked = {name: check_specs(assets, name) for name in ("embeddings", "clusters")}
    return [
        _asset(assets.named("check_chains"), chains, [], run_size, _chains(assets)),
        _asset(
            assets.named("embed"),
            embeddings,
            checked["embeddings"],
            run_size,
            _made(assets, "EMBED"),
        ),
        _asset(
            assets.named("cluster"),
            clusters,
            checked["clusters"],
            run_size,
            _made(assets, "CLUSTER"),
        ),
    ]


def _chains(assets: AssetSet) -> Body:
    def body(context: AssetExecutionContext, platform: Platform) -> Iterator[Any]:
        from reddit_assets.ledger.job import Kind
        from reddit_assets.platform.ops import check_chains
        from reddit_assets.platform.run_logic import Lease

        workspace = platform.workspace
        lease = Lease.of(workspace, Kind.EMBED, context.run_id)
        with lease.held():
            check_chains(context, assets, workspace)
        yield from ()

    return body


def _made(assets: AssetSet, kind: str) -> Body:
    def body(context: AssetExecutionContext, platform: Platform) -> Iterator[Any]:
        from reddit_assets.ledger.job import Kind
        from reddit_assets.platform.checks import evaluate
        from reddit_assets.platform.ops import have_made
        from reddit_assets.platform.run_logic import Lease

        workspace = platform.workspace
        lease = Lease.of(workspace, Kind[kind], context.run_id)
        # Held until the checks are done: a run without it counts as dead.
        with lease.held():
            # Checks can be run without their asset.
            if context.selected_asset_keys:
                have_made(context, assets, Kind[kind], workspace, lease)
            yield from evaluate(context, assets, workspace)

    return body


def _asset(
    name: str, spec: AssetSpec, checks: list[AssetCheckSpec], run_size: int, body: Body
) -> AssetsDefinition:
    @multi_asset(
        name=name,
        specs=[spec],
        check_specs=checks,
        can_subset=bool(checks),
        backfill_policy=BackfillPolicy.multi_run(run_size),
    )
    def op(context: AssetExecutionContext, platform: ResourceParam[Platform]) -> Iterator[Any]:
        with run_errors():
            yield from body(context, platform)

    return op


def make_inputs() -> AssetsDefinition:
    """The wanted model and the clustering settings, which all buckets share."""
    specs = [
        AssetSpec(
            key,
            description=about(key.path[0]),
            group_name="reddit",
            skippable=True,
            owners=list(OWNERS),
            tags={"made_by": "sensor"},
        )
        for key in (MODEL, SETTINGS)
    ]

    @multi_asset(name="read_inputs", specs=specs, can_subset=True)
    def op(context: AssetExecutionContext, platform: ResourceParam[Platform]) -> Iterator[Any]:
        from reddit_assets.platform.reporting.events import input_event
        from reddit_assets.platform.reporting.inputs import input_events

        with run_errors():
            workspace = platform.workspace
            for key, version, metadata in input_events(workspace.settings, workspace.layout):
                if key in context.selected_asset_keys:
                    context.log_event(input_event(key, version, metadata))
        yield from ()

    return op
