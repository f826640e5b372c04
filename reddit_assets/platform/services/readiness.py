"""Subreddits whose files all have fresh embeddings become cluster jobs."""

from __future__ import annotations

import time

from dagster import DagsterInstance

from reddit_assets.corpus.scan import ClusterStatus, Reason, Verdict
from reddit_assets.ledger.job import Kind
from reddit_assets.platform.names import SETTINGS
from reddit_assets.platform.reporting.inputs import report_inputs
from reddit_assets.platform.services.looks import job_counts, look
from reddit_assets.platform.services.tick import Cursor, Tick
from reddit_assets.workspace import Workspace

__all__ = ["Readiness"]

# A worker with other clustering settings makes clusters that are stale at once, and would get each
# of them again and again: a cluster that such a worker has just made rests for this time.
_HOLD_SECONDS = 600.0


class Readiness:
    """Queues clusters."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def tick(self, instance: DagsterInstance, cursor: str | None = None) -> Tick:
        """One look; as :meth:`Discover.tick`."""
        workspace = self._workspace
        report_inputs(instance, workspace.settings, workspace.layout)
        event = instance.get_latest_materialization_event(SETTINGS)
        wanted_since = event.timestamp if event is not None else float("inf")
        held: list[str] = []

        def hold(key: str, cluster: ClusterStatus) -> bool:
            if cluster.reason is Reason.OTHER_SETTINGS and self._just_made(key, wanted_since):
                held.append(key)
                return True
            return False

        begin = Cursor.parse(cursor)
        _, report, said, following = look(workspace, Kind.CLUSTER, begin, hold=hold)
        counts = report.clusters
        sentences = [
            f"{report.subreddits} subreddits: {counts[Verdict.FRESH]} clustered, "
            f"{counts[Verdict.ADOPTED]} adopted, "
            f"{counts[Verdict.MISSING] + counts[Verdict.STALE]} ready to be clustered, "
            f"{counts[Verdict.WAITING]} wait for embeddings.",
            job_counts(report.jobs[Kind.CLUSTER]),
            _held(held),
            f"The next tick goes on after {report.resume_after}." if report.resume_after else "",
            *said,
        ]
        return Tick(sentences, following.text())

    def _just_made(self, key: str, wanted_since: float) -> bool:
        try:
            made_at = self._workspace.layout.cluster_path(key).stat().st_mtime
        except FileNotFoundError:
            return False
        return made_at > wanted_since and time.time() - made_at < _HOLD_SECONDS


def _held(keys: list[str]) -> str:
    if not keys:
        return ""
    more = ", …" if len(keys) > 3 else ""
    return (
        f"{len(keys)} skipped ({', '.join(keys[:3])}{more}): a worker has just made them with "
        "other clustering settings than this host's; give it the same settings."
    )
