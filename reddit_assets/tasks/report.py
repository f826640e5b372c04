"""The clusters of a subreddit for a terminal or a program, read from its ``clusters.table``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reddit_assets.corpus.cluster_table import find_table
from reddit_assets.corpus.layout import CLUSTERED_NAME
from reddit_assets.corpus.provenance import PROVENANCE_KEY
from reddit_assets.engines.clustering.meaning import excerpt
from reddit_assets.errors import BadFileError, first_line

__all__ = ["clusters_report", "render", "table_row"]


def clusters_report(path: Path) -> dict[str, Any]:
    """What ``clusters.table`` says, as plain values that JSON can hold.

    Args:
        path: of a ``clusters.table``, or of the folder that holds it.

    Returns:
        ``key``, ``rows``, ``summary`` (how it was clustered, changes), ``topics`` and
        ``themes`` (id, name, clusters, size; a topic its theme) and ``clusters`` (one dict per
        cluster), all largest first.

    Raises:
        BadFileError: there is none, or it is not ours.
    """
    file = find_table(path) if path.is_dir() else path
    try:
        table = pq.read_table(file)
        facts = json.loads((table.schema.metadata or {})[PROVENANCE_KEY])
        rows = table.drop_columns(["centroid"]).to_pylist()
        # Tables of earlier versions have no topics.
        names, key = {"topic": facts.get("topics", {}), "theme": facts["themes"]}, facts["key"]
        total, summary = facts["rows"], facts["summary"]
    except FileNotFoundError:
        if (file.parent / CLUSTERED_NAME).is_file():
            raise BadFileError(
                f"{file.parent} was clustered by the earlier system, which has no table of "
                "clusters.",
                hint=f"`reddit-assets cluster --subreddit {file.parent.name}` clusters it with "
                "ours, which makes the table and keeps the ids.",
            ) from None
        raise BadFileError(
            f"There is no {file}.", hint="Cluster the subreddit first: `reddit-assets cluster`."
        ) from None
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise BadFileError(
            f"{file} is not a table of clusters of ours: {first_line(error)}.",
            hint="Delete the folder's clustered.parquet; the next scan makes all of it again.",
        ) from None
    clusters = []
    for row in rows:
        for name in ("first_date", "last_date"):
            row[name] = row[name].date().isoformat() if row[name] else None
        clusters.append(row)
    clusters.sort(key=lambda row: (-row["size"], row["cluster_id"]))
    return {
        "key": key,
        "rows": total,
        "summary": summary,
        "topics": _groups(clusters, "topic", names["topic"]),
        "themes": _groups(clusters, "theme", names["theme"]),
        "clusters": clusters,
    }


def _groups(
    clusters: list[dict[str, Any]], level: str, names: dict[str, str]
) -> list[dict[str, Any]]:
    """Topics or themes with what is in them, largest first."""
    found: dict[int, dict[str, Any]] = {}
    for row in clusters if names else []:
        number = row[f"{level}_id"]
        start = {
            f"{level}_id": number,
            "name": names.get(str(number), ""),
            "clusters": 0,
            "size": 0,
        }
        group = found.setdefault(number, start)
        if level == "topic":
            group["theme_id"] = row["theme_id"]
        group["clusters"] += 1
        group["size"] += row["size"]
    return sorted(found.values(), key=lambda group: -group["size"])


def _headline(report: dict[str, Any]) -> Text:
    summary = report["summary"]
    line = Text(report["key"], style="bold")
    line.append(
        f"  {report['rows']:,} posts, {len(report['clusters'])} clusters in "
        f"{len(report['topics'])} topics and {len(report['themes'])} themes, "
        f"{summary.get('noise_share', 0):.0%} in none",
        style="not bold",
    )
    if summary.get("assigned_share"):
        line.append(f"; {summary['assigned_share']:.0%} assigned from a sample")
    # "churn" in tables of earlier versions.
    changes = summary.get("changes") or summary.get("churn") or {}
    if changes.get("moved_share") is not None:
        line.append(
            f"\nsince the last time: {changes['continued']} continued, {changes['born']} born, "
            f"{changes['split']} split off, {changes['merged']} merged, {changes['died']} died, "
            f"{changes['moved_share']:.1%} of the posts moved",
            style="dim",
        )
    return line


def render(report: dict[str, Any], limit: int | None = None) -> RenderableType:
    """A report for a terminal: a table per theme, its clusters largest first.

    Args:
        report: of :func:`clusters_report`.
        limit: the largest clusters that are shown; ``None`` shows all.
    """
    parts: list[RenderableType] = [_headline(report)]
    shown = report["clusters"][:limit]  # the largest come first
    for theme in report["themes"]:
        rows = [row for row in shown if row["theme_id"] == theme["theme_id"]]
        if not rows:
            continue
        table = Table(
            title=Text(f"{theme['name']} ({theme['size']:,} posts)"),
            title_justify="left",
            title_style="bold cyan",
            box=None,
            pad_edge=False,
            expand=True,
        )
        table.add_column("id", justify="right", style="dim", no_wrap=True)
        table.add_column("posts", justify="right", no_wrap=True)
        table.add_column("name", ratio=2, style="bold")
        table.add_column("keywords", ratio=2, style="dim")
        table.add_column("most typical post", ratio=3, style="italic")
        table.add_column("score", justify="right", no_wrap=True)
        table.add_column("from, to", no_wrap=True, style="dim")
        for row in rows:
            texts = row["representative_texts"]
            score = row["score_median"]
            dates = ", ".join(date[:7] for date in (row["first_date"], row["last_date"]) if date)
            table.add_row(
                str(row["cluster_id"]),
                f"{row['size']:,}",
                Text(row["name"]),
                Text(", ".join(row["keywords"][:6])),
                Text(excerpt(texts[0], 110) if texts else ""),
                "" if score is None else f"{score:,.0f}",
                dates,
            )
        parts += [Text(""), table]
    if len(shown) < len(report["clusters"]):
        more = len(report["clusters"]) - len(shown)
        parts += [Text(""), Text(f"and {more} smaller clusters", style="dim")]
    if not report["clusters"]:
        parts.append(Text("No clusters: too few posts, or none alike.", style="dim"))
    return Group(*parts)


def table_row(
    row: dict[str, Any], topics: dict[int, str], themes: dict[int, str]
) -> dict[str, Any]:
    """A cluster as a row for Dagster: plain values only.

    Args:
        row: of ``clusters.table``.
        topics, themes: their names.
    """
    texts = row["representative_texts"]
    return {
        "cluster_id": row["cluster_id"],
        "name": row["name"],
        "size": row["size"],
        "topic": topics.get(row["topic_id"], ""),
        "theme": themes.get(row["theme_id"], ""),
        "keywords": ", ".join(row["keywords"][:8]),
        "representative": excerpt(texts[0], 140) if texts else "",
        "median_score": row["score_median"],
        "first": row["first_date"].date().isoformat() if row["first_date"] else "",
        "last": row["last_date"].date().isoformat() if row["last_date"] else "",
        "fate": row["fate"],
    }
