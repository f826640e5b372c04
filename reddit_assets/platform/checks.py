"""The asset checks. In a run they look at the run's partitions, by hand at a sample or at all.

Their assets' own ops evaluate them: a check with an op of its own would be skipped in every run of
its asset, whose op yields no output.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    MetadataValue,
    PreviewWarning,
)

from reddit_assets.platform.names import CORPUS, DEAD_LETTERS, AssetSet
from reddit_assets.platform.reporting import records

if TYPE_CHECKING:
    from reddit_assets.ledger.job import DeadLetter
    from reddit_assets.workspace import Workspace

__all__ = ["check_specs", "corpus_check", "evaluate", "evaluate_corpus"]

_SAMPLE = 200

# Runs of more partitions record only failures; the sensor clears earlier ones.
_PASSES = 50


def check_specs(assets: AssetSet, name: str) -> list[AssetCheckSpec]:
    """The checks of ``embeddings`` or of ``clusters``."""
    embeddings = name == "embeddings"
    key = assets.embeddings if embeddings else assets.clusters
    with warnings.catch_warnings():
        # Partitioned checks are new in Dagster: the contract tests say when they change.
        warnings.simplefilter("ignore", PreviewWarning)
        dead = AssetCheckSpec(
            DEAD_LETTERS,
            asset=key,
            description="No job of the partition is a dead letter.",
            partitions_def=assets.files if embeddings else assets.subreddits,
        )
    if not embeddings:
        what = "Rows equal to the inputs', clusters found, not nearly all noise."
        return [AssetCheckSpec("clusters_healthy", asset=key, description=what), dead]
    what = "Every file was written by a backend that passed the conformance test."
    return [
        AssetCheckSpec("embeddings_valid", asset=key, description="Schema, rows, norms, no NaN."),
        AssetCheckSpec("embeddings_conformant", asset=key, description=what),
        dead,
    ]


def corpus_check() -> AssetCheckSpec:
    """How long the oldest file has been waiting."""
    return AssetCheckSpec(
        "corpus_fresh", asset=CORPUS, description="No file waits for its embedding too long."
    )


def evaluate(
    context: AssetExecutionContext, assets: AssetSet, workspace: Workspace
) -> Iterator[AssetCheckResult]:
    """Results of the selected checks.

    Raises:
        RedditAssetsError: settings, trees or Redis are not there.
    """
    bodies: dict[str, Callable[[], AssetCheckResult]] = {
        "embeddings_valid": lambda: _valid(context, assets, workspace),
        "embeddings_conformant": lambda: _conformant(context, assets, workspace),
        "clusters_healthy": lambda: _clusters(context, assets, workspace),
    }
    for key in sorted(context.selected_asset_check_keys, key=lambda key: key.name):
        if key.name in bodies:
            result = bodies[key.name]()._replace(asset_key=key.asset_key, check_name=key.name)
            yield result
            _keep(context, key, result)
        else:
            yield from _dead_letters(context, assets, workspace, key)


def _keep(context: AssetExecutionContext, key: AssetCheckKey, result: AssetCheckResult) -> None:
    """Reports it without a run as well.

    Dagster calls a check not evaluated as soon as its asset has a materialization of another run
    than the check's. Workers' reports have none, like this one: it stands until the next look.
    """
    records.report_check(
        context.instance,
        AssetCheckEvaluation(
            asset_key=key.asset_key,
            check_name=key.name,
            passed=result.passed,
            severity=result.severity,
            description=result.description,
            metadata=result.metadata,
        ),
    )


def _result(findings: Any) -> AssetCheckResult:
    from reddit_assets.platform.reporting.events import table

    metadata: dict[str, MetadataValue] = {
        "looked at": MetadataValue.int(findings.looked_at),
        "rows": MetadataValue.int(findings.rows),
    }
    for name, found in (("problems", findings.problems), ("warnings", findings.warnings)):
        if found:
            rows = [{"partition": key, "what": what} for key, what in list(found.items())[:100]]
            metadata[name] = table(rows)
    return AssetCheckResult(
        passed=not findings.problems and not findings.warnings,
        severity=AssetCheckSeverity.ERROR if findings.problems else AssetCheckSeverity.WARN,
        description=findings.summary,
        metadata=metadata,
    )


def _sample(context: AssetExecutionContext, assets: AssetSet, workspace: Workspace) -> list[str]:
    """The run's own partitions, else a sample of all."""
    from reddit_assets.platform.backfills import partitions_of
    from reddit_assets.platform.quality import sample_keys

    keys = partitions_of(context, assets.embeddings, assets.files)[:_SAMPLE]
    return keys or sample_keys(workspace.scanner(dead=()), _SAMPLE)


def _valid(
    context: AssetExecutionContext, assets: AssetSet, workspace: Workspace
) -> AssetCheckResult:
    from reddit_assets.platform.quality import check_embeddings

    return _result(check_embeddings(workspace.layout, _sample(context, assets, workspace)))


def _conformant(
    context: AssetExecutionContext, assets: AssetSet, workspace: Workspace
) -> AssetCheckResult:
    from reddit_assets.platform.quality import check_conformance

    return _result(check_conformance(workspace.layout, _sample(context, assets, workspace)))


def _clusters(
    context: AssetExecutionContext, assets: AssetSet, workspace: Workspace
) -> AssetCheckResult:
    from reddit_assets.platform import quality
    from reddit_assets.platform.backfills import partitions_of

    keys = partitions_of(context, assets.clusters, assets.subreddits)[:_SAMPLE] or None
    return _result(quality.check_clusters(workspace.scanner(dead=()), keys))


def _dead_letters(
    context: AssetExecutionContext, assets: AssetSet, workspace: Workspace, check: AssetCheckKey
) -> Iterator[AssetCheckResult]:
    """One event per partition of the run and a result for all of them; else a result for all.

    Without that result Dagster's log would say that the op did not yield what it should.
    """
    from reddit_assets.ledger.job import Kind
    from reddit_assets.platform.backfills import partitions_of
    from reddit_assets.platform.names import set_of
    from reddit_assets.platform.reporting.metadata import plain

    embed = check.asset_key == assets.embeddings
    queue = workspace.queues[Kind.EMBED if embed else Kind.CLUSTER]
    dead = {key for key in queue.dead_since() if set_of(key, workspace.shards) == assets}
    keys = partitions_of(context, check.asset_key, assets.files if embed else assets.subreddits)
    if not keys:
        yield _all_dead_letters(check, len(dead), queue.dead_letters(sorted(dead)[:100]))
        return
    letters = queue.dead_letters(dead & set(keys))
    errors = {one.key: one.error for one in letters}
    if context.has_partition_key:
        result = _all_dead_letters(check, len(errors), letters)
        yield result._replace(description=plain(errors.get(keys[0], "The output is there.")))
        return
    yield _all_dead_letters(check, len(errors), letters[:100])
    for key in keys:
        if key not in errors and len(keys) > _PASSES:
            continue  # an event per partition would double a large run's recording
        context.log_event(
            AssetCheckEvaluation(
                asset_key=check.asset_key,
                check_name=check.name,
                passed=key not in errors,
                description=plain(errors.get(key, "The output is there.")),
                partition=key,
            )
        )


def _all_dead_letters(
    check: AssetCheckKey, number: int, letters: list[DeadLetter]
) -> AssetCheckResult:
    from reddit_assets.platform.services.dead_letters import letters_table

    metadata: dict[str, MetadataValue] = {"dead letters": MetadataValue.int(number)}
    if letters:
        metadata["letters"] = letters_table(letters)
    return AssetCheckResult(
        asset_key=check.asset_key,
        check_name=check.name,
        passed=not number,
        description=f"{number} dead letters.",
        metadata=metadata,
    )


def evaluate_corpus(hours: float, limit: float) -> AssetCheckResult:
    """Whether the oldest unprocessed file has waited too long.

    Args:
        hours: its age.
        limit: the setting ``fresh_hours``.
    """
    return AssetCheckResult(
        asset_key=CORPUS,
        check_name="corpus_fresh",
        passed=hours <= limit,
        severity=AssetCheckSeverity.WARN,
        description=f"The oldest unprocessed file has waited {hours:.1f} h (limit {limit:g} h).",
        metadata={"hours": MetadataValue.float(round(hours, 2))},
    )
