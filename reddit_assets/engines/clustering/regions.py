"""Rows of a large subreddit cut into regions, so that each is clustered at full resolution.

HDBSCAN's time grows faster than the rows, and a sample has no detail: of a topic of 500 posts among
a million, 25 are in a sample of 50,000. So a sample gives the coarse structure alone, a layout of
few dimensions. Every row gets a place in it, and the layout is cut in two where the fewest rows
lie, again and again, until a region has no more rows than are clustered together. In that layout
what is alike lies close together, so a cut through empty space leaves it together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.grouping import rows_by_label

__all__ = ["cut", "keep_coarse"]

#: A cut leaves at least this share of the rows on either side.
LEAST_SHARE = 0.25
#: Bins between these two that the fewest rows are looked for in.
BINS = 128


def cut(layout: NDArray[np.float32], most: int) -> list[NDArray[np.int64]]:
    """Regions of at most ``most`` rows, each ascending row numbers, in a fixed order.

    Args:
        layout: float32 (n, dimensions).
        most: at least 1.
    """
    open_regions = [np.arange(len(layout))]
    done = []
    while open_regions:
        rows = open_regions.pop()
        if len(rows) <= most:
            done.append(rows)
            continue
        left = _left_side(layout[rows])
        open_regions += [rows[~left], rows[left]]
    return done


def keep_coarse(
    labels: NDArray[np.int32], coarse: NDArray[np.int32], size: int
) -> NDArray[np.int32]:
    """Labels in which what is left of a coarse cluster is no noise.

    A region's dense parts stand out of a ground that is a cluster among others when the whole is
    looked at, and the root of the tree, which is none, when the region is alone. Left rows join the
    cluster that holds at least half of their coarse one, or are one by themselves if they are many
    enough.

    Args:
        labels: int32 (n,), the clusters of all regions, numbers without a gap, −1 noise.
        coarse: int32 (n,), the coarse clusters, likewise.
        size: rows of the smallest cluster.
    """
    labels = labels.copy()
    count = int(labels.max(initial=-1)) + 1
    for rows in rows_by_label(coarse, int(coarse.max(initial=-1)) + 1):
        mine = labels[rows]
        left = rows[mine < 0]
        parts = np.bincount(mine[mine >= 0], minlength=1)
        if 2 * parts.max() >= len(rows):
            labels[left] = parts.argmax()
        elif len(left) >= size:
            labels[left] = count
            count += 1
    return labels


def _left_side(points: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which points lie before the emptiest place between the two ends of a principal axis."""
    centred = (points - points.mean(axis=0, dtype=np.float64)).astype(np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    best: tuple[float, NDArray[np.bool_]] | None = None
    for axis in axes.T[::-1]:
        along = centred @ axis
        low, high = np.quantile(along, (LEAST_SHARE, 1 - LEAST_SHARE))
        if not high > low:
            continue
        counts, edges = np.histogram(along, bins=BINS, range=(low, high))
        # Three bins together: one alone may be empty by chance.
        smooth = np.convolve(counts, np.ones(3), mode="valid")
        at = int(smooth.argmin()) + 1
        emptiness = float(smooth[at - 1] / max(smooth.mean(), 1e-9))
        if best is None or emptiness < best[0]:
            best = emptiness, along < (edges[at] + edges[at + 1]) / 2
    if best is None:
        # All in one place: any half will do.
        return np.arange(len(points)) < len(points) // 2
    return best[1]
