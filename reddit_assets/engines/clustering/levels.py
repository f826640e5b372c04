"""Levels above the clusters: topics, which are groups of clusters, and themes, groups of topics.

Both are cuts of one tree, Ward's of the clusters' centroids (Ward 1963), so they are nested. That
tree costs the same whether the clusters come from one clustering or from regions of a large one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.grouping import rows_by_label

__all__ = ["centroids", "cluster_levels", "cut_sizes", "join_levels"]

#: Themes at most, and clusters up to which each is a topic and a theme of its own.
MOST_THEMES, FEW_CLUSTERS = 24, 6
#: Clusters in the tree at most, the largest: it takes their number squared. Others join the topic
#: of the most similar.
TREE_CLUSTERS = 4_096


def cut_sizes(clusters: int) -> tuple[int, int]:
    """How many topics and themes are made of this many clusters.

    Themes are 1.5 √clusters, between 4 and 24; topics the geometric mean of both.
    """
    if clusters <= FEW_CLUSTERS:
        return clusters, clusters
    themes = min(MOST_THEMES, max(4, round(1.5 * math.sqrt(clusters))))
    return round(math.sqrt(clusters * themes)), themes


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


def cluster_levels(
    middles: NDArray[np.float32], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Topic and theme of each cluster, int32 (clusters,) each, numbered by rows, largest first.

    Args:
        middles: float32 (clusters, d), unit centroids.
        sizes: int64 (clusters,), rows of each.
    """
    clusters = len(middles)
    topics, themes = cut_sizes(clusters)
    if topics == clusters:
        alone = _by_size(np.arange(clusters, dtype=np.int32), sizes)
        return alone, alone
    from scipy.cluster.hierarchy import fcluster, ward

    large = np.sort(np.argsort(-sizes, kind="stable")[:TREE_CLUSTERS])
    tree = ward(middles[large].astype(np.float64))
    leaf = np.arange(clusters)
    if len(large) < clusters:
        leaf = _most_similar(middles, middles[large])
    cuts = (fcluster(tree, count, "maxclust")[leaf] - 1 for count in (topics, themes))
    topic, theme = (_by_size(cut.astype(np.int32), sizes) for cut in cuts)
    return topic, theme


def join_levels(
    born: NDArray[np.int64],
    topics: NDArray[np.int32],
    themes: NDArray[np.int32],
    middles: NDArray[np.float32],
    sizes: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Topics and themes that stand, with those of the most similar cluster for new ones.

    Args:
        born: int64 (b,), the clusters without a topic.
        topics, themes: int32 (clusters,), −1 for these.
        middles: float32 (clusters, d), unit centroids.
        sizes: int64 (clusters,), rows of each.

    Returns:
        like :func:`cluster_levels`.
    """
    known = np.setdiff1d(np.arange(len(middles)), born)
    if not len(known):
        return cluster_levels(middles, sizes)
    topics, themes = topics.copy(), themes.copy()
    like = known[_most_similar(middles[born], middles[known])]
    topics[born], themes[born] = topics[like], themes[like]
    return _by_size(topics, sizes), _by_size(themes, sizes)


def _most_similar(queries: NDArray[np.float32], middles: NDArray[np.float32]) -> NDArray[np.int64]:
    """For each query the middle of the largest cosine, int64 (queries,)."""
    best = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), 4_096):
        best[start : start + 4_096] = (queries[start : start + 4_096] @ middles.T).argmax(axis=1)
    return best


def _by_size(groups: NDArray[np.int32], sizes: NDArray[np.int64]) -> NDArray[np.int32]:
    """The same groups numbered from 0 by rows, largest first; ties by the first cluster."""
    _, first, dense = np.unique(groups, return_index=True, return_inverse=True)
    order = np.lexsort((first, -np.bincount(dense, weights=sizes)))
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return rank[dense]
