"""Outputs on the disk that Dagster does not have: adopted files, and results that got lost."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dagster import DagsterInstance

from reddit_assets.corpus.fingerprints import Stamp
from reddit_assets.corpus.provenance import EmbeddingProvenance, OutputFile, read_output
from reddit_assets.corpus.scan import SubredditStatus
from reddit_assets.errors import BadFileError
from reddit_assets.ledger.connection import redis_errors
from reddit_assets.ledger.job import Result
from reddit_assets.ledger.outbox import OutboxEntry
from reddit_assets.platform.names import AssetSet, set_of
from reddit_assets.platform.reporting import records
from reddit_assets.platform.reporting.instance import InstanceSink
from reddit_assets.workspace import Workspace

__all__ = ["reconcile", "result_of"]

# An output younger than this is still on its way through acknowledgement and outbox.
_YOUNG_SECONDS = 90.0

# Results reported at a time; a tick's budget is looked at in between.
_BATCH = 500

# Outputs that Dagster was seen to have: key -> stamp. Lost with the code server.
_KNOWN: dict[str, Stamp] = {}


def result_of(output: OutputFile, key: str, asset: str, chain_stamp: str = "") -> Result:
    """What a worker would have said of an output that is there."""
    provenance = output.provenance
    metadata: dict[str, object] = {"rows": output.rows, "path": str(output.path)}
    source, job = "", ""
    if provenance is None:
        metadata["adopted"] = True
        source = f"stamp-{chain_stamp}" if chain_stamp else ""
    else:
        job = provenance.job_id
        metadata |= {"seconds": provenance.seconds, **provenance.writer}
        if isinstance(provenance, EmbeddingProvenance):
            source = provenance.source.fingerprint
            metadata |= {"tokens": provenance.tokens, "model": provenance.model.name}
        else:
            metadata |= provenance.summary
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
    workspace: Workspace,
    instance: DagsterInstance,
    *,
    after: str | None = None,
    budget_seconds: float | None = None,
    statuses: Iterable[SubredditStatus] | None = None,
) -> tuple[list[str], str | None]:
    """Report fresh outputs whose data version is not the one that Dagster has.

    A quick look (no ``statuses``) opens only outputs that are younger than Dagster's latest event
    of their partition; with the statuses of a deep scan every output is compared. Waits while
    results are on their way (outbox, open runs): they will be reported anyway.

    Args:
        after: cluster key behind which to begin.
        budget_seconds: stop after this time.

    Returns:
        Sentences, and where to go on.
    """
    if (why := _on_their_way(workspace)) is not None:
        return [why], after
    started = time.monotonic()
    quick = statuses is None
    sink = InstanceSink(workspace, instance)
    batch: list[_Output] = []
    reported = seen = 0
    resume: str | None = None
    for status in workspace.scanner().scan(after) if statuses is None else statuses:
        seen += 1
        batch += _outputs(workspace, status)
        if len(batch) >= _BATCH:
            reported += _compare(workspace, sink, batch, quick=quick)
            batch = []
        if budget_seconds is not None and time.monotonic() - started > budget_seconds:
            resume = status.cluster_key
            break
    reported += _compare(workspace, sink, batch, quick=quick)
    told = [f"{seen} subreddits compared with Dagster, {reported} outputs reported."]
    if resume is not None:
        told.append(f"The next tick goes on after {resume}.")
    return told, resume


def _on_their_way(workspace: Workspace) -> str | None:
    for queue in workspace.queues.values():
        counts = queue.counts()
        if counts.outbox:
            return f"{counts.outbox} results are in the outbox: they are reported first."
        with redis_errors(queue.client):
            for run in queue.client.zrange(f"{queue.prefix}runs", 0, -1):
                if queue.client.xlen(f"{queue.prefix}results:{run}"):
                    return f"Run {run[:8]} is recording results."
    return None


@dataclass(frozen=True, slots=True)
class _Output:
    """A fresh output on the disk; ``stamp`` is its size and time of change."""

    asset: str
    key: str
    path: Path
    stamp: Stamp
    chain_stamp: str = ""


def _outputs(workspace: Workspace, status: SubredditStatus) -> Iterator[_Output]:
    """A subreddit's fresh outputs but the youngest."""
    horizon = time.time() - _YOUNG_SECONDS
    outputs = [
        _Output(
            "embeddings",
            f.key,
            workspace.layout.embedding_path(f.key),
            f.output_stamp,
            str(f.stamp),
        )
        for f in status.files
        if f.verdict.done and f.output_stamp
    ]
    if status.cluster is not None and status.cluster.verdict.done:
        path = workspace.layout.cluster_path(status.cluster_key)
        with suppress(FileNotFoundError):
            outputs.append(_Output("clusters", status.cluster_key, path, Stamp.of(path.stat())))
    yield from (output for output in outputs if output.stamp.changed_at < horizon)


def _compare(workspace: Workspace, sink: InstanceSink, batch: list[_Output], *, quick: bool) -> int:
    """Report the outputs whose data versions Dagster does not have; their number."""
    by_asset: dict[tuple[AssetSet, str], list[_Output]] = {}
    for output in batch:
        if not (quick and _KNOWN.get(output.key) == output.stamp):
            assets = set_of(output.key, workspace.shards)
            by_asset.setdefault((assets, output.asset), []).append(output)
    unknown: list[tuple[_Output, Result]] = []
    for (assets, name), group in by_asset.items():
        key = assets.embeddings if name == "embeddings" else assets.clusters
        keys = [output.key for output in group]
        known = records.latest_versions(sink.instance, key, keys)
        times = records.latest_times(sink.instance, key, keys) if quick else {}
        for output in group:
            if times.get(output.key, 0.0) > output.stamp.changed_at:
                _KNOWN[output.key] = output.stamp
                continue
            try:
                found = read_output(output.path)
            except (FileNotFoundError, BadFileError):
                continue  # the next scan judges it
            if known.get(output.key) == found.data_version:
                _KNOWN[output.key] = output.stamp
            else:
                unknown.append((output, result_of(found, output.key, name, output.chain_stamp)))
    # A job may have ended meanwhile: what is on its way is not reported twice.
    if not unknown or _on_their_way(workspace) is not None:
        return 0
    refused = sink.report(
        [OutboxEntry(f"{r.asset} {r.partition}", r, uncertain=False) for _, r in unknown]
    )
    return len(unknown) - len(refused)
