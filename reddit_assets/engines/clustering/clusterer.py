"""Unit vectors in, labels, themes and map coordinates out: the whole clustering in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from reddit_assets.engines.clustering.canonical import Canonical, canonical_order
from reddit_assets.engines.clustering.graph import build_graph, fuzzy_graph
from reddit_assets.engines.clustering.hdbscan_ import (
    Density,
    density_clusters,
    no_clusters,
    tree_clusters,
)
from reddit_assets.engines.clustering.levels import centroids, cluster_levels
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.engines.clustering.reduction import (
    MIN_REDUCED_ROWS,
    compute_threads,
    node_reduction,
    plane,
    umap_reduction,
)
from reddit_assets.engines.clustering.regions import cut, keep_coarse
from reddit_assets.engines.clustering.results import Clustering, Result, Rows, check_vectors
from reddit_assets.engines.clustering.sample import Assigned, assign, rows_in_memory
from reddit_assets.engines.clustering.spanning import spanning_tree

__all__ = ["cluster"]

#: Rows assigned at a time.
ASSIGN_CHUNK = 200_000
#: Dimensions of the layout that a large subreddit is cut into regions in.
COARSE_DIMENSIONS = 6

Progress = Callable[[str], None]


def _together(
    vectors: NDArray[np.float32],
    hashes: NDArray[np.uint64],
    params: ClusterParams,
    say: Progress,
) -> tuple[Density, NDArray[np.float32], Any]:
    """Density clusters of rows in canonical order, the space they are in, its fuzzy graph."""
    n = len(vectors)
    small = n < MIN_REDUCED_ROWS
    neighbors = max(params.n_neighbors, (params.min_samples or 5) + 1)
    say("neighbours")
    graph = build_graph(vectors, neighbors, seed=params.seed, threads=params.threads)
    fuzzy = None if small else fuzzy_graph(graph, params.n_neighbors)
    if small or params.reduction == "none":
        say("spanning tree")
        edges = spanning_tree(vectors, graph, params.min_samples or 3, threads=params.threads)
        say("clusters")
        density = tree_clusters(edges, n, params)
        space = vectors
    else:
        say("reduction")
        if params.reduction == "umap":
            space = umap_reduction(vectors, params)
        else:
            space = node_reduction(vectors, fuzzy, hashes, params)
        say("clusters")
        density = density_clusters(space, params)
    return density, space, fuzzy


def _coordinates(
    vectors: NDArray[np.float32],
    hashes: NDArray[np.uint64],
    params: ClusterParams,
    together: int,
    say: Progress,
) -> tuple[Density, NDArray[np.float32]]:
    """Density clusters and map places of rows in canonical order.

    Args:
        together: rows that are clustered together at most; more are cut into regions.
    """
    if len(vectors) <= together:
        density, space, fuzzy = _together(vectors, hashes, params, say)
        say("map")
        return density, plane(space, fuzzy, hashes, params)
    say("coarse structure")
    first, order = vectors[:together], hashes[:together]
    coarse = replace(
        ClusterParams(noise_level=params.noise_level, seed=params.seed).resolve(together),
        n_components=COARSE_DIMENSIONS,
    )
    graph = build_graph(first, params.n_neighbors, seed=params.seed, threads=params.threads)
    fuzzy = fuzzy_graph(graph, params.n_neighbors)
    layout = node_reduction(first, fuzzy, order, coarse)
    flat = plane(layout, fuzzy, order, params)
    density = density_clusters(layout, coarse)
    every = np.concatenate([layout, flat], axis=1)
    sampled = _Found(first, density.labels, int(density.labels.max(initial=-1)) + 1, density, every)
    rest = [
        sampled.assign(vectors[start : start + ASSIGN_CHUNK], params)
        for start in range(together, len(vectors), ASSIGN_CHUNK)
    ]
    labels = np.concatenate([density.labels, *(said.labels for said in rest)])
    places = np.concatenate([every, *(said.xy for said in rest)])
    whole = no_clusters(len(vectors))
    whole.probabilities[:] = np.concatenate(
        [density.probabilities, *(said.probabilities for said in rest)]
    )
    regions = cut(places[:, :-2], together)
    count = 0
    for number, rows in enumerate(regions, 1):
        say(f"region {number} of {len(regions)}")
        found, _, _ = _together(vectors[rows], hashes[rows], params, lambda stage: None)
        whole.labels[rows] = np.where(found.labels >= 0, found.labels + count, -1)
        inside = rows[found.labels >= 0]
        whole.probabilities[inside] = found.probabilities[found.labels >= 0]
        whole.outlier_scores[rows] = found.outlier_scores
        count += int(found.labels.max(initial=-1)) + 1
    whole.labels[:] = keep_coarse(whole.labels, labels, params.min_cluster_size or 5)
    whole.probabilities[whole.labels < 0] = 0
    return whole, np.ascontiguousarray(places[:, -2:])


def _best_copies(
    canonical: Canonical, kept: int, labels: NDArray[np.int32], scores: NDArray[np.float32]
) -> NDArray[np.int64]:
    """For each distinct vector, the kept copy that stands for all: clustered and most probable."""
    group = canonical.kept_group[:kept]
    order = np.lexsort((np.arange(kept), -scores, labels < 0, group))
    first = np.ones(kept, dtype=bool)
    first[1:] = group[order[1:]] != group[order[:-1]]
    best = np.full(canonical.distinct, -1, dtype=np.int64)
    best[group[order[first]]] = order[first]
    return best


def cluster(
    vectors: NDArray[np.float32],
    params: ClusterParams | None = None,
    progress: Progress | None = None,
    *,
    excluded: NDArray[np.bool_] | None = None,
) -> Clustering:
    """Cluster unit vectors. The labels depend on the set of rows, not on order or threads.

    Rows of length zero have no direction and hence no neighbours: they are noise.

    Args:
        vectors: float32 (n, d), unit rows, n ≥ 0.
        params: what is wanted; unset values adapt to n.
        progress: called with the name of each stage as it begins.
        excluded: bool (n,), rows that are noise whatever their vectors, and that have no influence
            on the others; they get a place on the map near what is like them.

    Raises:
        ClusteringError: the vectors are not float32, not finite or not of unit length.
    """
    check_vectors(vectors)
    asked = params or ClusterParams()
    say = progress or (lambda stage: None)
    threads = compute_threads(asked.threads, len(vectors))
    with threads, threadpool_limits(limits=1, user_api="blas"):
        return _cluster(vectors, Rows.of(vectors, excluded), asked, say)


@dataclass(frozen=True)
class _Found:
    """What was found of the rows that were clustered, in canonical order.

    Attributes:
        vectors: float32 (kept, d).
        labels: int32 (kept,), equal for equal vectors; numbers without a gap.
        count: how many clusters there are.
        density: probabilities and scores.
        xy: float32 (kept, 2), places on the map.
    """

    vectors: NDArray[np.float32]
    labels: NDArray[np.int32]
    count: int
    density: Density
    xy: NDArray[np.float32]

    def assign(self, queries: NDArray[np.float32], params: ClusterParams, **how: int) -> Assigned:
        """What these rows say of others."""
        return assign(
            queries,
            self.vectors,
            self.labels,
            self.density.probabilities,
            self.density.outlier_scores,
            self.xy,
            seed=params.seed,
            threads=params.threads,
            **how,
        )


def _cluster(
    vectors: NDArray[np.float32], rows: Rows, asked: ClusterParams, say: Progress
) -> Clustering:
    n, dimensions = vectors.shape
    counted = len(rows.counted)
    limit = min(counted, rows_in_memory(n, dimensions, asked.max_rows, asked.memory_mb))
    params = asked.for_sample(counted, limit)
    size = params.min_cluster_size or 5
    say("order")
    # As many copies as make a cluster, and fill each other's neighbour lists.
    cap = max(size, params.n_neighbors + 1, (params.min_samples or 5) + 1)
    canonical = canonical_order(vectors, cap, rows.counted)
    kept = min(len(canonical.kept), limit)
    found, best = _found(vectors, canonical, kept, params, say)
    result = Result.of(rows)
    spokesman = best[canonical.group]
    known = spokesman >= 0
    spokesman, speaking = spokesman[known], rows.counted[known]
    said = Assigned(
        found.labels[spokesman],
        found.density.probabilities[spokesman],
        found.density.outlier_scores[spokesman],
        found.xy[spokesman],
    )
    result.fill(speaking, said)
    rest = rows.counted[~known]
    if len(rest):
        say("assignment")
    for start in range(0, len(rest), ASSIGN_CHUNK):
        part = rest[start : start + ASSIGN_CHUNK]
        result.fill(part, found.assign(vectors[part], params))
    if kept:
        _place(result, vectors, rows.excluded, found, params)
    say("levels")
    rank = result.rank(canonical.group, found.count)
    kept_labels = rank[found.labels]
    middles = centroids(found.vectors, kept_labels, found.count)
    sizes = np.bincount(result.labels[result.labels >= 0], minlength=found.count)
    return result.clustering(
        vectors,
        cluster_levels(middles, sizes),
        middles,
        distinct_vectors=canonical.distinct,
        clustered_rows=kept,
        assigned_share=len(rest) / n if n else 0.0,
        placed_rows=0,
        reduction="none" if kept < MIN_REDUCED_ROWS else params.reduction,
        min_cluster_size=size,
        min_samples=params.min_samples,
        selection=params.selection,
        fingerprint=asked.fingerprint,
    )


def _found(
    vectors: NDArray[np.float32],
    canonical: Canonical,
    kept: int,
    params: ClusterParams,
    say: Progress,
) -> tuple[_Found, NDArray[np.int64]]:
    """The clusters of the kept rows, and which row stands for each distinct vector."""
    chosen = vectors[canonical.kept[:kept]]
    if kept < max(2 * (params.min_cluster_size or 5), 4) or canonical.distinct < 2:
        density, xy = no_clusters(kept), np.zeros((kept, 2), dtype=np.float32)
    else:
        hashes, together = canonical.kept_hashes[:kept], max(params.max_rows, MIN_REDUCED_ROWS)
        density, xy = _coordinates(chosen, hashes, params, together, say)
    best = _best_copies(canonical, kept, density.labels, density.probabilities)
    # Copies of a vector have one label: that may empty a cluster, whose number is given again.
    labels = density.labels[best[canonical.kept_group[:kept]]]
    numbers = np.unique(labels[labels >= 0])
    labels = np.where(labels >= 0, np.searchsorted(numbers, labels), -1).astype(np.int32)
    return _Found(chosen, labels, len(numbers), density, xy), best


def _place(
    result: Result,
    vectors: NDArray[np.float32],
    rows: NDArray[np.int64],
    found: _Found,
    params: ClusterParams,
) -> None:
    """Places on the map for rows that are noise from the start: where what is like them lies."""
    if not len(rows):
        return
    canonical = canonical_order(vectors, 1, rows)
    places = found.assign(vectors[canonical.kept], params, exact_rows=len(found.vectors)).xy
    result.places[rows] = places[canonical.group]
