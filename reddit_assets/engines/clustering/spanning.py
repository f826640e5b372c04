"""The minimum spanning tree of mutual reachability in the full space, without all the distances.

Borůvka's rounds. An edge to a row outside a row's k nearest is at least as long as the
distance to the k-th, so a component whose best edge inside the neighbour graph is no longer than
its shortest k-th distance has its true best edge. Components for which that does not hold are
searched in full by blocked products; the largest component never needs to be: a round is correct
for any subset of the components. With exact neighbours the tree is exact.

Mutual reachability has many ties (a row's core distance is its distance to several others), and
the condensed tree depends on which of the tied trees is taken. All tied edges lie among a row's
first ``min_samples`` neighbours, so a last walk by Prim's algorithm over those and the tree's own
edges gives the very tree that ``hdbscan`` would have built from the same rows in the same order.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.blocks import BLOCK_FLOATS, run_blocks, tile_product
from reddit_assets.engines.clustering.compiled import numba
from reddit_assets.engines.clustering.graph import NeighborGraph

__all__ = ["spanning_tree"]


@numba.njit(cache=True, parallel=True)
def _distances(
    vectors: NDArray[np.float32], indices: NDArray[np.int32]
) -> NDArray[np.float64]:  # pragma: no cover - compiled
    """Euclidean distances to each neighbour, from differences: exact for near-duplicates."""
    n, k = indices.shape
    out = np.empty((n, k), dtype=np.float64)
    for i in numba.prange(n):
        for t in range(k):
            j = indices[i, t]
            if j < 0:
                out[i, t] = np.inf
                continue
            total = 0.0
            for d in range(vectors.shape[1]):
                diff = np.float64(vectors[i, d]) - np.float64(vectors[j, d])
                total += diff * diff
            out[i, t] = np.sqrt(total)
    return out


@numba.njit(cache=True)
def _find(parent: NDArray[np.int64], i: int) -> int:  # pragma: no cover - compiled
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@numba.njit(cache=True)
def _roots(parent: NDArray[np.int64]) -> NDArray[np.int64]:  # pragma: no cover - compiled
    """The component of each row, named by its lowest row."""
    out = np.empty(len(parent), dtype=np.int64)
    for i in range(len(parent)):
        out[i] = _find(parent, i)
    return out


@numba.njit(cache=True)
def _offer(
    best: NDArray[np.float64], ends: NDArray[np.int64], mine: int, w: float, a: int, b: int
) -> None:  # pragma: no cover - compiled
    """Take an edge as a component's best if it is shorter; ties go to the lower row numbers."""
    known = (min(ends[mine, 0], ends[mine, 1]), max(ends[mine, 0], ends[mine, 1]))
    if w < best[mine] or (w == best[mine] and (min(a, b), max(a, b)) < known):
        best[mine] = w
        ends[mine, 0], ends[mine, 1] = a, b


@numba.njit(cache=True)
def _best_in_graph(
    indices: NDArray[np.int32],
    distances: NDArray[np.float64],
    core: NDArray[np.float64],
    component: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:  # pragma: no cover - compiled
    """Each component's shortest edge in the neighbour graph: length and ends, at its root."""
    n, k = indices.shape
    best = np.full(n, np.inf)
    ends = np.full((n, 2), n, dtype=np.int64)
    for i in range(n):
        for t in range(k):
            j = indices[i, t]
            if j < 0 or component[j] == component[i]:
                continue
            w = max(distances[i, t], core[i], core[j])
            # Offered to both ends: a neighbour may not list the row itself.
            _offer(best, ends, component[i], w, i, j)
            _offer(best, ends, component[j], w, j, i)
    return best, ends


@numba.njit(cache=True)
def _join(
    best: NDArray[np.float64],
    ends: NDArray[np.int64],
    certain: NDArray[np.float64],
    parent: NDArray[np.int64],
    edges: NDArray[np.int64],
    count: int,
) -> int:  # pragma: no cover - compiled
    """Add each component's best edge that is no longer than ``certain``; the new number of edges.

    Up to that length it is the component's shortest of all edges.
    """
    for c in range(len(parent)):
        if best[c] < np.inf and best[c] <= certain[c]:
            a, b = _find(parent, ends[c, 0]), _find(parent, ends[c, 1])
            if a != b:
                parent[max(a, b)] = min(a, b)
                edges[count] = ends[c]
                count += 1
    return count


@numba.njit(cache=True, nogil=True)
def _nearest_outside(
    sims: NDArray[np.float32],
    rows: NDArray[np.int64],
    component: NDArray[np.int64],
    core: NDArray[np.float64],
    out_d: NDArray[np.float64],
    out_j: NDArray[np.int64],
) -> None:  # pragma: no cover - compiled
    """The nearest row of another component for each of ``rows``, whose cosines are ``sims``."""
    for r in range(len(rows)):
        i = rows[r]
        mine = component[i]
        best = np.inf
        at = -1
        for j in range(sims.shape[1]):
            if component[j] == mine or core[j] >= best:
                continue
            square = 2.0 - 2.0 * np.float64(sims[r, j])
            d = np.sqrt(square) if square > 0.0 else 0.0
            w = max(d, core[i], core[j])
            if w < best:
                best = w
                at = j
        out_d[r] = best
        out_j[r] = at


@numba.njit(cache=True)
def _offer_all(
    best: NDArray[np.float64],
    ends: NDArray[np.int64],
    component: NDArray[np.int64],
    rows: NDArray[np.int64],
    targets: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> None:  # pragma: no cover - compiled
    for r in range(len(rows)):
        if targets[r] >= 0:
            _offer(best, ends, component[rows[r]], weights[r], rows[r], targets[r])


def _search(
    vectors: NDArray[np.float32],
    core: NDArray[np.float64],
    reach: NDArray[np.float64],
    component: NDArray[np.int64],
    best: NDArray[np.float64],
    ends: NDArray[np.int64],
    threads: int | None,
) -> NDArray[np.float64]:
    """Improve each component's best edge by products, except the largest's; what is certain then.

    Only rows whose k-th distance is below their component's best edge so far can improve it.
    """
    n = len(vectors)
    largest = np.bincount(component, minlength=n).argmax()
    rows = np.flatnonzero((component != largest) & (reach < best[component])).astype(np.int64)
    weights = np.empty(len(rows), dtype=np.float64)
    targets = np.empty(len(rows), dtype=np.int64)
    step = max(16, min(1024, BLOCK_FLOATS // n))

    def work(start: int) -> None:
        part = slice(start, start + step)
        sims = tile_product(vectors[rows[part]], vectors)
        _nearest_outside(sims, rows[part], component, core, weights[part], targets[part])

    run_blocks(work, range(0, len(rows), step), threads)
    _offer_all(best, ends, component, rows, targets, weights)
    certain = np.full(n, np.inf)
    certain[largest] = -np.inf
    return certain


@numba.njit(cache=True, parallel=True)
def _pair_weights(
    vectors: NDArray[np.float32], pairs: NDArray[np.int64], core: NDArray[np.float64]
) -> NDArray[np.float64]:  # pragma: no cover - compiled
    """Mutual reachability of each pair, summed in the same order as :func:`_distances`."""
    out = np.empty(len(pairs), dtype=np.float64)
    for p in numba.prange(len(pairs)):
        i, j = pairs[p, 0], pairs[p, 1]
        total = 0.0
        for d in range(vectors.shape[1]):
            diff = np.float64(vectors[i, d]) - np.float64(vectors[j, d])
            total += diff * diff
        out[p] = max(np.sqrt(total), core[i], core[j])
    return out


def _adjacency(
    n: int, pairs: NDArray[np.int64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Both directions of the pairs as a compressed adjacency: starts, targets, weights."""
    heads = np.concatenate([pairs[:, 0], pairs[:, 1]])
    tails = np.concatenate([pairs[:, 1], pairs[:, 0]])
    order = np.argsort(heads, kind="stable")
    starts = np.searchsorted(heads[order], np.arange(n + 1)).astype(np.int64)
    return starts, tails[order], np.concatenate([weights, weights])[order]


@numba.njit(cache=True)
def _prim(
    n: int, starts: NDArray[np.int64], tails: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:  # pragma: no cover - compiled
    """Prim's walk from row 0 with hdbscan's choice among equal weights: the lowest row number."""
    edges = np.empty((n - 1, 3), dtype=np.float64)
    inside = np.zeros(n, dtype=np.bool_)
    current = np.full(n, np.inf)
    source = np.zeros(n, dtype=np.int64)
    heap = [(0.0, 0)]
    heap.pop()
    node = 0
    for at in range(n - 1):
        inside[node] = True
        for e in range(starts[node], starts[node + 1]):
            j = tails[e]
            if not inside[j] and weights[e] < current[j]:
                current[j] = weights[e]
                source[j] = node
                heapq.heappush(heap, (weights[e], j))
        w, j = heapq.heappop(heap)
        while inside[j]:
            w, j = heapq.heappop(heap)
        edges[at, 0] = source[j]
        edges[at, 1] = j
        edges[at, 2] = w
        node = j
    return edges


def spanning_tree(
    vectors: NDArray[np.float32],
    graph: NeighborGraph,
    min_samples: int,
    *,
    threads: int | None = None,
) -> NDArray[np.float64]:
    """Edges of the minimum spanning tree of mutual reachability (Euclidean on unit rows).

    hdbscan's meaning: the core distance is the distance to the ``min_samples``-th other row.

    Args:
        vectors: float32 (n, d), unit rows, n ≥ 2.
        graph: neighbours, at least ``min_samples`` each where there are so many rows.

    Returns:
        float64 (n − 1, 3): from, to, distance; ascending by distance.
    """
    n = vectors.shape[0]
    indices = graph.indices
    distances = _distances(vectors, indices)
    rank = min(min_samples, indices.shape[1])
    core = np.ascontiguousarray(np.sort(distances, axis=1)[:, rank - 1])
    finite = np.where(np.isfinite(distances), distances, -np.inf)
    reach = np.maximum(finite.max(axis=1), core)
    core[~np.isfinite(core)] = 2.0
    parent = np.arange(n, dtype=np.int64)
    edges = np.empty((n - 1, 2), dtype=np.int64)
    count = 0
    while count < n - 1:
        component = _roots(parent)
        best, ends = _best_in_graph(indices, distances, core, component)
        shortest = np.full(n, np.inf)
        np.minimum.at(shortest, component, reach)
        before, count = count, _join(best, ends, shortest, parent, edges, count)
        if count == before:
            certain = _search(vectors, core, reach, component, best, ends, threads)
            count = _join(best, ends, certain, parent, edges, count)
    near = np.stack([np.repeat(np.arange(n), rank), indices[:, :rank].ravel()], axis=1)
    return _hdbscans_tree(vectors, np.concatenate([edges, near]), core)


def _hdbscans_tree(
    vectors: NDArray[np.float32], pairs: NDArray[np.int64], core: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The tree that ``hdbscan`` builds, from pairs of rows that hold all edges it can choose."""
    pairs = pairs[pairs[:, 1] >= 0]
    weights = _pair_weights(vectors, pairs, core)
    walked = _prim(len(vectors), *_adjacency(len(vectors), pairs, weights))
    # hdbscan sorts with NumPy's default sort, whose order among ties is part of its result.
    return walked[np.argsort(walked.T[2])]
