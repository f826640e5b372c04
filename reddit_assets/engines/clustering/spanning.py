"""The minimum spanning tree of mutual reachability in the full space, without all the distances.

Borůvka's rounds. An edge to a row outside somebody's k nearest is at least as long as the
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
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.blocks import BLOCK_FLOATS, run_blocks, tile_product
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
def _graph_rounds(
    indices: NDArray[np.int32],
    distances: NDArray[np.float64],
    core: NDArray[np.float64],
    reach: NDArray[np.float64],
    parent: NDArray[np.int64],
    edges: NDArray[np.float64],
    count: int,
    best: NDArray[np.float64],
    from_row: NDArray[np.int64],
    to_row: NDArray[np.int64],
) -> int:  # pragma: no cover - compiled
    """Borůvka rounds inside the graph while some component's best edge is certain.

    Leaves each component's best edge inside the graph in ``best``, ``from_row``, ``to_row``, at
    the component's root.
    """
    n, k = indices.shape
    bound = np.empty(n, dtype=np.float64)
    while True:
        best[:] = np.inf
        bound[:] = np.inf
        from_row[:] = -1
        for i in range(n):
            c = _find(parent, i)
            if reach[i] < bound[c]:
                bound[c] = reach[i]
        for i in range(n):
            c = _find(parent, i)
            for t in range(k):
                j = indices[i, t]
                if j < 0:
                    continue
                other = _find(parent, j)
                if other == c:
                    continue
                w = max(distances[i, t], core[i], core[j])
                # Both ends hear of the edge: a neighbour may not list the row itself.
                for side in range(2):
                    mine = c if side == 0 else other
                    a = i if side == 0 else j
                    b = j if side == 0 else i
                    low, high = min(a, b), max(a, b)
                    if w < best[mine] or (
                        w == best[mine]
                        and from_row[mine] >= 0
                        and (
                            low < min(from_row[mine], to_row[mine])
                            or (
                                low == min(from_row[mine], to_row[mine])
                                and high < max(from_row[mine], to_row[mine])
                            )
                        )
                    ):
                        best[mine] = w
                        from_row[mine] = a
                        to_row[mine] = b
        joined = 0
        for c in range(n):
            if parent[c] == c and from_row[c] >= 0 and best[c] <= bound[c]:
                a = _find(parent, from_row[c])
                b = _find(parent, to_row[c])
                if a != b:
                    parent[max(a, b)] = min(a, b)
                    edges[count, 0] = from_row[c]
                    edges[count, 1] = to_row[c]
                    edges[count, 2] = best[c]
                    count += 1
                    joined += 1
        if joined == 0:
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
    distances = _distances(vectors, graph.indices)
    rank = min(min_samples, distances.shape[1]) - 1
    core = np.ascontiguousarray(np.sort(distances, axis=1)[:, rank])
    finite = np.where(np.isfinite(distances), distances, -np.inf)
    reach = np.maximum(finite.max(axis=1), core)
    core[~np.isfinite(core)] = 2.0
    parent = np.arange(n, dtype=np.int64)
    edges = np.empty((n - 1, 3), dtype=np.float64)
    count = 0
    inside = _Best.empty(n)
    while True:
        count = _graph_rounds(
            graph.indices, distances, core, reach, parent, edges, count, *inside.arrays
        )
        if count == n - 1:
            break
        count = _full_round(vectors, core, reach, parent, edges, count, inside, threads)
        if count == n - 1:
            break
    pairs = np.concatenate(
        [
            edges[:, :2].astype(np.int64),
            np.stack(
                [np.repeat(np.arange(n), rank + 1), graph.indices[:, : rank + 1].ravel()], axis=1
            ),
        ]
    )
    pairs = pairs[pairs[:, 1] >= 0]
    weights = _pair_weights(vectors, pairs, core)
    walked = _prim(n, *_adjacency(n, pairs, weights))
    # hdbscan sorts with NumPy's default sort, whose order among ties is part of its result.
    return walked[np.argsort(walked.T[2])]


@dataclass(frozen=True)
class _Best:
    """Each component's best edge inside the graph, at the component's root."""

    weight: NDArray[np.float64]
    from_row: NDArray[np.int64]
    to_row: NDArray[np.int64]

    @classmethod
    def empty(cls, n: int) -> _Best:
        return cls(np.full(n, np.inf), np.full(n, -1, np.int64), np.full(n, -1, np.int64))

    @property
    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        return self.weight, self.from_row, self.to_row


def _full_round(
    vectors: NDArray[np.float32],
    core: NDArray[np.float64],
    reach: NDArray[np.float64],
    parent: NDArray[np.int64],
    edges: NDArray[np.float64],
    count: int,
    inside: _Best,
    threads: int | None,
) -> int:
    """One round by products: the best edge of every component but the largest.

    Only rows whose k-th distance is below their component's best edge so far can better it.
    """
    n = len(vectors)
    component = _roots(parent)
    sizes = np.bincount(component, minlength=n)
    searched = component != sizes.argmax()
    rows = np.flatnonzero(searched & (reach < inside.weight[component])).astype(np.int64)
    best = np.empty(len(rows), dtype=np.float64)
    target = np.empty(len(rows), dtype=np.int64)
    step = max(16, min(1024, BLOCK_FLOATS // n))

    def work(start: int) -> None:
        part = rows[start : start + step]
        sims = tile_product(vectors[part], vectors)
        _nearest_outside(
            sims, part, component, core, best[start : start + step], target[start : start + step]
        )

    run_blocks(work, range(0, len(rows), step), threads)
    roots = np.flatnonzero((sizes > 0) & (np.arange(n) != sizes.argmax()))
    roots = roots[inside.from_row[roots] >= 0]
    found = target >= 0
    starts = np.concatenate([rows[found], inside.from_row[roots]])
    ends = np.concatenate([target[found], inside.to_row[roots]])
    weights = np.concatenate([best[found], inside.weight[roots]])
    owners = np.concatenate([component[rows[found]], roots])
    done = np.zeros(n, dtype=bool)
    for at in np.lexsort((ends, starts, weights)):
        mine = owners[at]
        if done[mine]:
            continue
        done[mine] = True
        a, b = _find(parent, int(starts[at])), _find(parent, int(ends[at]))
        if a != b:
            parent[max(a, b)] = min(a, b)
            edges[count] = (starts[at], ends[at], weights[at])
            count += 1
    return count


@numba.njit(cache=True)
def _roots(parent: NDArray[np.int64]) -> NDArray[np.int64]:  # pragma: no cover - compiled
    out = np.empty(len(parent), dtype=np.int64)
    for i in range(len(parent)):
        out[i] = _find(parent, i)
    return out
