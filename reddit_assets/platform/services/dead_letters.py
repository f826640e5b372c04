"""Dead letters as failed asset checks on their partitions, healed when a retry succeeds."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from contextlib import suppress

from dagster import (
    AssetCheckEvaluation,
    AssetCheckSeverity,
    AssetKey,
    DagsterInstance,
    MetadataValue,
)

from reddit_assets.corpus.buckets import FLAT
from reddit_assets.corpus.provenance import read_output
from reddit_assets.corpus.scan import Scanner
from reddit_assets.errors import BadFileError, RedditAssetsError
from reddit_assets.ledger.job import DeadLetter, Kind, partition_of
from reddit_assets.platform.names import LOCATION, REPOSITORY, key_of_result, set_of
from reddit_assets.platform.reporting import records
from reddit_assets.platform.reporting.events import table
from reddit_assets.platform.reporting.failures import (
    Failed,
    not_yet_failed,
    report_failed,
    report_healed,
)
from reddit_assets.platform.reporting.inputs import materializer
from reddit_assets.platform.reporting.metadata import fenced, plain
from reddit_assets.platform.services.reconcile import result_of
from reddit_assets.platform.services.tick import Tick
from reddit_assets.workspace import Workspace

__all__ = ["CHECK", "DeadLetters", "letters_table"]

CHECK = "no_dead_letters"

# Evaluations per tick: each is one insert.
_PER_TICK = 200
# Letters in a table.
_SHOWN = 100


def letters_table(letters: list[DeadLetter]) -> MetadataValue:
    """The letters as people read them, oldest first, at most 100."""
    return table(
        [
            {
                "partition": letter.key,
                "error": letter.error,
                "what to do": letter.hint,
                "attempts": letter.attempts,
                "crashes": letter.crashes,
                "host": letter.host,
            }
            for letter in letters[:_SHOWN]
        ]
    )


class DeadLetters:
    """Reports letters that are new, and partitions that have healed."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def tick(self, instance: DagsterInstance, cursor: str | None = None) -> Tick:
        """One look.

        Args:
            cursor: what the last look returned: for each queue the reported letters and when they
                died.
        """
        reported = _parse(cursor)
        scanner: Scanner | None = None
        sentences: list[str] = []
        for kind, queue in self._workspace.queues.items():
            mine = reported.setdefault(kind.value, {})
            died = queue.dead_since()
            # A letter holds its job and its traceback: only those to be reported are loaded.
            new = [key for key, at in died.items() if mine.get(key) != at][:_PER_TICK]
            gone = [key for key in mine if key not in died][:_PER_TICK]
            # The check's page shows its latest evaluation: each one says what all failed of.
            every = _all(queue.dead_letters(list(died)[:_SHOWN]), len(died)) if new or gone else {}
            letters = queue.dead_letters(new) if new else []
            runs = _fail_partitions(instance, self._workspace, kind, letters)
            for letter in letters:
                run = runs.get(letter.key, {})
                mine[letter.key] = letter.died_at
                if kind is Kind.INGEST:
                    continue  # the failed partition says all: dumps have no checks
                records.report_check(instance, _failed(self._workspace, kind, letter, run | every))
            healed: list[str] = []
            for key in gone:
                if kind is Kind.INGEST:
                    del mine[key]
                    continue
                scanner = scanner or self._workspace.scanner()
                if (why := _healed(scanner, kind, key)) is not None:
                    records.report_check(instance, _passed(self._workspace, kind, key, why, every))
                    del mine[key]
                    healed.append(key)
            _heal_partitions(instance, self._workspace, kind, healed)
            if died or healed:
                shown = ", ".join(list(died)[:5])
                sentences.append(
                    f"{kind.value}: {len(died)} dead letters{f' ({shown})' if shown else ''}, "
                    f"{len(new)} new, {len(healed)} healed."
                )
        return Tick(sentences or ["No dead letters."], json.dumps(reported))


def _parse(cursor: str | None) -> dict[str, dict[str, float]]:
    try:
        found = json.loads(cursor or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _healed(scanner: Scanner, kind: Kind, key: str) -> str | None:
    """Why a partition's earlier dead letter no longer matters; ``None`` while it does."""
    try:
        if kind is Kind.EMBED:
            file = scanner.file(key)
            if file is None:
                return "The chain file is gone."
            return "The output is there." if file.verdict.done else None
        cluster = scanner.subreddit(key).cluster
    except RedditAssetsError:
        return "The dead letter was purged."
    return "The output is there." if cluster is not None and cluster.verdict.done else None


def _asset(workspace: Workspace, kind: Kind, key: str) -> AssetKey:
    partition = partition_of(key)
    if partition is None:
        return key_of_result(kind.asset, "", FLAT)
    return key_of_result(kind.asset, partition, workspace.buckets)


def _fail_partitions(
    instance: DagsterInstance, workspace: Workspace, kind: Kind, letters: list[DeadLetter]
) -> dict[str, dict[str, MetadataValue]]:
    """Has the letters' partitions shown as failed; a link to the run that says so, by key."""
    by_asset: dict[AssetKey, dict[str, DeadLetter]] = {}
    for letter in letters:
        if partition_of(letter.key) is not None:
            by_asset.setdefault(_asset(workspace, kind, letter.key), {})[letter.key] = letter
    links: dict[str, dict[str, MetadataValue]] = {}
    for asset, group in by_asset.items():
        assets = set_of(kind.asset, next(iter(group)), workspace.buckets)
        wanted = not_yet_failed(instance, assets, asset, list(group))
        failures = [
            Failed(key, f"{letter.error} {letter.hint}".strip(), _facts(letter))
            for key, letter in group.items()
            if key in wanted
        ]
        if failures:
            run = MetadataValue.dagster_run(report_failed(instance, asset, failures))
            links |= {failure.partition: {"run": run} for failure in failures}
    return links


def _heal_partitions(
    instance: DagsterInstance, workspace: Workspace, kind: Kind, keys: list[str]
) -> None:
    """Reports outputs that were there all the time: only a new event ends a failure."""
    by_asset: dict[AssetKey, list[str]] = {}
    for key in keys:
        if partition_of(key) is not None:
            by_asset.setdefault(_asset(workspace, kind, key), []).append(key)
    layout = workspace.layout
    path_of = layout.embedding_path if kind is Kind.EMBED else layout.cluster_path
    for asset, group in by_asset.items():
        assets = set_of(kind.asset, group[0], workspace.buckets)
        results = []
        for key in sorted(set(group) - not_yet_failed(instance, assets, asset, group)):
            with suppress(OSError, BadFileError):
                results.append(result_of(read_output(path_of(key)), key, kind.asset))
        make = materializer(instance, layout, workspace.buckets)
        records.report(instance, make.outputs(results))
        report_healed(instance, asset, sorted(group))


def _all(letters: list[DeadLetter], number: int) -> dict[str, MetadataValue]:
    """Every dead letter of a queue, the oldest first."""
    found: dict[str, MetadataValue] = {"dead letters": MetadataValue.int(number)}
    if letters:
        found["all dead letters"] = letters_table(letters)
    return found


def _facts(letter: DeadLetter) -> dict[str, MetadataValue]:
    metadata: dict[str, MetadataValue] = {
        "error": MetadataValue.text(letter.error),
        "what to do": MetadataValue.text(letter.hint or "Look at the traceback."),
        "try again": MetadataValue.job("retry_dead_letters", LOCATION, repository_name=REPOSITORY),
        "or": MetadataValue.text(f"reddit-assets dead retry {shlex.quote(letter.key)}"),
        "host": MetadataValue.text(letter.host),
        "attempts": MetadataValue.int(letter.attempts),
        "crashes": MetadataValue.int(letter.crashes),
        "died": MetadataValue.timestamp(letter.died_at),
    }
    if letter.traceback:
        metadata["traceback"] = MetadataValue.md(fenced(letter.traceback))
    return metadata


def _failed(
    workspace: Workspace, kind: Kind, letter: DeadLetter, more: Mapping[str, MetadataValue]
) -> AssetCheckEvaluation:
    metadata = {"partition": MetadataValue.text(letter.key), **_facts(letter), **more}
    return AssetCheckEvaluation(
        asset_key=_asset(workspace, kind, letter.key),
        check_name=CHECK,
        passed=False,
        severity=AssetCheckSeverity.ERROR,
        description=plain(f"{letter.key}: {letter.error} {letter.hint}"),
        metadata=metadata,
        partition=partition_of(letter.key),
    )


def _passed(
    workspace: Workspace, kind: Kind, key: str, why: str, more: Mapping[str, MetadataValue]
) -> AssetCheckEvaluation:
    return AssetCheckEvaluation(
        asset_key=_asset(workspace, kind, key),
        check_name=CHECK,
        passed=True,
        description=plain(f"{key}: {why}"),
        metadata={"partition": MetadataValue.text(key), **more},
        partition=partition_of(key),
    )
