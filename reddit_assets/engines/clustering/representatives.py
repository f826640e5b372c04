"""The posts that stand for a cluster: the medoid and the rows nearest to it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.grouping import rows_by_label

__all__ = ["representatives"]

#: Rows nearest to the medoid among which distinct ones are looked for.
CANDIDATES = 32


def representatives(
    vectors: NDArray[np.float32],
    labels: NDArray[np.int32],
    centroids: NDArray[np.float32],
    limit: int = 5,
) -> list[NDArray[np.int64]]:
    """Row numbers per cluster: the medoid first, then the distinct rows nearest to it.

    For unit vectors the row with the largest sum of cosines to its cluster is the one nearest to
    the centroid, so the medoid needs no pairwise distances. Rows that are (nearly) equal to one
    already chosen are passed over.

    Args:
        vectors: float32 (n, d), unit rows.
        labels: int32 (n,), −1 is noise.
        centroids: float32 (clusters, d).
    """
    result = []
    for rows, middle in zip(rows_by_label(labels, len(centroids)), centroids, strict=True):
        closeness = _products(vectors, rows, middle)
        medoid = rows[closeness.argmax()]
        near = _products(vectors, rows, vectors[medoid])
        nearest = rows[np.argsort(-near, kind="stable")[: CANDIDATES * limit]]
        chosen: list[int] = []
        for row in nearest:
            if all(float(vectors[row] @ vectors[other]) < 0.995 for other in chosen):
                chosen.append(int(row))
                if len(chosen) == limit:
                    break
        result.append(np.array(chosen, dtype=np.int64))
    return result


def _products(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], direction: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Cosine of each row to a direction; sums of single rows: the same for every order of them."""
    return np.concatenate(
        [
            np.einsum("ij,j->i", vectors[rows[at : at + 65_536]], direction)
            for at in range(0, len(rows), 65_536)
        ]
    )
