"""The corpus at a glance: every hour, and when everything is done, as one cheap event."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

from dagster import AssetMaterialization, DagsterInstance, MetadataValue

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.news import corpus_news
from reddit_assets.corpus.scan import SubredditStatus
from reddit_assets.figures import Figures, duration
from reddit_assets.ledger.job import Kind
from reddit_assets.platform.bucket_overview import BucketCounts, by_bucket
from reddit_assets.platform.names import CORPUS
from reddit_assets.platform.reporting import records
from reddit_assets.platform.reporting.events import table
from reddit_assets.platform.reporting.metadata import NEWS, three_digits
from reddit_assets.platform.services.tick import Tick
from reddit_assets.workspace import Workspace

__all__ = ["Glance", "glance_metadata", "news_metadata"]

HOUR = 3_600.0
UNFINISHED = "unfinished outputs"
# Pieces of news of each kind on the page, and how long tables are opened for them.
_NEWS_EACH, _NEWS_SECONDS = 10, 15.0


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
        keys: list[str] = []
        statuses = _noting(self._workspace.scanner().scan(), keys)
        figures = Figures.of(self._workspace, counts.watch(statuses))
        if known is not None and age < HOUR and not figures.done:
            return Tick(["The last of the work is still to be queued."])
        metadata = {
            **glance_metadata(self._workspace, figures),
            **news_metadata(self._workspace.layout, keys),
            **by_bucket(instance, counts),
        }
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
    metadata: dict[str, MetadataValue] = {
        name: MetadataValue.int(value)
        if isinstance(value, int)
        else MetadataValue.float(float(three_digits(value)))
        for name, value in numbers.items()
        if value is not None
    }
    address = workspace.settings.maps_url
    link = workspace.layout.corpus_map_link(address)
    if link is not None:
        metadata["map"] = MetadataValue.url(link) if address else MetadataValue.path(link)
    return metadata


def _noting(statuses: Iterable[SubredditStatus], keys: list[str]) -> Iterator[SubredditStatus]:
    """The statuses as they come, their keys noted: a corpus' statuses are not held."""
    for status in statuses:
        keys.append(status.cluster_key)
        yield status


def news_metadata(layout: Layout, keys: Iterable[str]) -> dict[str, MetadataValue]:
    """What is new in the clusters of the last day, the largest of each kind; or nothing.

    Args:
        keys: cluster keys.
    """
    news = corpus_news(layout, keys, time.time() - 24 * HOUR, seconds=_NEWS_SECONDS)
    counts = news.counts()
    if not counts:
        return {}
    said = ", ".join(f"{count:,} {what}" for what, count in counts.items())
    said = f"{said}, in {len(news.found):,} subreddits"
    if news.unread:
        said += f"; {news.unread:,} more were clustered: `reddit-assets news` reads them"
    rows = [{"subreddit": key, **event.row()} for key, event in news.largest(_NEWS_EACH)]
    for row in rows:
        del row["cluster_id"]  # the page's table is narrow
    return {f"{NEWS} of a day": MetadataValue.text(said), NEWS: table(rows)}


def _rows_per_second(figures: Figures) -> float | None:
    queue = figures.queues.get(Kind.EMBED)
    return None if queue is None else queue.pace.per_second("rows")


def _hours(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / HOUR


def _free(workspace: Workspace) -> float | None:
    with suppress(OSError):
        return shutil.disk_usage(workspace.layout.embeddings).free / 1e9
    return None
