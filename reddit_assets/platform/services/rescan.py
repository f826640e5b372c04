"""The nightly rescan: opens every footer, finds what is wrong, queues what must be made again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dagster import DagsterInstance

from reddit_assets.corpus.layout import CLUSTERED_NAME
from reddit_assets.corpus.scan import Reason, SubredditStatus, Verdict
from reddit_assets.errors import BadFileError
from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.planner import ScanReport, queue_wanted
from reddit_assets.platform.names import asset_sets
from reddit_assets.platform.reporting.inputs import report_inputs
from reddit_assets.platform.services.discover import (
    add_partitions,
    report_changed_chains,
    told_jobs,
)
from reddit_assets.platform.services.reconcile import reconcile
from reddit_assets.workspace import Workspace

__all__ = ["Rescan", "rescan"]

# A temporary file that nobody has touched for so long belongs to nobody.
_TEMPORARY_SECONDS = 86_400.0

Tell = Callable[[str], None]


@dataclass
class Rescan:
    """What the rescan found and did.

    Attributes:
        report: verdicts and jobs.
        statuses: of every subreddit.
        corrupt: outputs that are not whole files, by key, with the reason.
        orphans: embedding files and clusters whose chain files have vanished.
        removed: orphans and temporary files deleted.
        forgotten: partition keys deleted, since their files have vanished.
    """

    report: ScanReport
    statuses: list[SubredditStatus]
    corrupt: dict[str, str] = field(default_factory=dict)
    orphans: list[Path] = field(default_factory=list)
    temporary: list[Path] = field(default_factory=list)
    removed: list[Path] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)


def rescan(
    workspace: Workspace, instance: DagsterInstance, tell: Tell, keep: Tell = lambda _: None
) -> Rescan:
    """Look at everything.

    Args:
        tell: takes sentences for the run's log.
        keep: called now and then, for whoever must show that the run lives.

    Raises:
        SettingsError: there is no folder of chain files.
        QueueUnavailableError: Redis cannot be reached.
    """
    report_inputs(instance, workspace.settings, workspace.layout)
    statuses: list[SubredditStatus] = []
    scanner = workspace.scanner(deep=True)
    report = queue_wanted(scanner, workspace.queues, observe=statuses)
    found = Rescan(report, statuses, temporary=scanner.temporary())
    files, clusters = report.files, report.clusters
    tell(f"{report.subreddits} subreddits scanned in {report.seconds:.1f} s.")
    tell(f"Embedding files: {_counted(files)}. Clusters: {_counted(clusters)}.")
    for kind, jobs in ((Kind.EMBED, report.embed), (Kind.CLUSTER, report.cluster)):
        if told := told_jobs(jobs):
            tell(f"{kind.value}: {told}")
    for key, reason in list(report.reasons.items())[:100]:
        tell(f"{key}: {reason}.")
    for problem in report.problems[:100]:
        tell(problem)
    keep("")
    _find_corrupt(workspace, found)
    _orphans(workspace, found, tell)
    _temporary(found, tell)
    added = add_partitions(instance, statuses, workspace.shards)
    files_seen = [file for status in statuses for file in status.files]
    changed = report_changed_chains(workspace, instance, files_seen, by_time=False)
    tell(f"{added} partitions added, {changed} changed chain files reported.")
    keep("")
    _forget(workspace, instance, found, tell)
    told_reconciled, _ = reconcile(workspace, instance, statuses=statuses)
    for sentence in told_reconciled:
        tell(sentence)
    return found


def _counted(verdicts: Counter[Verdict]) -> str:
    return ", ".join(f"{verdicts[v]} {v.value}" for v in Verdict if verdicts[v]) or "none"


def _find_corrupt(workspace: Workspace, found: Rescan) -> None:
    from reddit_assets.corpus.provenance import read_output

    for status in found.statuses:
        for file in status.files:
            if file.reason is Reason.DAMAGED:
                found.corrupt[file.key] = file.detail
        path = workspace.layout.cluster_path(status.cluster_key)
        cluster = status.cluster
        if cluster is not None and cluster.verdict is Verdict.STALE:
            try:
                read_output(path)
            except FileNotFoundError:
                continue
            except BadFileError as error:
                found.corrupt[status.cluster_key] = error.message


def _orphans(workspace: Workspace, found: Rescan, tell: Tell) -> None:
    for status in found.statuses:
        found.orphans += [workspace.layout.embedding_path(key) for key in status.orphans]
        folder = workspace.layout.cluster_dir(status.cluster_key)
        if not status.files and (folder / CLUSTERED_NAME).is_file():
            found.orphans += sorted(path for path in folder.iterdir() if path.is_file())
    if not found.orphans:
        return
    if not workspace.settings.remove_orphans:
        tell(
            f"{len(found.orphans)} orphans (their chain files have vanished) are kept, since "
            "REDDIT_REMOVE_ORPHANS is off: " + _shown(found.orphans)
        )
        return
    _remove(found.orphans, found, tell)


def _temporary(found: Rescan, tell: Tell) -> None:
    found.temporary += [path for status in found.statuses for path in status.temporary]
    if not found.temporary:
        return
    horizon = time.time() - _TEMPORARY_SECONDS
    old = [path for path in found.temporary if _mtime(path) < horizon]
    tell(f"{len(found.temporary)} temporary files, {len(old)} of them abandoned.")
    _remove(old, found, tell)


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _remove(paths: Iterable[Path], found: Rescan, tell: Tell) -> None:
    removed = []
    for path in paths:
        try:
            path.unlink()
            removed.append(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            tell(f"{path} cannot be removed: {error.strerror}.")
    found.removed += removed
    if removed:
        tell(f"{len(removed)} files removed: {_shown(removed)}")


def _shown(paths: list[Path]) -> str:
    text = ", ".join(str(path) for path in paths[:20])
    return f"{text}, … and {len(paths) - 20} more." if len(paths) > 20 else f"{text}."


def _forget(workspace: Workspace, instance: DagsterInstance, found: Rescan, tell: Tell) -> None:
    """Delete the partition keys of files that have vanished.

    Looks at the disk again: subreddits that the filter leaves out were not scanned.
    """
    if not any(status.files for status in found.statuses):
        tell("No chain file was found: no partition is deleted. Is the storage mounted?")
        return
    layout = workspace.layout
    seen = {file.key for status in found.statuses for file in status.files}
    with_files = {status.cluster_key for status in found.statuses if status.files}
    for assets in asset_sets(workspace.settings.shards):
        name = assets.files.name or ""
        for key in instance.get_dynamic_partitions(name):
            if key not in seen and not layout.chain_path(key).exists():
                instance.delete_dynamic_partition(name, key)
                found.forgotten.append(key)
        name = assets.subreddits.name or ""
        for key in instance.get_dynamic_partitions(name):
            if key not in with_files and not (layout.chains / key).is_dir():
                instance.delete_dynamic_partition(name, key)
                found.forgotten.append(key)
            elif key not in with_files and key in {s.cluster_key for s in found.statuses}:
                # The folder is there, but empty.
                instance.delete_dynamic_partition(name, key)
                found.forgotten.append(key)
    if found.forgotten:
        shown = ", ".join(found.forgotten[:20])
        tell(f"{len(found.forgotten)} partitions of vanished files deleted: {shown}.")
