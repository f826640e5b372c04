"""Which rows are in which cluster."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["rows_by_label"]


def rows_by_label(labels: NDArray[np.int32], count: int) -> list[NDArray[np.int64]]:
    """Row numbers, ascending, of each of the labels 0 … count − 1; others are in none."""
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(count + 1))
    return [order[start:stop] for start, stop in pairwise(bounds)]
