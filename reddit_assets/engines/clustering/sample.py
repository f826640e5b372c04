"""Above a limit of memory: cluster a sample, give other rows their neighbours' labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.neighbors import EXACT_ROWS, nearest

__all__ = ["Assigned", "assign", "rows_in_memory"]

#: Measured bytes per clustered row beside its vector: graph, training state, HDBSCAN's tree.
ROW_BYTES = 4_600
#: Bytes per row of all regions: place, label, probability, hash, and their orders.
PLACE_BYTES = 160
#: Bytes of the process itself with its libraries loaded.
BASE_BYTES = 500 * 2**20
#: A sample is never smaller than this; a smaller limit cannot be kept.
MIN_SAMPLE = 5_000
#: Neighbours that vote on the label of an assigned row.
VOTERS = 10


def rows_in_memory(rows: int, dimensions: int, together: int, memory_mb: int) -> int:
    """How many of ``rows`` rows are clustered in ``memory_mb`` MiB.

    All vectors are held once (by the caller), those of the clustered rows a second time in
    canonical order, and those of the region at work a third time.

    Args:
        together: rows of a region at most.
    """
    vector = dimensions * 4
    free = memory_mb * 2**20 - BASE_BYTES - rows * vector
    fitting = free / (vector + ROW_BYTES)
    if fitting > together:
        fitting = (free - together * (vector + ROW_BYTES)) / (vector + PLACE_BYTES)
        fitting = max(fitting, together)
    return min(rows, max(MIN_SAMPLE, int(fitting)))


@dataclass(frozen=True)
class Assigned:
    """What the neighbours say of each query row.

    Attributes:
        labels: int32 (q,), −1 is noise.
        probabilities, outlier_scores: float32 (q,).
        xy: float32 (q, 2), the mean place of the neighbours of the same label.
    """

    labels: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    outlier_scores: NDArray[np.float32]
    xy: NDArray[np.float32]


def assign(
    queries: NDArray[np.float32],
    base: NDArray[np.float32],
    labels: NDArray[np.int32],
    probabilities: NDArray[np.float32],
    outlier_scores: NDArray[np.float32],
    xy: NDArray[np.float32],
    *,
    seed: int,
    threads: int | None,
    exact_rows: int = EXACT_ROWS,
) -> Assigned:
    """Label query rows by a vote of their nearest sampled rows, weighted by similarity.

    Args:
        queries: float32 (q, d), unit rows.
        base: float32 (n, d), unit rows that have labels.
        labels, probabilities, outlier_scores, xy: of the base rows.
        exact_rows: base rows up to which all of them are looked at.
    """
    k = min(VOTERS, len(base))
    indices, sims = nearest(queries, base, k, seed=seed, threads=threads, exact_rows=exact_rows)
    found = indices >= 0
    indices = np.where(found, indices, 0)
    weights = np.where(found, np.clip(sims, 1e-6, None), 0.0).astype(np.float32)
    voted = labels[indices]
    # Support of each neighbour's label among all neighbours; the best supported wins, and among
    # equals the nearest neighbour's.
    support = np.zeros_like(weights)
    for voter in range(k):
        support += weights[:, voter : voter + 1] * (voted == voted[:, voter : voter + 1])
    winner = support.argmax(axis=1)
    row = np.arange(len(queries))
    label = voted[row, winner]
    agree = weights * (voted == label[:, None])
    total = np.maximum(weights.sum(axis=1), 1e-12)
    mine = np.maximum(agree.sum(axis=1, keepdims=True), 1e-12)
    probability = (agree * probabilities[indices]).sum(axis=1) / total
    outlier = (weights * outlier_scores[indices]).sum(axis=1) / total
    place = (agree[:, :, None] * xy[indices]).sum(axis=1) / mine
    return Assigned(
        labels=label.astype(np.int32),
        probabilities=np.where(label >= 0, probability, 0.0).astype(np.float32),
        outlier_scores=outlier.astype(np.float32),
        xy=place.astype(np.float32),
    )
