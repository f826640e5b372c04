"""The corpus at a glance: every hour, and when everything is done, as one cheap event."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress

from dagster import AssetMaterialization, DagsterInstance, MetadataValue

from reddit_assets.figures import Figures, duration
from reddit_assets.ledger.job import Kind
from reddit_assets.platform.bucket_overview import BucketCounts, by_bucket
from reddit_assets.platform.names import CORPUS
from reddit_assets.platform.reporting import records
from reddit_assets.platform.reporting.metadata import three_digits
from reddit_assets.platform.services.tick import Tick
from reddit_assets.workspace import Workspace

__all__ = ["Glance", "glance_metadata"]

HOUR = 3_600.0
UNFINISHED = "unfinished outputs"


class Glance:
    """Materializes ``corpus`` from a quick look, without a run."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def tick(self, instance: DagsterInstance, cursor: str | None = None) -> Tick:
        """Reports the figures if there are none of this hour, or if the work has just ended.

        Between two reports only the queues are asked.
        """
        event = instance.get_latest_materialization_event(CORPUS)
        known = event.asset_materialization if event is not None else None
        age = time.time() - event.timestamp if event is not None else HOUR
        if known is not None and age < HOUR:
            before = known.metadata.get(UNFINISHED)
            ended = before is not None and before.value and self._idle()
            if not ended:
                return Tick([f"Looked at {duration(age)} ago; the next look is hourly."])
        counts = BucketCounts(self._workspace)
        figures = Figures.of(self._workspace, counts.watch(self._workspace.scanner().scan()))
        if known is not None and age < HOUR and not figures.done:
            return Tick(["The last of the work is still to be queued."])
        metadata = glance_metadata(self._workspace, figures) | by_bucket(instance, counts)
        records.report(instance, [AssetMaterialization(CORPUS, metadata=metadata)])
        return Tick([f"{figures.line()}."])

    def _idle(self) -> bool:
        return all(queue.counts().idle for queue in self._workspace.queues.values())


def glance_metadata(workspace: Workspace, figures: Figures) -> dict[str, MetadataValue]:
    """The figures as numbers that Dagster plots over time."""
    assert figures.trees is not None
    outputs = figures.trees.outputs
    files, clusters = outputs[Kind.EMBED], outputs[Kind.CLUSTER]
    waited = time.time() - figures.trees.oldest if figures.trees.oldest is not None else 0.0
    numbers: dict[str, float | None] = {
        "files": files.total,
        "embedded": files.done,
        "subreddits": clusters.total,
        "clustered": clusters.done,
        UNFINISHED: files.left + clusters.left,
        "missing": files.missing + files.settling,
        "stale": files.stale,
        "failed": files.failed + clusters.failed,
        "rows/s": _rows_per_second(figures),
        "hours left": _hours(figures.seconds_left()),
        "oldest unprocessed file, hours": max(0.0, waited) / HOUR,
        "chain files, GB": files.bytes / 1e9,
        "free disk, GB": _free(workspace),
        "workers": len(figures.workers),
    }
    return {
        name: MetadataValue.int(value)
        if isinstance(value, int)
        else MetadataValue.float(float(three_digits(value)))
        for name, value in numbers.items()
        if value is not None
    }


def _rows_per_second(figures: Figures) -> float | None:
    queue = figures.queues.get(Kind.EMBED)
    return None if queue is None else queue.pace.per_second("rows")


def _hours(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / HOUR


def _free(workspace: Workspace) -> float | None:
    with suppress(OSError):
        return shutil.disk_usage(workspace.layout.embeddings).free / 1e9
    return None
