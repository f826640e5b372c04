"""Training of a node embedding whose randomness belongs to the rows, not to their numbers.

The attraction and repulsion are those of evoc's ``node_embedding`` (L. McInnes, BSD-2), which
takes its random numbers from edge numbers: one new row changes them all, and with them half of
the clusters. Here the random numbers of an edge come from the hashes of its two rows, and the row
that it draws comes from consistent hashing, so that a few new rows leave nearly all steps as they
were. Rows of a block are updated together from the same state: the result does not depend on the
number of threads.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.compiled import numba

__all__ = ["train"]

#: Blocks of rows per epoch, each of which sees the updates of those before.
BLOCKS = 8


@numba.njit(cache=True, inline="always")
def _mix(h: np.uint64) -> np.uint64:  # pragma: no cover - compiled
    """splitmix64's finalizer."""
    h ^= h >> np.uint64(30)
    h *= np.uint64(0xBF58476D1CE4E5B9)
    h ^= h >> np.uint64(27)
    h *= np.uint64(0x94D049BB133111EB)
    h ^= h >> np.uint64(31)
    return h


@numba.njit(cache=True)
def _buckets(hashes: NDArray[np.uint64], bits: int) -> NDArray[np.int32]:  # pragma: no cover
    """For each value of the top bits the first row at or above it, around the ring."""
    size = 1 << bits
    out = np.empty(size, dtype=np.int32)
    n = len(hashes)
    row = 0
    for b in range(size):
        low = np.uint64(b) << np.uint64(64 - bits)
        while row < n and hashes[row] < low:
            row += 1
        out[b] = row if row < n else 0
    return out


@numba.njit(cache=True, parallel=True, fastmath=True)
def _step(
    embedding: NDArray[np.float32],
    updates: NDArray[np.float32],
    start: int,
    stop: int,
    indptr: NDArray[np.int32],
    indices: NDArray[np.int32],
    rates: NDArray[np.float32],
    hashes: NDArray[np.uint64],
    buckets: NDArray[np.int32],
    shift: np.uint64,
    salt: np.uint64,
    epoch: int,
    alpha: np.float32,
    noise: np.float32,
    gamma: np.float32,
    carry: np.float32,
) -> None:  # pragma: no cover - compiled
    dim = embedding.shape[1]
    for i in numba.prange(start, stop):
        for d in range(dim):
            updates[i, d] *= carry
        for e in range(indptr[i], indptr[i + 1]):
            # An edge of rate 1 is due every epoch, one of rate 1/2 every second.
            rate = rates[e]
            if np.int32(np.float32(epoch + 1) * rate) == np.int32(np.float32(epoch) * rate):
                continue
            j = indices[e]
            square = np.float32(0.0)
            for d in range(dim):
                diff = embedding[i, d] - embedding[j, d]
                square += diff * diff
            if square > 0.0:
                dist = np.sqrt(square)
                pull = (np.float32(-2.0) * noise * dist - np.float32(2.0)) / (
                    np.float32(2.0) * square - np.float32(0.5) * dist + np.float32(1.0)
                )
                for d in range(dim):
                    updates[i, d] += pull * (embedding[i, d] - embedding[j, d]) * alpha
            key = _mix(hashes[i] + _mix(hashes[j] + salt))
            # Two of three due edges draw a negative sample.
            if key % np.uint64(3) == np.uint64(0):
                continue
            other = buckets[key >> shift]
            square = np.float32(0.0)
            for d in range(dim):
                diff = embedding[i, d] - embedding[other, d]
                square += diff * diff
            if square > np.float32(1e-2):
                push = (
                    gamma
                    * np.float32(4.0)
                    / ((np.float32(1.0) + np.float32(0.25) * square) * square)
                )
                for d in range(dim):
                    force = push * (embedding[i, d] - embedding[other, d])
                    force = min(max(force, np.float32(-4.0)), np.float32(4.0))
                    updates[i, d] += force * alpha


def train(
    graph: Any,
    start: NDArray[np.float32],
    hashes: NDArray[np.uint64],
    *,
    epochs: int,
    noise_level: float,
    seed: int,
    alpha: float = 0.5,
) -> NDArray[np.float32]:
    """Train a node embedding from a starting layout.

    Args:
        graph: CSR array (n, n) of edge weights, symmetric.
        start: float32 (n, dimensions).
        hashes: uint64 (n,), of the rows, ascending.
        epochs: passes over the rows.
        noise_level: 0 (cluster more) to 1 (drop more).
        seed: of all random numbers.
        alpha: first learning rate; it falls to zero.

    Returns:
        float32 (n, dimensions).
    """
    n = start.shape[0]
    embedding = np.ascontiguousarray(start, dtype=np.float32).copy()
    updates = np.zeros_like(embedding)
    weights = graph.data.astype(np.float32)
    rates = np.maximum(weights / weights.max(), 1.0 / epochs).astype(np.float32)
    indptr, indices = graph.indptr.astype(np.int32), graph.indices.astype(np.int32)
    bits = max(20, int(n - 1).bit_length() + 1)
    buckets = _buckets(hashes, bits)
    # Blocks are ranges of hashes, so that a row stays in its block.
    edges_of_blocks = np.arange(BLOCKS, dtype=np.uint64) << np.uint64(61)
    cuts = [*np.searchsorted(hashes, edges_of_blocks).tolist(), n]
    gammas = np.linspace(0.5, 1.5, epochs).astype(np.float32)
    rate = np.float32(alpha)
    carry = np.float32(0.0)
    for epoch in range(epochs):
        mixed = (seed * 0x9E3779B97F4A7C15 + epoch * 0xD1B54A32D192ED03) % 2**64
        for first, last in pairwise(cuts):
            _step(
                embedding,
                updates,
                first,
                last,
                indptr,
                indices,
                rates,
                hashes,
                buckets,
                np.uint64(64 - bits),
                np.uint64(mixed),
                epoch,
                rate,
                np.float32(noise_level),
                gammas[epoch],
                carry,
            )
            embedding[first:last] += updates[first:last]
        carry = np.float32((1.0 - rate) ** 2 * 0.5)
        rate = np.float32(alpha * (1.0 - epoch / epochs))
    return embedding
