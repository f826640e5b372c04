"""Outputs on the disk that Dagster does not have: adopted files, and results that got lost."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dagster import DagsterInstance

from reddit_assets.catalog.footer import EmbeddingFooter, OutputFile, read_output
from reddit_assets.catalog.scan import SubredditStatus
from reddit_assets.errors import BadFileError
from reddit_assets.jobqueue.connection import redis_errors
from reddit_assets.jobqueue.job import Result
from reddit_assets.jobqueue.outbox import OutboxEntry
from reddit_assets.orchestration import records
from reddit_assets.orchestration.instance_sink import InstanceSink
from reddit_assets.orchestration.names import AssetSet, set_of
from reddit_assets.orchestration.surroundings import Surroundings

__all__ = ["reconcile", "result_of"]

# An output younger than this is still on its way through acknowledgement and outbox.
_YOUNG_SECONDS = 90.0

# Results reported at a time; a tick's budget is looked at in between.
_BATCH = 500

# Outputs that Dagster was seen to have: key -> stamp. A code server keeps it between ticks.
_KNOWN: dict[str, str] = {}


def result_of(output: OutputFile, key: str, asset: str, chain_stamp: str = "") -> Result:
    """What a worker would have said of an output that is there."""
    footer = output.footer
    metadata: dict[str, object] = {"rows": output.rows, "path": str(output.path)}
    source, job = "", ""
    if footer is None:
        metadata["adopted"] = True
        source = f"stamp-{chain_stamp}" if chain_stamp else ""
    else:
        job = footer.job_id
        metadata |= {"seconds": footer.seconds, **footer.writer}
        if isinstance(footer, EmbeddingFooter):
            source = footer.source.fingerprint
            metadata |= {"tokens": footer.tokens, "model": footer.model.name}
        else:
            metadata |= footer.summary
    return Result(
        job=job or f"on disk {key} {output.data_version}",
        asset=asset,
        partition=key,
        outcome="fresh",
        data_version=output.data_version,
        source_version=source,
        metadata=metadata,
    )


def reconcile(
    around: Surroundings,
    instance: DagsterInstance,
    *,
    after: str | None = None,
    budget_seconds: float | None = None,
    statuses: Iterable[SubredditStatus] | None = None,
) -> tuple[list[str], str | None]:
    """Report fresh outputs whose data version is not the one that Dagster has.

    Waits while results are on their way (outbox, open runs): they will be reported anyway.

    Args:
        after: cluster key behind which to begin.
        budget_seconds: stop after this time.
        statuses: of a scan just made, instead of a new one; every output is looked at then.

    Returns:
        Sentences, and where to go on.
    """
    if (why := _on_their_way(around)) is not None:
        return [why], after
    started = time.monotonic()
    scanned = around.scanner().scan(after) if statuses is None else statuses
    fresh_look = statuses is None
    sink = InstanceSink(instance, around.settings, around.layout, around.shards)
    batch: list[_Found] = []
    reported = seen = 0
    resume: str | None = None
    for status in scanned:
        seen += 1
        batch += _outputs(around, status, use_memory=fresh_look)
        if len(batch) >= _BATCH:
            reported += _report(around, sink, batch)
            batch = []
        if budget_seconds is not None and time.monotonic() - started > budget_seconds:
            resume = status.cluster_key
            break
    reported += _report(around, sink, batch)
    told = [f"{seen} subreddits compared with Dagster, {reported} outputs reported."]
    if resume is not None:
        told.append(f"The next tick goes on after {resume}.")
    return told, resume


def _on_their_way(around: Surroundings) -> str | None:
    for queue in around.queues.values():
        counts = queue.counts()
        if counts.outbox:
            return f"{counts.outbox} results are in the outbox: they are reported first."
        with redis_errors(queue.client):
            for run in queue.client.zrange(f"{queue.prefix}runs", 0, -1):
                if queue.client.xlen(f"{queue.prefix}results:{run}"):
                    return f"Run {run[:8]} is recording results."
    return None


@dataclass(frozen=True, slots=True)
class _Found:
    """An output on the disk; ``stamp`` changes when it must be compared again."""

    result: Result
    stamp: str


def _outputs(
    around: Surroundings, status: SubredditStatus, *, use_memory: bool
) -> Iterator[_Found]:
    """A subreddit's fresh outputs that have not been compared yet."""
    layout = around.layout
    for file in status.files:
        stamp = file.output_stamp or ""
        if file.verdict.done and not (use_memory and _KNOWN.get(file.key) == stamp):
            output = _read(layout.embedding_path(file.key))
            if output is not None:
                yield _Found(result_of(output, file.key, "embeddings", file.stamp), stamp)
    cluster, key = status.cluster, status.cluster_key
    if cluster is None or not cluster.verdict.done:
        return
    if not (use_memory and _KNOWN.get(key) == cluster.stamp):
        output = _read(layout.cluster_path(key))
        if output is not None:
            yield _Found(result_of(output, key, "clusters"), cluster.stamp)


def _read(path: Path) -> OutputFile | None:
    try:
        if path.stat().st_mtime > time.time() - _YOUNG_SECONDS:
            return None
        return read_output(path)
    except (FileNotFoundError, BadFileError):
        return None  # the next scan judges it


def _report(around: Surroundings, sink: InstanceSink, found: list[_Found]) -> int:
    """Report the outputs whose data versions Dagster does not have; their number."""
    by_asset: dict[tuple[AssetSet, str], list[_Found]] = {}
    for item in found:
        assets = set_of(item.result.partition, around.shards)
        by_asset.setdefault((assets, item.result.asset), []).append(item)
    unknown: list[_Found] = []
    for (assets, name), group in by_asset.items():
        key = assets.embeddings if name == "embeddings" else assets.clusters
        known = records.latest_versions(sink.instance, key, [i.result.partition for i in group])
        for item in group:
            if known.get(item.result.partition) == item.result.data_version:
                _KNOWN[item.result.partition] = item.stamp
            else:
                unknown.append(item)
    # A job may have ended meanwhile: what is on its way is not reported twice.
    if not unknown or _on_their_way(around) is not None:
        return 0
    sink.report([OutboxEntry("", item.result, uncertain=False) for item in unknown])
    return len(unknown)
