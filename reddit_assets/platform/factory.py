"""The assets of the whole tree or of one shard: chains → embeddings → clusters.

Without ``from __future__ import annotations``: Dagster reads the type of an op's context.
"""

from collections.abc import Callable, Iterator
from typing import Any

from dagster import (
    AssetCheckSpec,
    AssetDep,
    AssetExecutionContext,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    multi_asset,
)

from reddit_assets.platform.checks import check_specs
from reddit_assets.platform.mapping import FileToSubredditMapping
from reddit_assets.platform.names import CODE_VERSION, MODEL, SETTINGS, AssetSet

__all__ = ["make_assets", "make_inputs"]

Body = Callable[[AssetExecutionContext], Iterator[Any]]


def make_assets(assets: AssetSet, run_size: int) -> list[AssetsDefinition]:
    """The three assets.

    Each can be materialized in a run and takes reports from outside as well. An op yields check
    results alone and logs one event per partition: a yielded output would stand for every
    partition of the run's range, also for those that failed.

    Args:
        run_size: partitions per run of a backfill at the most.
    """
    group = "reddit" if assets.shard is None else assets.named("shard")
    chains = AssetSpec(
        assets.chains,
        partitions_def=assets.files,
        description="Reddit conversations as they arrive: one parquet file per partition.",
        kinds={"parquet"},
        code_version=CODE_VERSION,
        skippable=True,
        group_name=group,
    )
    embeddings = AssetSpec(
        assets.embeddings,
        deps=[assets.chains, MODEL],
        partitions_def=assets.files,
        description="The same rows plus one float32 column per dimension of the model.",
        kinds={"parquet"},
        code_version=CODE_VERSION,
        skippable=True,
        group_name=group,
    )
    clusters = AssetSpec(
        assets.clusters,
        deps=[
            AssetDep(assets.embeddings, partition_mapping=FileToSubredditMapping()),
            SETTINGS,
        ],
        partitions_def=assets.subreddits,
        description="All rows of a subreddit with the cluster that each belongs to.",
        kinds={"parquet"},
        code_version=CODE_VERSION,
        skippable=True,
        group_name=group,
    )

    return [
        _asset(assets.named("check_chains"), chains, [], run_size, _chains_body(assets)),
        _asset(
            assets.named("embed"),
            embeddings,
            check_specs(assets, "embeddings"),
            run_size,
            _jobs_body(assets, "EMBED"),
        ),
        _asset(
            assets.named("cluster"),
            clusters,
            check_specs(assets, "clusters"),
            run_size,
            _jobs_body(assets, "CLUSTER"),
        ),
    ]


def _chains_body(assets: AssetSet) -> Body:
    def body(context: AssetExecutionContext) -> Iterator[Any]:
        from reddit_assets.platform.ops import check_chains

        check_chains(context, assets)
        yield from ()

    return body


def _jobs_body(assets: AssetSet, kind: str) -> Body:
    def body(context: AssetExecutionContext) -> Iterator[Any]:
        from reddit_assets.errors import RedditAssetsError
        from reddit_assets.ledger.job import Kind
        from reddit_assets.platform.checks import evaluate
        from reddit_assets.platform.ops import have_made
        from reddit_assets.platform.run_logic import Lease
        from reddit_assets.platform.telling import as_failure
        from reddit_assets.workspace import Workspace

        try:
            workspace = Workspace.load()
            lease = Lease.of(workspace, Kind[kind], context.run_id)
            # Held until the checks are done: a run without it counts as dead.
            with lease.held():
                # Checks can be run without their asset.
                if context.selected_asset_keys:
                    have_made(context, assets, Kind[kind], workspace, lease)
                yield from evaluate(context, assets, workspace)
        except RedditAssetsError as error:
            raise as_failure(error) from None

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
    def op(context: AssetExecutionContext) -> Iterator[Any]:
        yield from body(context)

    return op


def make_inputs() -> list[AssetsDefinition]:
    """The wanted model and the clustering settings, which all shards share."""
    specs = [
        AssetSpec(
            MODEL,
            description="The model that the embeddings are wanted of (embeddings/.model.json).",
            group_name="reddit",
            skippable=True,
        ),
        AssetSpec(
            SETTINGS,
            description="The clustering settings (REDDIT_REDUCTION, …).",
            group_name="reddit",
            skippable=True,
        ),
    ]

    @multi_asset(name="read_inputs", specs=specs, can_subset=True)
    def op(context: AssetExecutionContext) -> Iterator[Any]:
        from reddit_assets.errors import RedditAssetsError
        from reddit_assets.platform.reporting.events import input_event
        from reddit_assets.platform.reporting.inputs import input_events
        from reddit_assets.platform.telling import as_failure
        from reddit_assets.workspace import Workspace

        try:
            workspace = Workspace.load()
            for key, version, metadata in input_events(workspace.settings, workspace.layout):
                if key in context.selected_asset_keys:
                    context.log_event(input_event(key, version, metadata))
        except RedditAssetsError as error:
            raise as_failure(error) from None
        return
        yield

    return [op]
