"""What discovery and readiness have in common: a scan within a budget, jobs, and now and then a
sweep of what plain consumers took.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from reddit_assets.corpus.scan import ClusterStatus, SubredditStatus
from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.planner import ScanReport, queue_wanted, sweep
from reddit_assets.ledger.queue import Enqueued
from reddit_assets.platform.services.tick import Cursor
from reddit_assets.workspace import Workspace

__all__ = ["job_counts", "look"]

_SWEEP_SECONDS = 180.0


def look(
    workspace: Workspace,
    kind: Kind,
    cursor: Cursor,
    *,
    observe: list[SubredditStatus] | None = None,
    hold: Callable[[str, ClusterStatus], bool] | None = None,
) -> tuple[ScanReport, str, Cursor]:
    """Scan from the cursor on for half of a tick's time and queue one kind of jobs.

    Args:
        observe, hold: as of :func:`~reddit_assets.ledger.planner.queue_wanted`.

    Returns:
        The report, a sentence about plain consumers (empty if there is nothing to say), and where
        to go on.
    """
    settings = workspace.settings
    scanner = workspace.scanner()
    report = queue_wanted(
        scanner,
        workspace.queues,
        kinds=(kind,),
        after=cursor.after,
        budget_seconds=settings.tick_seconds / 2,
        observe=observe,
        hold=hold,
    )
    now = time.time()
    if report.resume_after is not None or now - cursor.swept <= _SWEEP_SECONDS:
        return report, "", Cursor(report.resume_after, cursor.swept)
    swept = sweep(scanner, workspace.queues[kind], lost_seconds=settings.foreign_lost_seconds)
    said = ""
    if swept.closed or swept.repushed:
        said = (
            f"Plain consumers: {len(swept.closed)} jobs done, {len(swept.repushed)} lost and "
            "pushed again."
        )
    return report, said, Cursor(None, now)


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
