"""Whether disk, queues and Dagster agree, and making them: what ``reconcile`` shows and mends."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from dagster import DagsterInstance

from reddit_assets.corpus.oserrors import vanished
from reddit_assets.corpus.provenance import read_output
from reddit_assets.corpus.scan import Scanner, SubredditStatus
from reddit_assets.errors import BadFileError
from reddit_assets.ledger.job import WORK, Kind
from reddit_assets.ledger.mending import Difference, mend_queue
from reddit_assets.ledger.planner import queue_wanted
from reddit_assets.ledger.waiters import unreported
from reddit_assets.platform.names import AssetSet, asset_sets, set_of
from reddit_assets.platform.reporting import records
from reddit_assets.platform.reporting.drain import Reporter
from reddit_assets.platform.reporting.instance import InstanceSink
from reddit_assets.platform.resources import Platform
from reddit_assets.platform.services.discover import add_partitions
from reddit_assets.workspace import Workspace

__all__ = ["with_dagster", "with_queues"]

_DAGSTER = "dagster"
# An output younger than this is still on its way through acknowledgement and outbox.
_YOUNG_SECONDS = 90.0


def with_queues(
    workspace: Workspace, statuses: list[SubredditStatus], *, dry_run: bool
) -> Iterator[Difference]:
    """Within the queues, and between them and the disk.

    Args:
        statuses: every subreddit's is appended, for the comparison with Dagster.
        dry_run: only look.
    """
    settings = workspace.settings
    for kind, queue in workspace.queues.items():
        if kind not in WORK:
            continue  # no other program takes those jobs
        scanner = workspace.scanner()
        yield from mend_queue(
            queue,
            lambda key, kind=kind, scanner=scanner: _unwanted(scanner, kind, key),  # type: ignore[misc]
            dry_run=dry_run,
            lost_seconds=settings.foreign_lost_seconds,
            retry_seconds=settings.retry_seconds,
        )
    wanted = queue_wanted(workspace.scanner(), workspace.queues, dry_run=dry_run, observe=statuses)
    for kind, queued in wanted.jobs.items():
        if queued.queued:
            keys = _keys_wanted(statuses, kind)
            shown = tuple(keys) if len(keys) == queued.queued else ("",) * queued.queued
            said = "outputs that are missing or stale and were not queued"
            yield Difference(kind.value, said, "queued", shown)


def _keys_wanted(statuses: Iterable[SubredditStatus], kind: Kind) -> list[str]:
    if kind is Kind.EMBED:
        return [file.key for status in statuses for file in status.files if file.verdict.wanted]
    return [s.cluster_key for s in statuses if s.cluster and s.cluster.verdict.wanted]


def _unwanted(scanner: Scanner, kind: Kind, key: str) -> bool:
    layout = scanner.layout
    if kind is Kind.EMBED:
        file = scanner.file(key)
        if file is None:
            return vanished(layout.chain_path(key), layout.chains)
        return file.verdict.done
    cluster = scanner.subreddit(key).cluster
    if cluster is None:
        return vanished(layout.chains / key, layout.chains)
    return cluster.verdict.done


def with_dagster(
    workspace: Workspace,
    instance: DagsterInstance,
    statuses: list[SubredditStatus],
    *,
    dry_run: bool,
) -> Iterator[Difference]:
    """Between the disk, the outboxes and Dagster.

    Args:
        statuses: of every subreddit.
    """
    waiting = sum(queue.counts().outbox for queue in workspace.queues.values())
    if waiting:
        yield Difference(_DAGSTER, "results in the outbox", "reported", ("",) * waiting)
        if not dry_run:
            sink = InstanceSink(workspace, instance)
            Reporter(list(workspace.queues.values()), sink, until_empty=True).run()
    yield from _partitions(workspace, instance, statuses, dry_run=dry_run)
    if unknown := sorted(_unknown(workspace, instance, statuses)):
        said = "outputs whose versions Dagster does not have"
        yield Difference(_DAGSTER, said, "reported", tuple(unknown))
        if not dry_run:
            Platform(workspace).reconcile.compare(instance, statuses)


def _partitions(
    workspace: Workspace,
    instance: DagsterInstance,
    statuses: list[SubredditStatus],
    *,
    dry_run: bool,
) -> Iterator[Difference]:
    layout, new, gone = workspace.layout, [], []
    files = {file.key for status in statuses for file in status.files}
    full = {status.cluster_key for status in statuses if status.files}
    known: set[str] = set()
    for assets in asset_sets(workspace.buckets):
        for definition, there, folder in (
            (assets.files, files, None),
            (assets.subreddits, full, layout.chains),
        ):
            name = definition.name or ""
            keys = set(instance.get_dynamic_partitions(name))
            known |= keys
            for key in sorted(keys - there) if files else ():
                path = layout.chain_path(key) if folder is None else folder / key
                if vanished(path, layout.chains):
                    gone.append(key)
                    if not dry_run:
                        instance.delete_dynamic_partition(name, key)
    new = sorted((files | full) - known)
    if new:
        yield Difference(_DAGSTER, "files and subreddits without a partition", "added", tuple(new))
        if not dry_run:
            add_partitions(instance, statuses, workspace.buckets)
    if gone:
        yield Difference(_DAGSTER, "partitions of vanished files", "deleted", tuple(gone))


def _unknown(
    workspace: Workspace, instance: DagsterInstance, statuses: Iterable[SubredditStatus]
) -> Iterator[str]:
    """Keys of fresh outputs that Dagster has not, and that are not on their way."""
    layout, young = workspace.layout, time.time() - _YOUNG_SECONDS
    groups: dict[tuple[AssetSet, Kind], list[str]] = {}
    buckets = workspace.buckets
    for status in statuses:
        for file in status.files:
            if file.verdict.done and file.output_stamp and file.output_stamp.changed_at < young:
                assets = set_of("embeddings", file.key, buckets)
                groups.setdefault((assets, Kind.EMBED), []).append(file.key)
        if status.files and status.cluster is not None and status.cluster.verdict.done:
            key = status.cluster_key
            groups.setdefault((set_of("clusters", key, buckets), Kind.CLUSTER), []).append(key)
    moving = {kind: unreported(queue, {}) for kind, queue in workspace.queues.items()}
    for (assets, kind), keys in groups.items():
        embed = kind is Kind.EMBED
        asset = assets.embeddings if embed else assets.clusters
        versions: Mapping[str, str] = records.latest_versions(instance, asset, keys)
        for key in keys:
            path = layout.embedding_path(key) if embed else layout.cluster_path(key)
            try:
                if path.stat().st_mtime >= young or key in moving.get(kind, ()):
                    continue
                if read_output(path).data_version != versions.get(key):
                    yield key
            except (OSError, BadFileError):
                continue  # the next scan judges it
