"""The ``corpus`` asset's metadata: how much there is, how much is done, and how fast it goes."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import polars as pl
from dagster import DagsterInstance, MetadataValue

from reddit_assets.corpus.keys import shard_of
from reddit_assets.corpus.provenance import ClusterProvenance, OutputFile, read_output
from reddit_assets.corpus.scan import SubredditStatus, Verdict
from reddit_assets.errors import BadFileError
from reddit_assets.figures import Figures
from reddit_assets.ledger.job import Kind
from reddit_assets.platform.names import CORPUS
from reddit_assets.platform.reporting.events import table
from reddit_assets.platform.services.glance import glance_metadata, news_metadata
from reddit_assets.platform.services.rescan import Rescanned
from reddit_assets.workspace import Workspace

__all__ = ["corpus_metadata", "oldest_unprocessed"]

# Hourly materializations between two nightlies, and some.
_GLANCES = 50
# One row per subreddit; summed, one per shard.
_SUMS = (
    "subreddits",
    "clustered",
    "files",
    "embedded",
    "adopted",
    "stale",
    "missing",
    "rows",
    "chain_bytes",
    "embedding_bytes",
    "cluster_bytes",
)
_SCHEMA = {
    "shard": pl.String,
    "subreddit": pl.String,
    **dict.fromkeys(_SUMS, pl.Int64),
    "noise_share": pl.Float64,
    "clusters": pl.Int64,
    "clustered_rows": pl.Int64,
}


def corpus_metadata(
    workspace: Workspace, instance: DagsterInstance, found: Rescanned
) -> dict[str, MetadataValue]:
    """The glance, counts per shard, rows, disk use, throughput since the last time, and a plot."""
    subreddits = pl.DataFrame([_row(workspace, status) for status in found.statuses], _SCHEMA)
    shards = subreddits.group_by("shard").agg(pl.col(_SUMS).sum()).sort("shard")
    total = shards.select(pl.col(_SUMS).sum()).row(0, named=True)
    report = found.report
    totals = _totals(workspace)
    disk = sum(total[name] for name in _SUMS if name.endswith("_bytes")) / 1e9
    metadata: dict[str, MetadataValue] = {
        **glance_metadata(workspace, Figures.of(workspace, found.statuses)),
        "progress": MetadataValue.md(_plot(shards)),
        **news_metadata(workspace.layout, [status.cluster_key for status in found.statuses]),
        "per shard": table(_shown(shards).head(300).to_dicts()),
        "rows embedded": MetadataValue.int(total["rows"]),
        "corrupt": MetadataValue.int(len(found.corrupt)),
        "orphans": MetadataValue.int(len(found.orphans)),
        "temporary files": MetadataValue.int(len(found.temporary)),
        "partitions deleted": MetadataValue.int(len(found.forgotten)),
        **{
            f"{kind.value} jobs queued": MetadataValue.int(jobs.queued)
            for kind, jobs in report.jobs.items()
        },
        "disk, GB": MetadataValue.float(round(disk, 3)),
        "scan, seconds": MetadataValue.float(round(report.seconds, 2)),
        **{name: MetadataValue.int(value) for name, value in totals.items()},
    }
    if (since := _throughput(instance, totals)) is not None:
        metadata["since the last nightly"] = table([since])
    noisy = subreddits.drop_nulls("noise_share").sort("noise_share", descending=True).head(20)
    if len(noisy):
        worst = noisy.select("subreddit", "noise_share", "clusters", rows="clustered_rows")
        metadata["worst subreddits"] = table(worst.to_dicts())
    if found.corrupt:
        rows = [{"partition": k, "what": v} for k, v in list(found.corrupt.items())[:100]]
        metadata["corrupt outputs"] = table(rows)
    if found.orphans:
        metadata["orphans, paths"] = table([{"path": str(p)} for p in found.orphans[:100]])
    if found.temporary:
        metadata["temporary, paths"] = table([{"path": str(p)} for p in found.temporary[:100]])
    if report.reasons:
        rows = [{"partition": k, "why": v} for k, v in list(report.reasons.items())[:100]]
        metadata["stale, why"] = table(rows)
    return metadata


def oldest_unprocessed(statuses: Sequence[SubredditStatus], now: float | None = None) -> float:
    """Age in seconds of the oldest chain file without a fresh embedding; 0 if there is none."""
    now = time.time() if now is None else now
    ages = [
        now - file.stamp.changed_at
        for status in statuses
        for file in status.files
        if not file.verdict.done
    ]
    return max(0.0, *ages) if ages else 0.0


def _row(workspace: Workspace, status: SubredditStatus) -> dict[str, Any]:
    files = status.files
    made = [_read(workspace.layout.embedding_path(f.key)) for f in files if f.verdict.done]
    row: dict[str, Any] = {
        "shard": shard_of(status.cluster_key) or "(no shard)",
        "subreddit": status.cluster_key,
        "subreddits": int(bool(files)),
        "files": len(files),
        "embedded": len(made),
        "adopted": sum(f.verdict is Verdict.ADOPTED for f in files),
        "stale": sum(f.verdict is Verdict.STALE for f in files),
        "missing": sum(f.verdict in (Verdict.MISSING, Verdict.SETTLING) for f in files),
        "rows": sum(output.rows for output in made if output is not None),
        "chain_bytes": sum(f.stamp.size for f in files),
        "embedding_bytes": sum(f.output_stamp.size for f in files if f.output_stamp),
        "clustered": 0,
        "cluster_bytes": 0,
    }
    if status.cluster is None or not status.cluster.verdict.done:
        return row
    row["clustered"] = 1
    output = _read(workspace.layout.cluster_path(status.cluster_key))
    if output is None:
        return row
    row["cluster_bytes"] = output.stamp.size
    provenance = output.provenance
    if isinstance(provenance, ClusterProvenance) and "noise_share" in provenance.summary:
        row["noise_share"] = float(provenance.summary["noise_share"])
        row["clusters"] = int(provenance.summary.get("clusters", 0))
        row["clustered_rows"] = output.rows
    return row


def _read(path: Any) -> OutputFile | None:
    try:
        return read_output(path)
    except (OSError, BadFileError):
        return None


def _shown(shards: pl.DataFrame) -> pl.DataFrame:
    size = pl.sum_horizontal(pl.col("^.*_bytes$"))
    return shards.with_columns(disk_mb=(size / 1e6).round(1)).drop("^.*_bytes$")


def _totals(workspace: Workspace) -> dict[str, int]:
    """What was done since the queues were made."""
    embed, cluster = (workspace.queues[kind].counts().totals for kind in (Kind.EMBED, Kind.CLUSTER))
    return {
        "files embedded so far": embed.get("done", 0),
        "rows embedded so far": embed.get("rows", 0),
        "subreddits clustered so far": cluster.get("done", 0),
        "failures so far": embed.get("failed", 0) + cluster.get("failed", 0),
    }


def _throughput(instance: DagsterInstance, totals: Mapping[str, int]) -> dict[str, Any] | None:
    """What was done since the last nightly."""
    records = instance.fetch_materializations(CORPUS, limit=_GLANCES).records
    for record in records:
        event = record.asset_materialization
        before = event.metadata if event is not None else {}
        if not totals.keys() <= before.keys():
            continue  # one of the hourly glances
        hours = (time.time() - record.timestamp) / 3600
        more = {
            name.removesuffix(" so far"): max(0, now - int(str(before[name].value)))
            for name, now in totals.items()
        }
        return {"hours": round(hours, 2), **more}
    return None


# Also those who see no red or no green tell these apart.
_COLOURS = {"embedded": "#0072b2", "stale": "#e69f00", "missing": "#d55e00"}


def _plot(shards: pl.DataFrame) -> str:
    """Stacked bars, files per shard (the 40 largest), as an inline picture."""
    largest = shards.sort("files", descending=True).head(40).to_dicts()
    most = max((shard["files"] for shard in largest), default=1) or 1
    width, bar, left = 640, 18, 110
    height = bar * len(largest) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">'
        f'<rect width="{width}" height="{height}" fill="white"/>'
    ]
    x = left
    for name, colour in _COLOURS.items():
        parts.append(f'<rect x="{x}" y="6" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 17}" y="16">{name}</text>')
        x += 100
    for line, shard in enumerate(largest):
        y = 28 + line * bar
        name, done = escape(shard["shard"]), f"{shard['embedded']}/{shard['files']}"
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{name}</text>')
        x = left
        for field_name, colour in _COLOURS.items():
            number = shard[field_name]
            length = (width - left - 70) * number / most
            if number:
                parts.append(
                    f'<rect x="{x:.1f}" y="{y + 2}" width="{max(length, 1):.1f}" '
                    f'height="{bar - 4}" fill="{colour}"/>'
                )
            x += length
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 13}" fill="#555">{done}</text>')
    parts.append("</svg>")
    picture = base64.b64encode("".join(parts).encode()).decode()
    return f"![files per shard](data:image/svg+xml;base64,{picture})"
