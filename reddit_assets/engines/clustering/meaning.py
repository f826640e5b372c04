"""What each cluster is about: one row per cluster, for ``clusters.table`` and for people."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.function_words import function_words
from reddit_assets.engines.clustering.grouping import rows_by_label
from reddit_assets.engines.clustering.identity import Changes
from reddit_assets.engines.clustering.keywords import class_keywords
from reddit_assets.engines.clustering.names import Named, PhraseModel, Sampled, choose_names
from reddit_assets.engines.clustering.representatives import representatives
from reddit_assets.engines.clustering.results import Clustering

__all__ = ["Meaning", "Posts", "excerpt", "meaning_of"]

#: Texts per cluster and in all that keywords are counted on: the most probable members.
KEYWORD_TEXTS, KEYWORD_TOTAL = 500, 100_000
#: Characters of a representative post that are kept.
EXCERPT = 300


class Posts(Protocol):
    """What is known of the rows beside their vectors. Row numbers are ascending, int64."""

    def texts(
        self, rows: NDArray[np.int64], characters: int | None = None
    ) -> list[tuple[str, str]]:
        """Title and body of some rows; empty where there is none.

        Args:
            characters: how many of each are wanted at least, if not all.
        """

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The post id of some rows; empty where there is none."""

    def scores(self) -> NDArray[np.float64] | None:
        """The score of every row, NaN where there is none; ``None`` if no row has one."""

    def dates(self) -> NDArray[np.float64] | None:
        """Seconds since 1970 of every row, likewise."""


def excerpt(text: str, limit: int = EXCERPT) -> str:
    """A text on one line, entities resolved, cut at a word with an ellipsis."""
    line = " ".join(html.unescape(text).split())
    if len(line) <= limit:
        return line
    cut = line[:limit].rsplit(" ", 1)[0]
    return (cut if len(cut) > limit // 2 else line[:limit]) + "…"


@dataclass(frozen=True)
class Meaning:
    """What clusters are about.

    Attributes:
        rows: one dict per cluster, largest first.
        named: the names of clusters and themes, for the next night.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    named: Named = field(default_factory=Named)

    @property
    def topics(self) -> dict[int, str]:
        """Names by topic id."""
        return {row["topic_id"]: row["topic"] for row in self.rows}

    @property
    def themes(self) -> dict[int, str]:
        """Names by theme id."""
        return {row["theme_id"]: row["theme"] for row in self.rows}


def meaning_of(
    posts: Posts,
    vectors: NDArray[np.float32],
    clustering: Clustering,
    changes: Changes,
    before: Named | None = None,
    model: PhraseModel | None = None,
) -> Meaning:
    """What each cluster is about.

    Args:
        posts: of the rows.
        vectors: float32 (rows, d).
        clustering: of these rows, its labels being cluster numbers from 0.
        changes: the persistent ids of those numbers.
        before: the names of the night before, of which most stay.
        model: what made the vectors, where this host has it.
    """
    clusters = len(clustering.centroids)
    if clusters == 0:
        return Meaning()
    sampled = _sampled(posts, vectors, clustering)
    keywords = class_keywords(
        zip(sampled.labels.tolist(), sampled.texts, strict=True),
        clusters,
        function_words=sampled.function_words,
    )
    chosen = representatives(vectors, clustering.labels, clustering.centroids)
    shown = _shown(posts, np.unique(np.concatenate(chosen)))
    named = choose_names(
        sampled,
        clustering,
        changes.ids,
        [[term for term, _ in some] for some in keywords],
        [_quoted([shown[int(row)] for row in some]) for some in chosen],
        before or Named(),
        model,
    )
    scores, dates = posts.scores(), posts.dates()
    topic = np.unique(clustering.cluster_topics, return_inverse=True)[1]
    theme = np.unique(clustering.cluster_themes, return_inverse=True)[1]
    result = []
    for number, members in enumerate(rows_by_label(clustering.labels, clusters)):
        standing = [shown[int(row)] for row in chosen[number]]
        result.append(
            {
                "cluster_id": int(changes.ids[number]),
                "topic_id": int(clustering.cluster_topics[number]),
                "theme_id": int(clustering.cluster_themes[number]),
                "topic": named.topics[int(topic[number])].name,
                "theme": named.themes[int(theme[number])].name,
                "name": named.clusters[int(changes.ids[number])].name,
                "size": len(members),
                "share": len(members) / len(clustering.labels),
                "keywords": [term for term, _ in keywords[number]],
                "keyword_weights": [weight for _, weight in keywords[number]],
                "representative_ids": [name for name, _ in standing],
                "representative_texts": [text for _, text in standing],
                **_scores(_finite(scores, members)),
                **_dates(_finite(dates, members)),
                "probability_mean": float(clustering.probabilities[members].mean()),
                "x": float(np.median(clustering.x[members])),
                "y": float(np.median(clustering.y[members])),
                "fate": changes.fates[number],
                "parents": list(changes.parents[number]),
            }
        )
    return Meaning(result, named)


def _quoted(standing: list[tuple[str, str]]) -> str:
    """The most typical post, for a cluster whose posts share no word."""
    text = next((text for _, text in standing if text), "no text")
    return f'"{excerpt(text, 60)}"'


def _sampled(posts: Posts, vectors: NDArray[np.float32], clustering: Clustering) -> Sampled:
    """Texts of the most probable members of each cluster."""
    clusters = len(clustering.centroids)
    each = max(20, min(KEYWORD_TEXTS, KEYWORD_TOTAL // clusters))
    order = np.lexsort((-clustering.probabilities, clustering.labels))
    labels = clustering.labels[order]
    rank = np.arange(len(order)) - np.searchsorted(labels, np.arange(clusters))[labels]
    taken = (labels >= 0) & (rank < each)
    rows, rank = order[taken], rank[taken]
    ascending = np.argsort(rows, kind="stable")
    rows, rank = rows[ascending], rank[ascending]
    texts = ["\n".join(said) for said in posts.texts(rows)]
    numbers = clustering.labels[rows].astype(np.int64)
    by_cluster: list[list[str]] = [[] for _ in range(clusters)]
    for number, text in zip(numbers.tolist(), texts, strict=True):
        by_cluster[number].append(text)
    return Sampled(texts, numbers, rank.astype(np.int64), vectors[rows], function_words(by_cluster))


def _shown(posts: Posts, rows: NDArray[np.int64]) -> dict[int, tuple[str, str]]:
    """Id and excerpt of each of the rows."""
    excerpts = [excerpt(" — ".join(filter(None, said))) for said in posts.texts(rows)]
    said = zip(posts.ids(rows), excerpts, strict=True)
    return dict(zip(rows.tolist(), said, strict=True))


def _finite(
    values: NDArray[np.float64] | None, members: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    if values is None:
        return None
    mine = values[members]
    mine = mine[np.isfinite(mine)]
    return mine if len(mine) else None


def _scores(mine: NDArray[np.float64] | None) -> dict[str, float | None]:
    return {
        "score_median": None if mine is None else float(np.median(mine)),
        "score_mean": None if mine is None else float(mine.mean()),
        "score_max": None if mine is None else float(mine.max()),
    }


def _dates(mine: NDArray[np.float64] | None) -> dict[str, datetime | None]:
    return {
        "first_date": None if mine is None else datetime.fromtimestamp(int(mine.min()), UTC),
        "last_date": None if mine is None else datetime.fromtimestamp(int(mine.max()), UTC),
    }
