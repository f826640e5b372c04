"""From the disk to partitions and jobs: what the discovery and readiness sensors do in a tick."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from dagster import DagsterInstance

from reddit_assets.corpus.fingerprints import Stamp, content_fingerprint
from reddit_assets.corpus.scan import FileStatus, SubredditStatus, Verdict
from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.planner import ScanReport, Sweep, queue_wanted, sweep
from reddit_assets.ledger.queue import Enqueued
from reddit_assets.platform.names import SETTINGS, AssetSet, set_of
from reddit_assets.platform.reporting import records
from reddit_assets.platform.reporting.events import chains_event
from reddit_assets.platform.reporting.inputs import report_inputs
from reddit_assets.platform.services.holding import HoldingScanner
from reddit_assets.workspace import Workspace

__all__ = [
    "Cursor",
    "add_partitions",
    "discover",
    "make_ready",
    "report_changed_chains",
    "told_jobs",
]

# Keys per call: old SQLite builds refuse more than about 30,000 variables.
_KEYS = 5_000

_SWEEP_SECONDS = 180.0

# Changed chain files that were looked at already: key -> stamp. Lost with the code server.
_READ: dict[str, Stamp] = {}


@dataclass
class Cursor:
    """Where a sensor goes on.

    Attributes:
        after: cluster key behind which the next tick begins; ``None``: at the beginning.
        swept: when plain consumers' losses were last looked for.
    """

    after: str | None = None
    swept: float = 0.0

    @classmethod
    def parse(cls, text: str | None) -> Cursor:
        """From a sensor's cursor; an unreadable one counts as none."""
        try:
            record = json.loads(text or "{}")
            return cls(record.get("after"), float(record.get("swept", 0.0)))
        except (ValueError, TypeError, AttributeError):
            return cls()

    def text(self) -> str:
        """As a sensor's cursor."""
        return json.dumps({"after": self.after, "swept": self.swept})


def discover(
    workspace: Workspace, instance: DagsterInstance, cursor: Cursor, now: float | None = None
) -> tuple[list[str], Cursor]:
    """One look: new files become partitions, missing and stale embeddings become jobs.

    Returns:
        Sentences for the tick, and where to go on.
    """
    now = time.time() if now is None else now
    inputs = report_inputs(instance, workspace.settings, workspace.layout)
    scanner = workspace.scanner()
    seen: list[SubredditStatus] = []
    report = queue_wanted(
        scanner,
        workspace.queues,
        kinds=(Kind.EMBED,),
        after=cursor.after,
        budget_seconds=workspace.settings.tick_seconds / 2,
        observe=seen,
    )
    added = add_partitions(instance, seen, workspace.shards)
    changed = report_changed_chains(
        workspace, instance, [file for status in seen for file in status.files]
    )
    following = Cursor(report.resume_after, cursor.swept)
    swept: Sweep | None = None
    if now - cursor.swept > _SWEEP_SECONDS and report.resume_after is None:
        swept = sweep(
            scanner,
            workspace.queues[Kind.EMBED],
            lost_seconds=workspace.settings.foreign_lost_seconds,
        )
        following.swept = now
    told = [
        _found(report, cursor),
        f"{added} partitions added." if added else "",
        f"{changed} changed chain files reported." if changed else "",
        f"New: {', '.join(inputs)}." if inputs else "",
        told_jobs(report.embed),
        _waiting(report),
        _swept(swept),
        _problems(report),
    ]
    return [part for part in told if part], following


def make_ready(
    workspace: Workspace, instance: DagsterInstance, cursor: Cursor
) -> tuple[list[str], Cursor]:
    """One look: subreddits whose files all have fresh embeddings become cluster jobs."""
    now = time.time()
    report_inputs(instance, workspace.settings, workspace.layout)
    scanner = HoldingScanner(workspace.scanner(), _wanted_since(instance))
    report = queue_wanted(
        scanner,
        workspace.queues,
        kinds=(Kind.CLUSTER,),
        after=cursor.after,
        budget_seconds=workspace.settings.tick_seconds / 2,
    )
    following = Cursor(report.resume_after, cursor.swept)
    swept: Sweep | None = None
    if now - cursor.swept > _SWEEP_SECONDS and report.resume_after is None:
        swept = sweep(
            scanner,
            workspace.queues[Kind.CLUSTER],
            lost_seconds=workspace.settings.foreign_lost_seconds,
        )
        following.swept = now
    counts = report.clusters
    told = [
        f"{report.subreddits} subreddits: {counts[Verdict.FRESH]} clustered, "
        f"{counts[Verdict.ADOPTED]} adopted, "
        f"{counts[Verdict.MISSING] + counts[Verdict.STALE]} ready to be clustered, "
        f"{counts[Verdict.WAITING]} wait for embeddings.",
        told_jobs(report.cluster),
        scanner.told(),
        f"The next tick goes on after {report.resume_after}." if report.resume_after else "",
        _swept(swept),
    ]
    return [part for part in told if part], following


def _wanted_since(instance: DagsterInstance) -> float:
    """Since when the clustering settings are as they are."""
    event = instance.get_latest_materialization_event(SETTINGS)
    return event.timestamp if event is not None else float("inf")


def told_jobs(jobs: Enqueued) -> str:
    """What became of jobs, as a sentence; nothing if there were none."""
    parts = [
        (jobs.queued, "queued"),
        (jobs.anew, "queued again after the one in work"),
        (jobs.superseded, "replaced an older copy"),
        (jobs.already, "skipped: queued or in work already"),
        (jobs.blocked, "skipped: dead letters (retry them, or change the file)"),
    ]
    told = ", ".join(f"{number} {what}" for number, what in parts if number)
    return f"Jobs: {told}." if told else ""


def add_partitions(
    instance: DagsterInstance, seen: Iterable[SubredditStatus], shards: Collection[str]
) -> int:
    """Add the keys of new files and subreddits, in path order; the number of new file keys.

    Runs take contiguous ranges in the order of insertion, hence path order, and hence no key is
    ever deleted and added again while its file is there.
    """
    files: dict[AssetSet, list[str]] = {}
    subreddits: dict[AssetSet, list[str]] = {}
    for status in seen:
        if not status.files:
            continue
        subreddits.setdefault(set_of(status.cluster_key, shards), []).append(status.cluster_key)
        for file in status.files:
            files.setdefault(set_of(file.key, shards), []).append(file.key)
    added = 0
    for assets, keys in files.items():
        added += _add(instance, assets.files.name or "", keys)
    for assets, keys in subreddits.items():
        _add(instance, assets.subreddits.name or "", keys)
    return added


def _add(instance: DagsterInstance, name: str, keys: Sequence[str]) -> int:
    known = set(instance.get_dynamic_partitions(name))
    new = [key for key in keys if key not in known]
    for start in range(0, len(new), _KEYS):
        instance.add_dynamic_partitions(name, new[start : start + _KEYS])
    return len(new)


def report_changed_chains(
    workspace: Workspace,
    instance: DagsterInstance,
    files: Iterable[FileStatus],
    *,
    by_time: bool = True,
) -> int:
    """Let Dagster know changed chain files at once, so that their embeddings show as stale.

    A file counts as changed when its embedding is there, but stale, and its content is another
    one than Dagster knows. Each is read once per change.

    Args:
        by_time: trust times of change; a deep scan does not.

    Returns:
        The number of files whose new content was reported.
    """
    stale: dict[AssetSet, list[FileStatus]] = {}
    for file in files:
        if file.verdict is Verdict.STALE and not (by_time and _READ.get(file.key) == file.stamp):
            stale.setdefault(set_of(file.key, workspace.shards), []).append(file)
    events = []
    deadline = time.monotonic() + workspace.settings.tick_seconds / 4
    for assets, group in stale.items():
        keys = [file.key for file in group]
        known = records.latest_versions(instance, assets.chains, keys)
        times = records.latest_times(instance, assets.chains, keys) if by_time else {}
        for file in group:
            if time.monotonic() > deadline:
                break  # the next tick reads the rest
            reported = times.get(file.key, 0.0) > file.stamp.changed_at
            if file.key in known and not reported:
                try:
                    with open(workspace.layout.chain_path(file.key), "rb") as chain:
                        fingerprint = content_fingerprint(chain.fileno())
                except OSError:
                    continue  # gone or unreadable: its job will say why
                if fingerprint != known[file.key]:
                    facts = {"seen_by": "discovery", "reason": file.sentence}
                    events.append(chains_event(assets, file.key, fingerprint, facts))
            _READ[file.key] = file.stamp
    records.report(instance, events)
    return len(events)


def _found(report: ScanReport, cursor: Cursor) -> str:
    files = report.files
    text = (
        f"{sum(files.values())} files in {report.subreddits} subreddits: "
        f"{files[Verdict.FRESH]} fresh, {files[Verdict.ADOPTED]} adopted, "
        f"{files[Verdict.MISSING]} missing, {files[Verdict.STALE]} stale."
    )
    if cursor.after is not None:
        text = f"From {cursor.after} on: {text}"
    if report.resume_after is not None:
        text += f" The next tick goes on after {report.resume_after}."
    return text


def _waiting(report: ScanReport) -> str:
    settling = report.files[Verdict.SETTLING]
    return f"{settling} skipped: just written, still settling." if settling else ""


def _swept(swept: Sweep | None) -> str:
    if swept is None or not (swept.closed or swept.repushed):
        return ""
    return (
        f"Plain consumers: {len(swept.closed)} jobs done, {len(swept.repushed)} lost and "
        "pushed again."
    )


def _problems(report: ScanReport) -> str:
    if not report.problems:
        return ""
    shown = " ".join(report.problems[:3])
    more = len(report.problems) - 3
    return f"Not partitions: {shown}" + (f" … and {more} more." if more > 0 else "")
