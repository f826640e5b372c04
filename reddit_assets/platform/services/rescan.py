"""The nightly rescan: looks at every file, opens what changed and a share of all outputs, finds
what is wrong, queues what must be made again.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from dagster import DagsterInstance

from reddit_assets.corpus.oserrors import vanished
from reddit_assets.corpus.scan import Reason, SubredditStatus, Verdict
from reddit_assets.ledger.planner import ScanReport, queue_wanted
from reddit_assets.platform.names import asset_sets
from reddit_assets.platform.reporting.inputs import report_inputs
from reddit_assets.platform.services.discover import Discover, add_partitions, ignored
from reddit_assets.platform.services.leftovers import Say, abandoned, orphans, remove, shown
from reddit_assets.platform.services.looks import job_counts, look_sentences
from reddit_assets.platform.services.reconcile import Reconcile
from reddit_assets.workspace import Workspace

__all__ = ["Rescan", "Rescanned"]


@dataclass
class Rescanned:
    """What the rescan found and did.

    Attributes:
        report: verdicts and jobs.
        statuses: of every subreddit.
        corrupt: outputs that are not whole files, by key, with the reason.
        orphans: embedding files and clusters whose chain files have vanished.
        temporary: temporary files, also those in use.
        removed: orphans and temporary files deleted.
        forgotten: partition keys deleted, since their files have vanished.
        checks: what the checks said that looked at a sample, as sentences.
    """

    report: ScanReport
    statuses: list[SubredditStatus]
    corrupt: dict[str, str] = field(default_factory=dict)
    orphans: list[Path] = field(default_factory=list)
    temporary: list[Path] = field(default_factory=list)
    removed: list[Path] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)


class Rescan:
    """Looks at everything.

    Args:
        discover, reconcile: do their parts of it.

    Attributes:
        latest: what the last look found.
    """

    def __init__(self, workspace: Workspace, discover: Discover, reconcile: Reconcile) -> None:
        self._workspace = workspace
        self._discover = discover
        self._reconcile = reconcile
        self.latest: Rescanned | None = None

    def run(self, instance: DagsterInstance, say: Say) -> Rescanned:
        """One look.

        Args:
            say: takes sentences for the run's log.

        Raises:
            SettingsError: there is no folder of chain files.
            QueueUnavailableError: Redis cannot be reached.
        """
        workspace = self._workspace
        workspace.require_defined()
        report_inputs(instance, workspace.settings, workspace.layout)
        scanner = workspace.scanner(whole=True)
        began = time.monotonic()
        nights = workspace.settings.nights
        read = scanner.read_in_full(1 / nights)
        for sentence in look_sentences(scanner, workspace):
            say(sentence)
        say(
            f"Every file was looked at. The outputs of {read} subreddits were read in full in "
            f"{time.monotonic() - began:.1f} s: what changed, and a share of the rest, so that all "
            f"are read within {nights} nights (REDDIT_NIGHTS)."
        )
        statuses: list[SubredditStatus] = []
        report = queue_wanted(scanner, workspace.queues, observe=statuses)
        found = Rescanned(report, statuses, corrupt=_corrupt(statuses))
        found.temporary = scanner.temporary() + [p for s in statuses for p in s.temporary]
        _say_report(report, say)
        self._clean(found, say)
        self._partitions(instance, found, say)
        for sentence in self._reconcile.compare(instance, statuses):
            say(sentence)
        self.latest = found
        return found

    def _clean(self, found: Rescanned, say: Say) -> None:
        layout = self._workspace.layout
        found.orphans = orphans(layout, found.statuses)
        if not any(status.files for status in found.statuses):
            say("No chain file was found: nothing is deleted. Is the storage mounted?")
            return
        if found.orphans and self._workspace.settings.remove_orphans:
            found.removed += remove(layout, found.orphans, say)
        elif found.orphans:
            say(
                f"{len(found.orphans)} orphans (their chain files have vanished) are kept, since "
                f"REDDIT_REMOVE_ORPHANS is off: {shown(found.orphans)}"
            )
        if found.temporary:
            old = abandoned(found.temporary)
            say(f"{len(found.temporary)} temporary files, {len(old)} of them abandoned.")
            found.removed += remove(layout, old, say)

    def _partitions(self, instance: DagsterInstance, found: Rescanned, say: Say) -> None:
        added, _ = add_partitions(instance, found.statuses, self._workspace.buckets)
        files = [file for status in found.statuses for file in status.files]
        changed = self._discover.report_changed(instance, files, by_time=False)
        say(f"{added} partitions added, {changed} changed chain files reported.")
        if not files:
            return
        found.forgotten = self._forget(instance, found.statuses)
        if found.forgotten:
            keys = ", ".join(found.forgotten[:20])
            say(f"{len(found.forgotten)} partitions of vanished files deleted: {keys}.")

    def _forget(self, instance: DagsterInstance, statuses: list[SubredditStatus]) -> list[str]:
        """Delete the partition keys of files and subreddits that have vanished.

        Looks at the disk again: subreddits that the filter leaves out were not scanned.
        """
        layout = self._workspace.layout
        files = {file.key for status in statuses for file in status.files}
        full = {status.cluster_key for status in statuses if status.files}
        empty = {status.cluster_key for status in statuses if status.gone}

        def file_gone(key: str) -> bool:
            return key not in files and vanished(layout.chain_path(key), layout.chains)

        def subreddit_gone(key: str) -> bool:
            return key not in full and (
                key in empty or vanished(layout.chains / key, layout.chains)
            )

        forgotten: list[str] = []
        for assets in asset_sets(self._workspace.buckets):
            for name, gone in (
                (assets.files.name or "", file_gone),
                (assets.subreddits.name or "", subreddit_gone),
            ):
                for key in filter(gone, instance.get_dynamic_partitions(name)):
                    instance.delete_dynamic_partition(name, key)
                    forgotten.append(key)
        return forgotten


def _corrupt(statuses: list[SubredditStatus]) -> dict[str, str]:
    found: dict[str, str] = {}
    for status in statuses:
        for file in status.files:
            if file.reason is Reason.DAMAGED:
                found[file.key] = file.detail
        if status.cluster is not None and status.cluster.reason is Reason.DAMAGED:
            found[status.cluster_key] = status.cluster.detail
    return found


def _say_report(report: ScanReport, say: Say) -> None:
    say(f"{report.subreddits} subreddits scanned in {report.seconds:.1f} s.")
    say(f"Embedding files: {_counted(report.files)}. Clusters: {_counted(report.clusters)}.")
    for kind, jobs in report.jobs.items():
        if sentence := job_counts(jobs):
            say(f"{kind.value}: {sentence}")
    for key, reason in list(report.reasons.items())[:100]:
        say(f"{key}: {reason}.")
    for problem in report.problems[:100]:
        say(problem)
    if sentence := ignored(report):
        say(sentence)


def _counted(verdicts: Counter[Verdict]) -> str:
    return ", ".join(f"{verdicts[v]} {v.value}" for v in Verdict if verdicts[v]) or "none"
