"""Batches by tokens: which texts are computed together."""

from __future__ import annotations

import numpy as np

__all__ = ["padding_share", "plan_batches"]


def plan_batches(lengths: np.ndarray, budget: int, *, padded: bool = True) -> list[np.ndarray]:
    """Split texts into batches of about ``budget`` tokens, longest texts first.

    Sorting by length makes the texts of a batch nearly equally long, so that padding costs next
    to nothing; longest first makes memory peak at the beginning and leaves the small batches for
    the end, where they even out the finish of parallel streams.

    Args:
        lengths: tokens per text, int, shape (n,).
        budget: tokens per batch. A batch holds at least one text, so a text longer than the
            budget gets a batch of its own.
        padded: whether a batch costs (number of texts) × (its longest text) rather than its sum.

    Returns:
        Row numbers (int64) of each batch; every row is in exactly one. Equal lengths keep their
        order.
    """
    lengths = np.asarray(lengths)
    order = np.argsort(-lengths, kind="stable")
    ordered = np.maximum(lengths[order], 1)
    batches: list[np.ndarray] = []
    start, count = 0, len(order)
    ends = np.cumsum(ordered)
    while start < count:
        if padded:
            size = budget // int(ordered[start])
        else:
            before = int(ends[start - 1]) if start else 0
            size = int(np.searchsorted(ends, before + budget, side="right")) - start
        stop = min(start + max(size, 1), count)
        batches.append(order[start:stop])
        start = stop
    return batches


def padding_share(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    """Share of the computed tokens that are padding when each batch is padded to its longest."""
    computed = sum(len(rows) * int(lengths[rows].max(initial=1)) for rows in batches)
    return 1.0 - float(np.sum(lengths)) / computed if computed else 0.0
