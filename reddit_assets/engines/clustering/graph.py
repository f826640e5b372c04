"""The cosine neighbour graph of the rows, for the reduction, the map and the spanning tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.neighbors import knn

__all__ = ["NeighborGraph", "build_graph", "fuzzy_graph"]

#: Smallest cosine that a distance is computed from; keeps the logarithm finite.
MIN_COSINE = 1e-4


@dataclass(frozen=True)
class NeighborGraph:
    """Nearest neighbours of each row.

    Attributes:
        indices: int32 (n, k), −1 where there is none.
        similarities: float32 (n, k), cosines, descending.
    """

    indices: NDArray[np.int32]
    similarities: NDArray[np.float32]


def build_graph(
    vectors: NDArray[np.float32], k: int, *, seed: int, threads: int | None = None
) -> NeighborGraph:
    """The ``min(k, n − 1)`` nearest neighbours of unit rows, float32 (n, d)."""
    return NeighborGraph(*knn(vectors, min(k, len(vectors) - 1), seed=seed, threads=threads))


def fuzzy_graph(graph: NeighborGraph, n_neighbors: int) -> Any:
    """The weighted symmetric graph that node embeddings train on, a CSR array (n, n).

    evoc's construction (UMAP's fuzzy union) with its distance for float vectors, −log2 of the
    cosine. The row itself comes first among its neighbours, as evoc and UMAP count it.
    """
    from evoc.graph_construction import neighbor_graph_matrix

    n = graph.indices.shape[0]
    others = min(n_neighbors - 1, graph.indices.shape[1])
    indices = np.concatenate(
        [np.arange(n, dtype=np.int32)[:, None], graph.indices[:, :others]], axis=1
    )
    cosines = np.clip(graph.similarities[:, :others], MIN_COSINE, 1.0)
    distances = np.concatenate(
        [np.zeros((n, 1), dtype=np.float32), -np.log2(cosines).astype(np.float32)], axis=1
    )
    matrix = neighbor_graph_matrix(float(indices.shape[1]), indices, distances, True).tocsr()
    matrix.sort_indices()
    return matrix
