"""A canonical row order that depends on the vectors alone, and exact duplicates capped.

Everything random or order-dependent downstream sees the rows in this order, so that the same rows
give the same labels whatever the order of the files. The order is that of a 64-bit hash of the
vectors' bytes, so its first m rows are also a uniform sample, stable from night to night.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.compiled import numba

__all__ = ["Canonical", "canonical_order", "row_hashes"]


@numba.njit(cache=True, parallel=True)
def _hash_rows(words: NDArray[np.uint32]) -> NDArray[np.uint64]:  # pragma: no cover - compiled
    n, d = words.shape
    out = np.empty(n, dtype=np.uint64)
    for i in numba.prange(n):
        h = np.uint64(0x9E3779B97F4A7C15)
        for j in range(d):
            h ^= np.uint64(words[i, j])
            h *= np.uint64(0xBF58476D1CE4E5B9)
            h ^= h >> np.uint64(29)
        h *= np.uint64(0x94D049BB133111EB)
        h ^= h >> np.uint64(32)
        out[i] = h
    return out


def row_hashes(vectors: NDArray[np.float32]) -> NDArray[np.uint64]:
    """A 64-bit hash of each row's bytes (splitmix64's constants), shape (n,)."""
    words = np.ascontiguousarray(vectors, dtype=np.float32).view(np.uint32)
    return _hash_rows(words)


@dataclass(frozen=True)
class Canonical:
    """Which rows are clustered, in which order, and where each row finds its label.

    Attributes:
        kept: int64 (m,), row numbers in canonical order, at most ``cap`` copies of each vector.
        group: int64 (n,), for each row that counts the number of its distinct vector.
        kept_group: int64 (m,), the same for the kept rows.
        kept_hashes: uint64 (m,), their hashes, ascending.
        distinct: how many distinct vectors there are.
    """

    kept: NDArray[np.int64]
    group: NDArray[np.int64]
    kept_group: NDArray[np.int64]
    kept_hashes: NDArray[np.uint64]
    distinct: int


def canonical_order(
    vectors: NDArray[np.float32], cap: int, rows: NDArray[np.int64] | None = None
) -> Canonical:
    """Order rows by content hash and keep at most ``cap`` copies of each distinct vector.

    HDBSCAN needs no more than ``min_cluster_size`` copies to see a clump of equal rows as a
    cluster; more copies cost quadratic work in a neighbour graph and add nothing.

    Args:
        vectors: float32 (n, d).
        cap: copies kept of each distinct vector, at least 1.
        rows: int64 (m,), the rows that count; all if not given.
    """
    rows = np.arange(len(vectors)) if rows is None else rows
    n = len(rows)
    hashes = row_hashes(vectors)[rows]
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    new = np.ones(n, dtype=bool)
    same = ordered[1:] == ordered[:-1]
    # Equal hashes are compared in full: a collision must not merge two different rows.
    pairs = np.flatnonzero(same)
    for start in range(0, len(pairs), 65536):
        part = pairs[start : start + 65536]
        left, right = rows[order[part]], rows[order[part + 1]]
        equal = (vectors[left] == vectors[right]).all(axis=1)
        same[part] = equal
    new[1:] = ~same
    group_sorted = np.cumsum(new) - 1
    starts = np.flatnonzero(new)
    copy = np.arange(n) - starts[group_sorted] if n else np.zeros(0, dtype=np.int64)
    keep = copy < cap
    group = np.empty(n, dtype=np.int64)
    group[order] = group_sorted
    return Canonical(
        kept=rows[order[keep]].astype(np.int64),
        group=group,
        kept_group=group_sorted[keep].astype(np.int64),
        kept_hashes=ordered[keep],
        distinct=len(starts),
    )
