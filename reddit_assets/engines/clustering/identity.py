"""Cluster ids that last: a re-clustered subreddit's clusters matched to those of the night before.

Clusters are matched on the rows they share (Jaccard among the rows of both nights), then, where
too few rows are shared to tell, on their centroids. Ids of dead clusters are not given again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Changes", "Level", "Previous", "keep_identities", "keep_level"]

#: Least Jaccard of the shared rows at which a cluster continues.
MIN_JACCARD = 0.2
#: Least cosine of centroids at which a cluster without shared rows continues.
MIN_COSINE = 0.95
#: Share of an old cluster's rows that makes a new cluster a part of it (split).
PART = 0.2
#: Share of an old cluster's rows inside one new cluster that makes it a merger.
WHOLE = 0.5


@dataclass(frozen=True)
class Level:
    """Topics or themes of a night.

    Attributes:
        ids: int32 (clusters,), the persistent id of each cluster's topic or theme.
        next_id: the first id never given so far.
    """

    ids: NDArray[np.int32]
    next_id: int


@dataclass(frozen=True)
class Previous:
    """The night before, as far as it matters.

    Attributes:
        ids: int32 (clusters,), the persistent ids.
        centroids: float32 (clusters, d).
        next_id: the first id never given so far.
        topics, themes: of these clusters; ``None`` where they are not known.
    """

    ids: NDArray[np.int32]
    centroids: NDArray[np.float32]
    next_id: int
    topics: Level | None = None
    themes: Level | None = None


@dataclass(frozen=True)
class Changes:
    """What became of the clusters.

    Attributes:
        ids: int32 (clusters,), the persistent id of each new cluster.
        fates: of each new cluster: ``continued``, ``born``, ``split`` (a part of an older one)
            or ``merged`` (of several, under the id of the largest).
        parents: the old ids that a split or merged cluster comes from.
        died: old ids that neither continue nor went into a merger.
        next_id: the first id never given.
        moved_share: share of the rows of both nights that have another id now, noise counted
            as an id; ``None`` without a night before.
        kept_share: share of the old clusters whose id continues; ``None`` likewise.
    """

    ids: NDArray[np.int32]
    fates: tuple[str, ...]
    parents: tuple[tuple[int, ...], ...]
    died: tuple[int, ...]
    next_id: int
    moved_share: float | None = None
    kept_share: float | None = None
    counts: dict[str, int] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Plain values for metadata."""
        return {
            **self.counts,
            "moved_share": self.moved_share,
            "kept_share": self.kept_share,
            "died_ids": list(self.died),
        }


def _counts(fates: Sequence[str], died: Sequence[int]) -> dict[str, int]:
    names = ("continued", "born", "split", "merged")
    return {name: sum(fate == name for fate in fates) for name in names} | {"died": len(died)}


def _all_new(new: NDArray[np.int32], previous: Previous | None, clusters: int) -> Changes:
    """Without previous clusters all are born."""
    start = previous.next_id if previous else 0
    fates = ("born",) * clusters
    return Changes(
        ids=np.arange(start, start + clusters, dtype=np.int32),
        fates=fates,
        parents=((),) * clusters,
        died=(),
        next_id=start + clusters,
        moved_share=float((new >= 0).mean()) if previous and len(new) else None,
        counts=_counts(fates, ()),
    )


def keep_identities(
    old: NDArray[np.int32],
    new: NDArray[np.int32],
    previous: Previous | None,
    centroids: NDArray[np.float32],
) -> Changes:
    """Persistent ids for tonight's clusters.

    Args:
        old: int32 (shared,), last night's persistent ids of the rows of both nights, −1 noise.
        new: int32 (shared,), tonight's cluster numbers of the same rows.
        previous: last night; ``None`` if there was none.
        centroids: float32 (clusters, d), tonight's.
    """
    clusters = len(centroids)
    if previous is None or len(previous.ids) == 0:
        return _all_new(new, previous, clusters)
    shared = _shared(old, new, previous.ids, clusters)
    size_old = np.bincount(shared.rows_old[shared.rows_old >= 0], minlength=len(previous.ids))
    size_new = np.bincount(new[new >= 0], minlength=clusters)
    of_old = np.full(len(previous.ids), -1, dtype=np.int64)
    of_new = np.full(clusters, -1, dtype=np.int64)
    for at, number in _pairs(shared.counts, size_old, size_new, previous.centroids, centroids):
        if of_old[at] < 0 and of_new[number] < 0:
            of_old[at], of_new[number] = number, at
    ids = np.where(of_new >= 0, previous.ids[of_new], -1).astype(np.int32)
    born = np.flatnonzero(of_new < 0)
    ids[born] = previous.next_id + np.arange(len(born))
    fates, origins = [], []
    for number in range(clusters):
        fate, origin = _fate(shared.counts[:, number], size_old, size_new[number])
        if of_new[number] >= 0 and fate != "merged":
            fate, origin = "continued", ()
        fates.append(fate)
        origins.append(origin)
    merged: set[int] = set()
    merged.update(
        *(origin for fate, origin in zip(fates, origins, strict=True) if fate == "merged")
    )
    died = tuple(
        int(previous.ids[at]) for at in np.flatnonzero(of_old < 0) if int(at) not in merged
    )
    now = np.append(ids, np.int32(-1))[new]
    return Changes(
        ids=ids,
        fates=tuple(fates),
        parents=tuple(tuple(int(previous.ids[at]) for at in origin) for origin in origins),
        died=died,
        next_id=previous.next_id + len(born),
        moved_share=float((now != old).mean()) if len(old) else 0.0,
        kept_share=int((of_old >= 0).sum()) / len(previous.ids),
        counts=_counts(fates, died),
    )


def keep_level(
    old: NDArray[np.int32],
    new: NDArray[np.int32],
    before: Level | None,
    groups: NDArray[np.int32],
    clusters: NDArray[np.int32],
) -> Level:
    """Persistent ids for tonight's topics or themes, by the rows that they share with the old ones.

    Args:
        old, new: of :func:`keep_identities`.
        before: last night's; ``None`` if there were none.
        groups: int32 (clusters,), the number of each cluster's topic or theme, from 0.
        clusters: int32 (previous,), the ids of last night's clusters.
    """
    count = int(groups.max(initial=-1)) + 1
    if before is None:
        return Level(groups, count)
    order = np.argsort(clusters, kind="stable")
    at = np.minimum(np.searchsorted(clusters, old, sorter=order), max(len(clusters) - 1, 0))
    was = np.full(len(old), -1, dtype=np.int32)
    if len(clusters):
        known = clusters[order[at]] == old
        was[known] = before.ids[order[at[known]]]
    ids = np.unique(before.ids)
    stood = Previous(ids, np.zeros((len(ids), 0), np.float32), before.next_id)
    now = np.append(groups, np.int32(-1))[new]
    made = keep_identities(was, now, stood, np.zeros((count, 0), np.float32))
    return Level(made.ids[groups].astype(np.int32), made.next_id)


@dataclass(frozen=True)
class _Shared:
    """Rows of both nights.

    Attributes:
        rows_old: int64 (shared,), the previous cluster of each, as a position; −1 for none.
        counts: int64 (previous, clusters), rows that each pair of clusters shares.
    """

    rows_old: NDArray[np.int64]
    counts: NDArray[np.int64]


def _shared(
    old: NDArray[np.int32], new: NDArray[np.int32], ids: NDArray[np.int32], clusters: int
) -> _Shared:
    order = np.argsort(ids, kind="stable")
    place = np.searchsorted(ids, old, sorter=order)
    rows_old = order[np.minimum(place, len(ids) - 1)]
    rows_old = np.where(ids[rows_old] == old, rows_old, -1)
    both = (rows_old >= 0) & (new >= 0)
    counts = np.zeros((len(ids), clusters), dtype=np.int64)
    np.add.at(counts, (rows_old[both], new[both]), 1)
    return _Shared(rows_old, counts)


def _fate(
    inside: NDArray[np.int64], size_old: NDArray[np.int64], size: int
) -> tuple[str, tuple[int, ...]]:
    """What a new cluster is, by the rows that it shares with each previous one.

    Returns:
        ``merged`` and the previous clusters that are whole in it, ``split`` and the one that it
        is a part of, or ``born``.
    """
    wholes = np.flatnonzero((inside >= WHOLE * np.maximum(size_old, 1)) & (inside > 0))
    if len(wholes) > 1 and inside[wholes].sum() * 2 > size:
        return "merged", tuple(wholes.tolist())
    # The largest giver of rows, if a real part of it went here.
    giver = int(inside.argmax())
    part = inside[giver] >= PART * max(size_old[giver], 1) and inside[giver] > 0
    if part and inside[giver] * 2 > max(size, 1):
        return "split", (giver,)
    return "born", ()


def _pairs(
    shared: NDArray[np.int64],
    size_old: NDArray[np.int64],
    size_new: NDArray[np.int64],
    before: NDArray[np.float32],
    after: NDArray[np.float32],
) -> list[tuple[int, int]]:
    """Candidate matches, best first; ties by number."""
    at_old, at_new = np.nonzero(shared)
    common = shared[at_old, at_new]
    jaccard = common / (size_old[at_old] + size_new[at_new] - common)
    good = jaccard >= MIN_JACCARD
    at_old, at_new, jaccard = at_old[good], at_new[good], jaccard[good]
    order = np.lexsort((at_new, at_old, -jaccard))
    pairs = [(int(at_old[at]), int(at_new[at])) for at in order]
    # Shared rows are the better evidence; centroids decide where there are none.
    silent_old = np.flatnonzero(size_old == 0)
    silent_new = np.flatnonzero(size_new == 0)
    if before.shape[1:] == after.shape[1:]:
        for olds, news in ((silent_old, np.arange(len(size_new))), (None, silent_new)):
            if olds is None:
                olds = np.arange(len(size_old))
            if not len(olds) or not len(news):
                continue
            cosine = before[olds] @ after[news].T
            left, right = np.nonzero(cosine >= MIN_COSINE)
            best = np.lexsort((right, left, -cosine[left, right]))
            pairs += [(int(olds[left[at]]), int(news[right[at]])) for at in best]
    return pairs
