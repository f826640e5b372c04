"""Unit vectors in, labels, themes and map coordinates out: the whole clustering in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
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
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.engines.clustering.reduction import (
    MIN_REDUCED_ROWS,
    compute_threads,
    node_reduction,
    plane,
    umap_reduction,
)
from reddit_assets.engines.clustering.sample import Assigned, assign, sample_rows
from reddit_assets.engines.clustering.spanning import spanning_tree
from reddit_assets.engines.clustering.themes import centroids, cluster_themes
from reddit_assets.engines.vectors import bad_rows
from reddit_assets.errors import ClusteringError

__all__ = ["Clustering", "cluster"]

#: Rows assigned at a time.
ASSIGN_CHUNK = 200_000

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Clustering:
    """The result for n rows, in the order they were given.

    Attributes:
        labels: int32 (n,), −1 is noise; clusters are numbered from 0, largest first.
        probabilities: float32 (n,), 0 for noise.
        outlier_scores: float32 (n,), GLOSH, 0 (inside) to 1 (outlier).
        themes: int32 (n,), the theme of the row's cluster, −1 for noise.
        x, y: float32 (n,), place on the map.
        cluster_themes: int32 (clusters,), the theme of each cluster.
        centroids: float32 (clusters, d), unit centroids.
        info: plain values for metadata: rows, clusters, noise share, how it was done.
    """

    labels: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    outlier_scores: NDArray[np.float32]
    themes: NDArray[np.int32]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    cluster_themes: NDArray[np.int32]
    centroids: NDArray[np.float32]
    info: dict[str, Any] = field(default_factory=dict)


def _check(vectors: NDArray[np.float32]) -> None:
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise ClusteringError(
            f"Vectors must be float32 (n, d), not {vectors.dtype} {vectors.shape}.",
            hint="Cast and stack them first.",
        )
    infinite, wrong = bad_rows(vectors)
    if infinite or wrong:
        raise ClusteringError(
            f"{infinite} of {len(vectors)} vectors hold NaN or infinity, "
            f"{wrong} are not of unit length.",
            hint="Embed these rows again.",
        )


def _coordinates(
    vectors: NDArray[np.float32],
    hashes: NDArray[np.uint64],
    params: ClusterParams,
    say: Progress,
) -> tuple[Density, NDArray[np.float32]]:
    """Density clusters and map places of rows in canonical order."""
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
    say("map")
    return density, plane(space, fuzzy, hashes, params)


def _rank(labels: NDArray[np.int32], group: NDArray[np.int64], count: int) -> NDArray[np.int32]:
    """New numbers of the clusters by rows, largest first; ties by canonical order. −1 stays."""
    clustered = np.flatnonzero(labels >= 0)
    sizes = np.bincount(labels[clustered], minlength=count)
    first = np.full(count, len(labels), dtype=np.int64)
    np.minimum.at(first, labels[clustered], group[clustered])
    rank = np.empty(count + 1, dtype=np.int32)
    rank[np.lexsort((first, -sizes))] = np.arange(count, dtype=np.int32)
    rank[count] = -1
    return rank


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
    _check(vectors)
    asked = params or ClusterParams()
    say = progress or (lambda stage: None)
    threads = compute_threads(asked.threads, len(vectors))
    with threads, threadpool_limits(limits=1, user_api="blas"):
        return _cluster(vectors, _Rows.of(vectors, excluded), asked, say)


@dataclass(frozen=True)
class _Rows:
    """Which rows are clustered and which are noise from the start; int64, ascending."""

    counted: NDArray[np.int64]
    excluded: NDArray[np.int64]
    zero: NDArray[np.int64]

    @classmethod
    def of(cls, vectors: NDArray[np.float32], excluded: NDArray[np.bool_] | None) -> _Rows:
        out = np.zeros(len(vectors), dtype=bool) if excluded is None else excluded
        zero = ~out & ~vectors.any(axis=1)
        return cls(np.flatnonzero(~out & ~zero), np.flatnonzero(out), np.flatnonzero(zero))


@dataclass(frozen=True)
class _Found:
    """What was found of the rows that were clustered, in canonical order.

    Attributes:
        vectors: float32 (kept, d).
        labels: int32 (kept,), equal for equal vectors; numbers without a gap.
        count: how many clusters there are.
        density: probabilities, scores and the tree.
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


@dataclass(frozen=True)
class _Result:
    """Arrays of all n rows, filled in bit by bit; a row is noise at the origin until then."""

    labels: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    outliers: NDArray[np.float32]
    places: NDArray[np.float32]

    @classmethod
    def of(cls, n: int) -> _Result:
        flat = np.zeros((2, n), dtype=np.float32)
        places = np.zeros((n, 2), dtype=np.float32)
        return cls(np.full(n, -1, dtype=np.int32), flat[0], flat[1], places)

    def fill(self, rows: NDArray[np.int64], given: Assigned) -> None:
        self.labels[rows], self.probabilities[rows] = given.labels, given.probabilities
        self.outliers[rows], self.places[rows] = given.outlier_scores, given.xy


def _cluster(
    vectors: NDArray[np.float32], rows: _Rows, asked: ClusterParams, say: Progress
) -> Clustering:
    n, dimensions = vectors.shape
    counted = len(rows.counted)
    limit = min(counted, sample_rows(n, dimensions, asked.max_rows, asked.memory_mb))
    params = asked.for_sample(counted, limit)
    size = params.min_cluster_size or 5
    say("order")
    # As many copies as make a cluster, and fill each other's neighbour lists.
    cap = max(size, params.n_neighbors + 1, (params.min_samples or 5) + 1)
    canonical = canonical_order(vectors, cap, rows.counted)
    kept = min(len(canonical.kept), limit)
    found, best = _found(vectors, canonical, kept, params, say)
    result = _Result.of(n)
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
    say("themes")
    rank = _rank(result.labels[rows.counted], canonical.group, found.count)
    labels, kept_labels = rank[result.labels], rank[found.labels]
    middles = centroids(found.vectors, kept_labels, found.count)
    sizes = np.bincount(labels[labels >= 0], minlength=found.count)
    themes = cluster_themes(found.density.linkage, kept_labels, sizes, middles, size)
    noise = int((labels[rows.counted] < 0).sum())
    return Clustering(
        labels=labels,
        probabilities=result.probabilities,
        outlier_scores=result.outliers,
        themes=np.append(themes, np.int32(-1))[labels].astype(np.int32),
        x=np.ascontiguousarray(result.places[:, 0]),
        y=np.ascontiguousarray(result.places[:, 1]),
        cluster_themes=themes,
        centroids=middles,
        info={
            "rows": n,
            "clusters": found.count,
            "themes": int(themes.max(initial=-1)) + 1,
            "noise_share": noise / counted if counted else 0.0,
            "noise_rows": {
                "in no cluster": noise,
                "placeholder": len(rows.excluded),
                "zero vector": len(rows.zero),
            },
            "distinct_vectors": canonical.distinct,
            "clustered_rows": kept,
            "assigned_share": len(rest) / n if n else 0.0,
            "reduction": "none" if kept < MIN_REDUCED_ROWS else params.reduction,
            "min_cluster_size": size,
            "min_samples": params.min_samples,
            "selection": params.selection,
            "fingerprint": asked.fingerprint,
        },
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
        density, xy = _coordinates(chosen, canonical.kept_hashes[:kept], params, say)
    best = _best_copies(canonical, kept, density.labels, density.probabilities)
    # Copies of a vector have one label: that may empty a cluster, whose number is given again.
    labels = density.labels[best[canonical.kept_group[:kept]]]
    numbers = np.unique(labels[labels >= 0])
    labels = np.where(labels >= 0, np.searchsorted(numbers, labels), -1).astype(np.int32)
    return _Found(chosen, labels, len(numbers), density, xy), best


def _place(
    result: _Result,
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
