"""Themes: clusters grouped into a readable number, from the same single linkage tree.

The tree is condensed again with a larger smallest cluster, chosen so that about ``theme_target``
leaves remain (the idea of PLSCAN's and evoc's layers). A cluster belongs to the leaf that most of
its rows are in; one whose rows are in none joins the theme of the most similar centroid.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.compiled import numba
from reddit_assets.engines.clustering.grouping import rows_by_label

__all__ = ["centroids", "cluster_themes", "theme_target", "themes_by_size"]


def theme_target(clusters: int) -> int:
    """How many themes are aimed at: every cluster its own up to 6, then 1.5 √clusters, ≤ 24."""
    if clusters <= 6:
        return clusters
    return min(24, max(4, round(1.5 * math.sqrt(clusters))))


@numba.njit(cache=True)
def _leaf_roots(
    linkage: NDArray[np.float64], size: int
) -> NDArray[np.int64]:  # pragma: no cover - compiled
    """Nodes of the tree that are leaf clusters at a smallest cluster of ``size`` rows."""
    n = linkage.shape[0] + 1
    split_below = np.zeros(2 * n - 1, dtype=np.bool_)
    is_root = np.zeros(2 * n - 1, dtype=np.bool_)
    for t in range(n - 1):
        left, right = int(linkage[t, 0]), int(linkage[t, 1])
        left_size = 1.0 if left < n else linkage[left - n, 3]
        right_size = 1.0 if right < n else linkage[right - n, 3]
        split_below[n + t] = split_below[left] or split_below[right]
        if left_size >= size and right_size >= size:
            split_below[n + t] = True
            is_root[left] = not split_below[left]
            is_root[right] = not split_below[right]
    return np.flatnonzero(is_root)


@numba.njit(cache=True)
def _label_below(
    linkage: NDArray[np.float64], roots: NDArray[np.int64]
) -> NDArray[np.int32]:  # pragma: no cover - compiled
    """For each row the number of the root it is under, −1 for none."""
    n = linkage.shape[0] + 1
    label = np.full(2 * n - 1, -1, dtype=np.int32)
    for at in range(len(roots)):
        label[roots[at]] = at
    for t in range(n - 2, -1, -1):
        here = label[n + t]
        if here >= 0:
            label[int(linkage[t, 0])] = here
            label[int(linkage[t, 1])] = here
    return label[:n]


def centroids(
    vectors: NDArray[np.float32], labels: NDArray[np.int32], clusters: int
) -> NDArray[np.float32]:
    """Unit mean vectors of the clusters, float32 (clusters, d)."""
    result = np.zeros((clusters, vectors.shape[1]), dtype=np.float32)
    for cluster, rows in enumerate(rows_by_label(labels, clusters)):
        total = np.zeros(vectors.shape[1], dtype=np.float64)
        for start in range(0, len(rows), 65_536):
            total += vectors[rows[start : start + 65_536]].sum(axis=0, dtype=np.float64)
        result[cluster] = total / (np.linalg.norm(total) or 1.0)
    return result


def cluster_themes(
    linkage: NDArray[np.float64],
    labels: NDArray[np.int32],
    sizes: NDArray[np.int64],
    middles: NDArray[np.float32],
    min_cluster_size: int,
) -> NDArray[np.int32]:
    """The theme of each cluster, int32 (clusters,), numbered from 0 by rows, largest first.

    Args:
        linkage: float64 (n − 1, 4), the single linkage tree.
        labels: int32 (n,), the clusters of the same rows.
        sizes: int64 (clusters,), rows of each cluster, those outside the tree included.
        middles: float32 (clusters, d), their unit centroids.
        min_cluster_size: that the clusters were selected with.
    """
    clusters = len(middles)
    target = theme_target(clusters)
    if clusters == 0:
        return np.zeros(0, dtype=np.int32)
    if target == clusters:
        return themes_by_size(np.arange(clusters, dtype=np.int32), sizes)
    best: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    size = float(min_cluster_size)
    while size <= max(min_cluster_size, len(labels) / 2):
        roots = _leaf_roots(linkage, int(size))
        if abs(len(roots) - target) <= abs(len(best) - target):
            best = roots
        size = max(size * 1.2, size + 1)
    if len(best) == 0:
        return np.zeros(clusters, dtype=np.int32)
    below = _label_below(linkage, best)
    inside = (labels >= 0) & (below >= 0)
    votes = np.zeros((clusters, len(best)), dtype=np.int64)
    np.add.at(votes, (labels[inside], below[inside]), 1)
    theme = np.where(votes.sum(axis=1) > 0, votes.argmax(axis=1), -1).astype(np.int32)
    known = np.unique(theme[theme >= 0])
    if len(known) and (theme < 0).any():
        middle = np.stack(
            [(middles[theme == t] * sizes[theme == t, None]).sum(axis=0) for t in known]
        )
        middle /= np.maximum(np.linalg.norm(middle, axis=1, keepdims=True), 1e-12)
        lost = theme < 0
        theme[lost] = known[(middles[lost] @ middle.T).argmax(axis=1)]
    return themes_by_size(theme, sizes)


def themes_by_size(theme: NDArray[np.int32], sizes: NDArray[np.int64]) -> NDArray[np.int32]:
    rows = np.bincount(theme, weights=sizes)
    order = np.argsort(-rows, kind="stable")
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return rank[theme]
