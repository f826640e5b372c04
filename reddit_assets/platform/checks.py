"""The asset checks. In a run they look at the run's partitions, by hand at a sample or at all.

Their assets' own ops evaluate them: a check with an op of its own would be skipped in every run of
its asset, whose op yields no output.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    DagsterInstance,
    MetadataValue,
    PreviewWarning,
)

from reddit_assets.platform.names import CORPUS, DEAD_LETTERS, AssetSet
from reddit_assets.platform.reporting import records

if TYPE_CHECKING:
    from reddit_assets.ledger.job import DeadLetter
    from reddit_assets.workspace import Workspace

__all__ = ["check_specs", "corpus_check", "evaluate", "evaluate_corpus", "evaluate_samples"]

_SAMPLE = 200
# The checks that look at a sample where no run names partitions.
_OF_CLUSTERS = ("clusters_healthy", "clusters_stable")
SAMPLED = ("embeddings_valid", "embeddings_conformant", *_OF_CLUSTERS)

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
        moved = "Few posts changed their cluster in the last night (REDDIT_MOVED_SHARE)."
        return [
            AssetCheckSpec("clusters_healthy", asset=key, description=what),
            AssetCheckSpec("clusters_stable", asset=key, description=moved),
            dead,
        ]
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
    from reddit_assets.platform.backfills import partitions_of

    for key in sorted(context.selected_asset_check_keys, key=lambda key: key.name):
        if key.name in SAMPLED:
            of = assets.files if key.asset_key == assets.embeddings else assets.subreddits
            keys = partitions_of(context, key.asset_key, of)
            result = _looked(key.name, workspace, keys)
            yield result._replace(asset_key=key.asset_key, check_name=key.name)
            _keep(context.instance, key, result)
        else:
            yield from _dead_letters(context, assets, workspace, key)


def evaluate_samples(
    instance: DagsterInstance, sets: Iterable[AssetSet], workspace: Workspace
) -> dict[str, AssetCheckResult]:
    """Evaluates the checks that look at a sample of everything, for the nightly; by name.

    Not by selecting them in its job: the job's button on the page leaves other assets' checks out.
    """
    results = {name: _looked(name, workspace, []) for name in SAMPLED}
    for assets in sets:
        for name, result in results.items():
            asset = assets.clusters if name in _OF_CLUSTERS else assets.embeddings
            _keep(instance, AssetCheckKey(asset, name), result)
    return results


def _looked(name: str, workspace: Workspace, keys: list[str]) -> AssetCheckResult:
    """The result for some partitions; for a sample of all if there are none."""
    from reddit_assets.platform import quality

    scanner = workspace.scanner(dead=())
    if name == "clusters_healthy":
        return _result(quality.check_clusters(scanner, keys[:_SAMPLE] or None))
    if name == "clusters_stable":
        most = workspace.settings.moved_share
        return _result(quality.check_stable(scanner, most, keys[:_SAMPLE] or None))
    sample = keys[:_SAMPLE] or quality.sample_keys(scanner, _SAMPLE)
    valid = name == "embeddings_valid"
    look = quality.check_embeddings if valid else quality.check_conformance
    return _result(look(workspace.layout, sample))


def _keep(instance: DagsterInstance, key: AssetCheckKey, result: AssetCheckResult) -> None:
    """Reports it without a run as well.

    Dagster calls a check not evaluated as soon as its asset has a materialization of another run
    than the check's. Workers' reports have none, like this one: it stands until the next look.
    """
    records.report_check(
        instance,
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
    buckets, asset = workspace.buckets, queue.kind.asset
    dead = {key for key in queue.dead_since() if set_of(asset, key, buckets) == assets}
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
