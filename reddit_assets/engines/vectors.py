"""Lengths of vectors: what counts as one of length one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["NORM_TOLERANCE", "bad_rows", "norms"]

#: How far a row's norm may be from 1.
NORM_TOLERANCE = 1e-3


def norms(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Lengths of rows, float64 (n,), for vectors of shape (n, d)."""
    return np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))


def bad_rows(vectors: NDArray[np.float32]) -> tuple[int, int]:
    """How many rows are not finite, and how many finite ones are of another length than 1 or 0."""
    infinite = wrong = 0
    for start in range(0, len(vectors), 65_536):
        lengths = norms(vectors[start : start + 65_536])
        finite = np.isfinite(lengths)
        infinite += int((~finite).sum())
        known = lengths[finite]
        wrong += int(((np.abs(known - 1.0) > NORM_TOLERANCE) & (known > 0)).sum())
    return infinite, wrong
