"""From the disk to partitions and jobs: new files become partitions, missing and stale embeddings
become jobs, changed chain files are reported.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

from dagster import AssetMaterialization, DagsterInstance

from reddit_assets.corpus.buckets import Buckets
from reddit_assets.corpus.fingerprints import Stamp, content_fingerprint
from reddit_assets.corpus.oserrors import open_file
from reddit_assets.corpus.scan import FileStatus, SubredditStatus, Verdict
from reddit_assets.errors import BadFileError, printable
from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.planner import ScanReport
from reddit_assets.platform.choice import outgrowing
from reddit_assets.platform.names import AssetSet, set_of
from reddit_assets.platform.reporting import records
from reddit_assets.platform.reporting.events import chains_event
from reddit_assets.platform.reporting.inputs import report_inputs
from reddit_assets.platform.services.looks import job_counts, look
from reddit_assets.platform.services.tick import Cursor, Tick
from reddit_assets.workspace import Workspace

__all__ = ["Discover", "add_partitions", "ignored"]

# Keys per call: old SQLite builds refuse more than about 30,000 variables.
_KEYS = 5_000
# Keys that are gathered before they are added: with many buckets, each gets a few of them.
_GATHERED = 20_000


class Discover:
    """Finds new and changed chain files."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        # Changed chain files that were looked at already.
        self._read: dict[str, Stamp] = {}

    def tick(self, instance: DagsterInstance, cursor: str | None = None) -> Tick:
        """One look.

        Args:
            cursor: what the last look returned.
        """
        workspace = self._workspace
        inputs = report_inputs(instance, workspace.settings, workspace.layout)
        stale: list[FileStatus] = []
        begin = Cursor.parse(cursor)

        def note_stale(status: SubredditStatus) -> None:
            stale.extend(file for file in status.files if file.verdict is Verdict.STALE)

        scanner, report, said, following = look(workspace, Kind.EMBED, begin, each=note_stale)
        place = begin.told.begun(workspace, scanner)
        new = scanner.changed(place.since, place.after)
        budget = workspace.settings.tick_seconds / 4
        added, after = add_partitions(instance, new, workspace.buckets, budget)
        following = replace(following, told=place.moved(after))
        changed = self.report_changed(instance, stale)
        settling = report.files[Verdict.SETTLING]
        sentences = [
            _found(report, begin),
            outgrowing(sum(report.files.values()), workspace.buckets),
            f"{added} partitions added." if added else "",
            f"The next tick adds those after {after}." if after is not None else "",
            f"{changed} changed chain files reported." if changed else "",
            f"New: {', '.join(inputs)}." if inputs else "",
            job_counts(report.jobs[Kind.EMBED]),
            f"{settling} skipped: just written, still settling." if settling else "",
            *said,
            _problems(report),
            ignored(report),
        ]
        return Tick(sentences, following.text())

    def report_changed(
        self, instance: DagsterInstance, files: Iterable[FileStatus], *, by_time: bool = True
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
        buckets = self._workspace.buckets
        for file in files:
            looked_at = by_time and self._read.get(file.key) == file.stamp
            if file.verdict is Verdict.STALE and not looked_at:
                stale.setdefault(set_of("chains", file.key, buckets), []).append(file)
        deadline = time.monotonic() + self._workspace.settings.tick_seconds / 4
        events: list[AssetMaterialization] = []
        for assets, group in stale.items():
            keys = [file.key for file in group]
            known = records.latest_versions(instance, assets.chains, keys)
            times = records.latest_times(instance, assets.chains, keys) if by_time else {}
            for file in group:
                if time.monotonic() > deadline:
                    break  # the next tick reads the rest
                if file.key in known and times.get(file.key, 0.0) <= file.stamp.changed_at:
                    events += self._changed(assets, file, known[file.key])
                self._read[file.key] = file.stamp
        records.report(instance, events)
        return len(events)

    def _changed(
        self, assets: AssetSet, file: FileStatus, known: str
    ) -> Iterable[AssetMaterialization]:
        try:
            with open_file(self._workspace.layout.chain_path(file.key)) as chain:
                fingerprint = content_fingerprint(chain.fileno())
        except (OSError, BadFileError):
            return  # gone or unreadable: its job will say why
        if fingerprint != known:
            facts = {"seen_by": "discovery", "reason": file.sentence}
            yield chains_event(assets, file.key, fingerprint, facts)


def add_partitions(
    instance: DagsterInstance,
    seen: Iterable[SubredditStatus],
    buckets: Buckets,
    budget: float | None = None,
) -> tuple[int, str | None]:
    """Add the keys of new files and subreddits, in path order.

    Runs take contiguous ranges in the order of insertion, so keys are added in path order, and no
    key is deleted and added again while its file is there.

    Args:
        budget: seconds to stop after.

    Returns:
        The number of new file keys, and the subreddit after which to go on; ``None`` at the end.
    """
    started, added, gathered = time.monotonic(), 0, 0
    files: dict[str, list[str]] = {}
    subreddits: dict[str, list[str]] = {}
    for status in seen:
        if not status.files:
            continue
        assets = set_of("clusters", status.cluster_key, buckets)
        subreddits.setdefault(assets.subreddits.name or "", []).append(status.cluster_key)
        files.setdefault(assets.files.name or "", []).extend(file.key for file in status.files)
        gathered += len(status.files)
        if gathered >= _GATHERED:
            _add(instance, subreddits)
            added += _add(instance, files)
            gathered = 0
            if budget is not None and time.monotonic() - started > budget:
                return added, status.cluster_key
    _add(instance, subreddits)
    return added + _add(instance, files), None


def _add(instance: DagsterInstance, waiting: dict[str, list[str]]) -> int:
    """Add the keys that wait, by the name of their partitions; how many of them are new."""
    added = 0
    for name, keys in waiting.items():
        for start in range(0, len(keys), _KEYS):
            chunk = keys[start : start + _KEYS]
            known = records.partitions_among(instance, name, chunk)
            new = [key for key in chunk if key not in known]
            instance.add_dynamic_partitions(name, new)
            added += len(new)
    waiting.clear()
    return added


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


def ignored(report: ScanReport) -> str:
    """What was passed by, and files of hardly any text, as sentences; nothing if there is none."""
    said = []
    if report.ignored:
        counts = (
            f"{count} {why} ({printable(report.ignored_examples[why])})"
            for why, count in sorted(report.ignored.items())
        )
        said.append(f"Ignored: {', '.join(counts)}.")
    if report.mostly_empty:
        said.append(
            f"{len(report.mostly_empty)} files have more empty texts than others, such as "
            f"{report.mostly_empty[0]}: is the text in another column (REDDIT_TEXT_COLUMNS)?"
        )
    return " ".join(said)


def _problems(report: ScanReport) -> str:
    if not report.problems:
        return ""
    shown = " ".join(report.problems[:3])
    more = len(report.problems) - 3
    return f"Not partitions: {shown}" + (f" … and {more} more." if more > 0 else "")
