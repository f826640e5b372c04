"""What each cluster is about: one row per cluster, for ``clusters.parquet`` and for people."""

from __future__ import annotations

import html
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from reddit_assets.engines.clustering.clusterer import Clustering
from reddit_assets.engines.clustering.identity import Changes
from reddit_assets.engines.clustering.keywords import class_keywords, cluster_name
from reddit_assets.engines.clustering.representatives import representatives
from reddit_assets.tasks.inputs import Inputs

__all__ = ["SCHEMA_FIELDS", "cluster_rows", "excerpt", "theme_names"]

#: Texts per cluster and in all that keywords are counted on: the most probable members.
KEYWORD_TEXTS, KEYWORD_TOTAL = 500, 100_000
#: Characters of a representative post that are kept.
EXCERPT = 300
SCORE_COLUMNS = ("ups", "score")
DATE_COLUMNS = ("created_utc", "created")
TITLE_COLUMNS = ("title",)
ID_COLUMNS = ("id", "name", "permalink")

SCHEMA_FIELDS = [
    pa.field("cluster_id", pa.int32()),
    pa.field("theme_id", pa.int32()),
    pa.field("name", pa.string()),
    pa.field("size", pa.int64()),
    pa.field("share", pa.float64()),
    pa.field("keywords", pa.list_(pa.string())),
    pa.field("keyword_weights", pa.list_(pa.float64())),
    pa.field("representative_ids", pa.list_(pa.string())),
    pa.field("representative_texts", pa.list_(pa.string())),
    pa.field("score_median", pa.float64()),
    pa.field("score_mean", pa.float64()),
    pa.field("score_max", pa.float64()),
    pa.field("first_date", pa.timestamp("s", tz="UTC")),
    pa.field("last_date", pa.timestamp("s", tz="UTC")),
    pa.field("probability_mean", pa.float64()),
    pa.field("x", pa.float32()),
    pa.field("y", pa.float32()),
    pa.field("fate", pa.string()),
    pa.field("parents", pa.list_(pa.int32())),
]


def excerpt(text: str, limit: int = EXCERPT) -> str:
    """A text on one line, entities resolved, cut at a word with an ellipsis."""
    line = " ".join(html.unescape(text).split())
    if len(line) <= limit:
        return line
    cut = line[:limit].rsplit(" ", 1)[0]
    return (cut if len(cut) > limit // 2 else line[:limit]) + "…"


def _first(inputs: Inputs, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in inputs.schema.names), None)


def _numbers(inputs: Inputs, names: tuple[str, ...]) -> NDArray[np.float64] | None:
    """A numeric or time column as float64 (seconds for times), NaN where it says nothing."""
    name = _first(inputs, names)
    if name is None:
        return None
    column = inputs.columns([name])[name]
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("s")).cast(pa.int64())
    elif pa.types.is_large_string(column.type):
        # Some exports hold numbers as text; what is no number says nothing.
        numeric = pc.match_substring_regex(column, r"^-?\d+(\.\d+)?$")
        column = pc.if_else(numeric, column, pa.scalar(None, column.type))
    elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return None
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _keyword_rows(clustering: Clustering, clusters: int) -> NDArray[np.int64]:
    """Row numbers, ascending, of the most probable members of each cluster."""
    each = max(20, min(KEYWORD_TEXTS, KEYWORD_TOTAL // max(1, clusters)))
    order = np.lexsort((-clustering.probabilities, clustering.labels))
    labels = clustering.labels[order]
    starts = np.searchsorted(labels, np.arange(clusters))
    rank = np.arange(len(order)) - starts[np.maximum(labels, 0)] if clusters else labels
    return np.sort(order[(labels >= 0) & (rank < each)]) if clusters else order[:0]


def _date(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None


def cluster_rows(
    inputs: Inputs, vectors: NDArray[np.float32], clustering: Clustering, changes: Changes
) -> list[dict[str, Any]]:
    """One dict per cluster with the columns of :data:`SCHEMA_FIELDS`, largest first.

    Args:
        vectors: float32 (rows, d).
        clustering: of these rows, its labels being cluster numbers from 0.
        changes: the persistent ids of those numbers.
    """
    clusters = len(clustering.centroids)
    if clusters == 0:
        return []
    keywords: list[list[tuple[str, float]]] = [[] for _ in range(clusters)]
    chosen = representatives(vectors, clustering.labels, clustering.centroids)
    title, text = _first(inputs, TITLE_COLUMNS), inputs.text_column
    shown: dict[int, str] = {}
    if text or title:
        rows = _keyword_rows(clustering, clusters)
        parts = [inputs.texts(name, rows) for name in (title, text) if name]
        joined = ("\n".join(pair) for pair in zip(*parts, strict=True))
        labels = clustering.labels[rows].tolist()
        keywords = class_keywords(zip(labels, joined, strict=True), clusters)
        wanted = np.unique(np.concatenate(chosen))
        parts = [inputs.texts(name, wanted) for name in (title, text) if name]
        for at, *said in zip(wanted.tolist(), *parts, strict=True):
            shown[at] = excerpt(" — ".join(piece for piece in said if piece))
    id_name = _first(inputs, ID_COLUMNS)
    ids: dict[int, str] = {}
    if id_name:
        wanted = np.unique(np.concatenate(chosen))
        ids = dict(zip(wanted.tolist(), inputs.texts(id_name, wanted), strict=True))
    scores, dates = _numbers(inputs, SCORE_COLUMNS), _numbers(inputs, DATE_COLUMNS)
    order = np.argsort(clustering.labels, kind="stable")
    bounds = np.searchsorted(clustering.labels[order], np.arange(clusters + 1))
    result = []
    for number in range(clusters):
        members = order[bounds[number] : bounds[number + 1]]
        row: dict[str, Any] = {
            "cluster_id": int(changes.ids[number]),
            "theme_id": int(clustering.cluster_themes[number]),
            "name": cluster_name(keywords[number], f"cluster {int(changes.ids[number])}"),
            "size": len(members),
            "share": len(members) / len(clustering.labels),
            "keywords": [term for term, _ in keywords[number]],
            "keyword_weights": [weight for _, weight in keywords[number]],
            "representative_ids": [ids.get(int(place), "") for place in chosen[number]],
            "representative_texts": [shown.get(int(place), "") for place in chosen[number]],
            "probability_mean": float(clustering.probabilities[members].mean()),
            "x": float(np.median(clustering.x[members])),
            "y": float(np.median(clustering.y[members])),
            "fate": changes.fates[number],
            "parents": list(changes.parents[number]),
        }
        row |= {"score_median": None, "score_mean": None, "score_max": None}
        row |= {"first_date": None, "last_date": None}
        if scores is not None and np.isfinite(scores[members]).any():
            mine = scores[members][np.isfinite(scores[members])]
            row["score_median"] = float(np.median(mine))
            row["score_mean"], row["score_max"] = float(mine.mean()), float(mine.max())
        if dates is not None and np.isfinite(dates[members]).any():
            mine = dates[members][np.isfinite(dates[members])]
            row["first_date"], row["last_date"] = _date(mine.min()), _date(mine.max())
        result.append(row)
    return result


def theme_names(rows: list[dict[str, Any]]) -> dict[int, str]:
    """A name for each theme: the best keyword of each of its largest clusters."""
    names: dict[int, list[str]] = {}
    for row in rows:
        mine = names.setdefault(row["theme_id"], [])
        word = next((term for term in row["keywords"] if term not in mine), None)
        if word is not None and len(mine) < 3:
            mine.append(word)
    return {theme: ", ".join(words) or f"theme {theme}" for theme, words in sorted(names.items())}
