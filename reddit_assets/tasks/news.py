"""Tonight's record of what is new in a subreddit's clusters."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reddit_assets.corpus.news import news_of
from reddit_assets.corpus.nights import EXAMPLE, Before, ClusterBefore, Night
from reddit_assets.engines.clustering.identity import Changes
from reddit_assets.engines.clustering.meaning import Posts, excerpt
from reddit_assets.engines.clustering.results import Clustering

__all__ = ["news_table", "tonight"]

Rows = Sequence[Mapping[str, Any]]

#: Clusters of a night whose new posts are quoted, and news in a table for people.
QUOTED, TABLE_ROWS = 40, 25


def tonight(
    before: Before,
    was: NDArray[np.int32] | None,
    ids: NDArray[np.int32],
    changes: Changes,
    clusters: Rows,
    posts: Posts,
    vectors: NDArray[np.float32],
    clustering: Clustering,
    *,
    full: bool,
) -> Night:
    """The record of this night.

    Args:
        before: the table of the night before.
        was: int32 (n,), each row's cluster id then, −1 noise, −2 for a row that was not there;
            ``None`` if there was no night before.
        ids: int32 (n,), tonight's.
        changes: what became of the clusters.
        clusters: rows of tonight's ``clusters.table``.
        posts: of the rows.
        vectors: float32 (n, d).
        clustering: of these.
        full: whether all rows were clustered.
    """
    if was is None or not before.rows:
        return Night(time.time(), len(ids), full=full)
    new = was == -2
    sizes, came, stayed = _counted(ids), _counted(ids[new]), _counted(was[~new])
    counts = {}
    for number in sorted({*sizes, *before.clusters}):
        had = before.clusters[number].size if number in before.clusters else 0
        lost = max(0, had - stayed.get(number, 0))
        if came.get(number) or lost:
            counts[number] = (had, sizes.get(number, 0), came.get(number, 0), lost)
    fates = {
        int(number): (fate, parents)
        for number, fate, parents in zip(changes.ids, changes.fates, changes.parents, strict=True)
        if fate != "continued"
    }
    named = {*changes.died, *(one for _, parents in fates.values() for one in parents)}
    night = Night(
        at=time.time(),
        rows=len(ids),
        new=int(new.sum()),
        lost=max(0, before.rows - int((~new).sum())),
        full=full,
        moved_share=changes.moved_share or 0.0,
        counts=counts,
        fates=fates,
        before={number: before.clusters[number] for number in named if number in before.clusters},
        gone=changes.died,
    )
    chosen: dict[int, int] = {}
    for event in news_of([night], _as_before(clusters))[:QUOTED]:
        # A new post of the cluster, the nearest to its centroid.
        rows = np.flatnonzero(new & (ids == event.cluster_id))
        if len(rows):
            middle = clustering.centroids[clustering.labels[rows[0]]]
            chosen[int(rows[(vectors[rows] @ middle).argmax()])] = event.cluster_id
    quoted = _quoted(posts, sorted(chosen))
    return replace(night, examples={chosen[row]: text for row, text in quoted.items() if text})


def _quoted(posts: Posts, rows: list[int]) -> dict[int, str]:
    texts = posts.texts(np.array(rows, dtype=np.int64)) if rows else []
    quoted = (excerpt(" — ".join(filter(None, said)), EXAMPLE) for said in texts)
    return dict(zip(rows, quoted, strict=True))


def news_table(nights: Sequence[Night], clusters: Rows) -> list[dict[str, Any]]:
    """The last night's news as rows for people.

    Args:
        nights: the oldest first.
        clusters: rows of tonight's ``clusters.table``.
    """
    return [event.row() for event in news_of(nights[-1:], _as_before(clusters))[:TABLE_ROWS]]


def _counted(ids: NDArray[np.int32]) -> dict[int, int]:
    numbers, counts = np.unique(ids[ids >= 0], return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def _as_before(clusters: Rows) -> dict[int, ClusterBefore]:
    """Rows of ``clusters.table`` as the news sees them, by id."""
    return {
        row["cluster_id"]: ClusterBefore(
            row["name"],
            row["size"],
            tuple(row["keywords"]),
            excerpt(next(iter(row["representative_texts"]), ""), EXAMPLE),
        )
        for row in clusters
    }
