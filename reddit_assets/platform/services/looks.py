"""What discovery and readiness have in common: a scan within a budget, jobs, and now and then a
sweep of what plain consumers took.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from reddit_assets.corpus.scan import ClusterStatus, Scanner, SubredditStatus
from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.planner import ScanReport, queue_wanted, sweep
from reddit_assets.ledger.queue import Enqueued
from reddit_assets.platform.services.tick import Cursor
from reddit_assets.workspace import Workspace

__all__ = ["job_counts", "look", "look_sentences"]

_SWEEP_SECONDS = 180.0
# A sweep reads every queued job: 15 s for a million. Long queues are swept more seldom.
_SWEPT_PER_SECOND, _LONGEST_PAUSE = 500, 1800.0
# A look that takes longer is shared by the sensors of one interval.
_QUICK_SECONDS = 1.0


def look(
    workspace: Workspace,
    kind: Kind,
    cursor: Cursor,
    *,
    each: Callable[[SubredditStatus], object] | None = None,
    hold: Callable[[str, ClusterStatus], bool] | None = None,
) -> tuple[Scanner, ScanReport, list[str], Cursor]:
    """Scan from the cursor on for half of a tick's time and queue one kind of jobs.

    Where a look takes long, the sensors share one.

    Args:
        each, hold: as of :func:`~reddit_assets.ledger.planner.queue_wanted`.

    Returns:
        The scanner, the report, sentences about plain consumers and the look, and where to go on.
    """
    settings = workspace.settings
    budget = settings.tick_seconds / 2
    slow = workspace.snapshot.look_seconds > _QUICK_SECONDS
    scanner = workspace.scanner(
        budget_seconds=budget, max_age=settings.discovery_seconds * 0.8 if slow else 0.0
    )
    scanner.look()
    report = queue_wanted(
        scanner,
        workspace.queues,
        kinds=(kind,),
        after=cursor.after,
        budget_seconds=budget,
        each=each,
        hold=hold,
    )
    now, said = time.time(), look_sentences(scanner, workspace)
    queue = workspace.queues[kind]
    pause = max(_SWEEP_SECONDS, min(_LONGEST_PAUSE, queue.counts().queued / _SWEPT_PER_SECOND))
    if report.resume_after is not None or now - cursor.swept <= pause:
        return scanner, report, said, replace(cursor, after=report.resume_after)
    swept = sweep(scanner, queue, lost_seconds=settings.foreign_lost_seconds)
    if swept.closed or swept.repushed:
        said.append(
            f"Plain consumers: {len(swept.closed)} jobs done, {len(swept.repushed)} lost and "
            "pushed again."
        )
    return scanner, report, said, replace(cursor, after=None, swept=now)


def look_sentences(scanner: Scanner, workspace: Workspace) -> list[str]:
    """How the last look looked, where it did not look at everything."""
    looked, said = scanner.looked, [workspace.snapshot.notice]
    if looked is not None and looked.left:
        said.append(
            f"{looked.listed:,} subreddits were looked at, {looked.left:,} more are left to the "
            "next ticks."
        )
    elif looked is not None and looked.busy:
        said.append("Another process looks at the trees just now: this is what was known before.")
    elif looked is not None and looked.reused:
        said.append("As of the look of another sensor a moment ago.")
    elif looked is not None and not looked.whole:
        said.append(
            f"{looked.listed:,} of {looked.subreddits:,} subreddits were listed, the others' "
            "folders have not changed."
        )
    return [sentence for sentence in said if sentence]


def job_counts(jobs: Enqueued) -> str:
    """What became of jobs, as a sentence; nothing if there were none."""
    parts = [
        (jobs.queued, "queued"),
        (jobs.again, "queued again after the one in work"),
        (jobs.superseded, "replaced an older copy"),
        (jobs.already, "skipped: queued or in work already"),
        (jobs.blocked, "skipped: dead letters (retry them, or change the file)"),
    ]
    text = ", ".join(f"{number} {what}" for number, what in parts if number)
    return f"Jobs: {text}." if text else ""
