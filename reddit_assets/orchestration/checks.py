"""The asset checks. In a run they look at the run's partitions, by hand or nightly at a sample.

Without ``from __future__ import annotations``: Dagster reads the type of a check's context.
"""

import warnings
from collections.abc import Callable
from typing import Any

from dagster import (
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetKey,
    MetadataValue,
    PartitionsDefinition,
    PreviewWarning,
    asset_check,
)

from reddit_assets.orchestration.names import CORPUS, AssetSet

__all__ = ["make_checks", "make_corpus_check"]

_SAMPLE = 200


def make_checks(assets: AssetSet) -> list[AssetChecksDefinition]:
    """The checks of one set of assets."""
    return [
        _check(
            assets.embeddings,
            "embeddings_valid",
            "Schema, rows, unit norms, no NaN.",
            lambda context: _embeddings(context, assets, "check_embeddings"),
        ),
        _check(
            assets.embeddings,
            "embeddings_conformant",
            "Written by backends whose vectors equal the reference's.",
            lambda context: _embeddings(context, assets, "check_conformance"),
        ),
        _check(
            assets.clusters,
            "clusters_healthy",
            "Rows equal to the inputs', clusters found, not nearly all noise.",
            lambda context: _clusters(context, assets),
        ),
        _check(
            assets.embeddings,
            "no_dead_letters",
            "No job of the partition has failed for good.",
            lambda context: _dead_letters(context, assets, "embed"),
            assets.files,
        ),
        _check(
            assets.clusters,
            "no_dead_letters",
            "No job of the partition has failed for good.",
            lambda context: _dead_letters(context, assets, "cluster"),
            assets.subreddits,
        ),
    ]


def make_corpus_check() -> AssetChecksDefinition:
    """How long the oldest file has been waiting."""
    return _check(CORPUS, "corpus_fresh", "No file waits for its embedding too long.", _corpus)


def _check(
    asset: AssetKey,
    name: str,
    description: str,
    body: Callable[[AssetCheckExecutionContext], AssetCheckResult],
    partitions: PartitionsDefinition | None = None,
) -> AssetChecksDefinition:
    with warnings.catch_warnings():
        # Partitioned checks are new in Dagster: the contract tests say when they change.
        warnings.simplefilter("ignore", PreviewWarning)

        @asset_check(asset=asset, name=name, description=description, partitions_def=partitions)
        def check(context: AssetCheckExecutionContext) -> AssetCheckResult:
            from reddit_assets.errors import RedditAssetsError
            from reddit_assets.orchestration.surroundings import as_failure

            try:
                return body(context)
            except RedditAssetsError as error:
                raise as_failure(error) from None

    return check


def _partitions(context: AssetCheckExecutionContext, partitions: PartitionsDefinition) -> list[str]:
    """The partitions of the run, none if it has none."""
    tags = context.run.tags
    if "dagster/partition" in tags:
        return [tags["dagster/partition"]]
    first = tags.get("dagster/asset_partition_range_start")
    last = tags.get("dagster/asset_partition_range_end")
    if first is None or last is None:
        return []
    keys = list(partitions.get_partition_keys(dynamic_partitions_store=context.instance))
    if first not in keys or last not in keys:
        return []
    return keys[keys.index(first) : keys.index(last) + 1]


def _result(findings: Any, severity: AssetCheckSeverity) -> AssetCheckResult:
    from reddit_assets.orchestration.materialization import table

    metadata: dict[str, MetadataValue] = {
        "looked at": MetadataValue.int(findings.looked_at),
        "rows": MetadataValue.int(findings.rows),
    }
    for name, found in (("problems", findings.problems), ("warnings", findings.warnings)):
        if found:
            rows = [{"partition": key, "what": what} for key, what in list(found.items())[:100]]
            metadata[name] = table(rows)
    passed = not findings.problems and not findings.warnings
    return AssetCheckResult(
        passed=passed,
        severity=severity if findings.problems else AssetCheckSeverity.WARN,
        description=findings.summary,
        metadata=metadata,
    )


def _embeddings(
    context: AssetCheckExecutionContext, assets: AssetSet, function: str
) -> AssetCheckResult:
    from reddit_assets.orchestration import quality
    from reddit_assets.orchestration.surroundings import Surroundings

    around = Surroundings.load()
    keys = _partitions(context, assets.files)[:_SAMPLE]
    if not keys:
        keys = quality.sample_keys(around.scanner(dead=()), _SAMPLE)
    return _result(getattr(quality, function)(around.layout, keys), AssetCheckSeverity.ERROR)


def _clusters(context: AssetCheckExecutionContext, assets: AssetSet) -> AssetCheckResult:
    from reddit_assets.orchestration import quality
    from reddit_assets.orchestration.surroundings import Surroundings

    around = Surroundings.load()
    keys = _partitions(context, assets.subreddits) or None
    return _result(quality.check_clusters(around.scanner(dead=()), keys), AssetCheckSeverity.ERROR)


def _dead_letters(
    context: AssetCheckExecutionContext, assets: AssetSet, kind: str
) -> AssetCheckResult:
    from reddit_assets.jobqueue.job import Kind
    from reddit_assets.orchestration.dead_letters import letters_table
    from reddit_assets.orchestration.names import set_of
    from reddit_assets.orchestration.surroundings import Surroundings

    around = Surroundings.load()
    wanted = Kind.EMBED if kind == "embed" else Kind.CLUSTER
    partitions = assets.files if wanted is Kind.EMBED else assets.subreddits
    keys = set(_partitions(context, partitions))
    letters = [
        letter
        for letter in around.queues[wanted].dead_letters()
        if set_of(letter.key, around.shards) == assets and (not keys or letter.key in keys)
    ]
    metadata: dict[str, MetadataValue] = {"dead letters": MetadataValue.int(len(letters))}
    if letters:
        metadata["letters"] = letters_table(letters)
    return AssetCheckResult(
        passed=not letters,
        description=f"{len(letters)} dead letters.",
        metadata=metadata,
    )


def _corpus(context: AssetCheckExecutionContext) -> AssetCheckResult:
    from reddit_assets.orchestration.overview import oldest_unprocessed
    from reddit_assets.orchestration.surroundings import Surroundings

    around = Surroundings.load()
    limit = around.settings.fresh_hours
    hours = oldest_unprocessed(list(around.scanner().scan())) / 3600
    return AssetCheckResult(
        passed=hours <= limit,
        severity=AssetCheckSeverity.WARN,
        description=f"The oldest unprocessed file has waited {hours:.1f} h (limit {limit:g} h).",
        metadata={"hours": MetadataValue.float(round(hours, 2))},
    )
