"""Rows grouped into lists around spherical k-means centres, for approximate neighbours.

An inverted file (Jégou, Douze and Schmid 2011) with dense products. Lists that are much too large,
as near-duplicates make them, are cut into pieces in canonical order, so that the work per row is
bounded whatever the data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.blocks import run_blocks, tile_product
from reddit_assets.engines.clustering.grouping import rows_by_label

__all__ = ["InvertedLists", "build_inverted_lists"]

#: Rows per list aimed at.
LIST_ROWS = 400
#: Lists searched per query.
PROBES = 10
#: Centres at most, so that the search for the centres stays small.
MAX_LISTS = 8_192
#: A list larger than this many times the average is cut.
OVERSIZE = 4
#: Rows per centre that k-means sees, and its rounds.
TRAIN_ROWS = 40
ROUNDS = 5


@dataclass(frozen=True)
class InvertedLists:
    """Lists of rows; a "piece" is a whole list or a part of an oversized one.

    Attributes:
        centres: float32 (c, d), unit rows.
        first: int64 (c + 1,), number of the first piece of each centre.
        order: int32 (n,), row numbers sorted by piece.
        starts: int64 (pieces + 1,), where each piece begins in ``order``.
        home: int32 (n,), the piece that each row is in.
    """

    centres: NDArray[np.float32]
    first: NDArray[np.int64]
    order: NDArray[np.int32]
    starts: NDArray[np.int64]
    home: NDArray[np.int32]

    @property
    def count(self) -> int:
        """Number of pieces."""
        return len(self.starts) - 1

    def members(self, piece: int) -> NDArray[np.int32]:
        """Row numbers in a piece, ascending."""
        return self.order[self.starts[piece] : self.starts[piece + 1]]

    def probe(
        self,
        queries: NDArray[np.float32],
        rows: NDArray[np.int32],
        same: bool,
        threads: int | None,
    ) -> NDArray[np.int32]:
        """The pieces that each of the query rows looks into, int32 (len(rows), probes)."""
        probes = min(PROBES, len(self.centres))
        result = np.empty((len(rows), probes), dtype=np.int32)

        def work(start: int) -> None:
            part = rows[start : start + 1024]
            sims = tile_product(queries[part], self.centres)
            if probes < sims.shape[1]:
                top = np.argpartition(-sims, probes - 1, axis=1)[:, :probes]
            else:
                top = np.broadcast_to(np.arange(probes), sims.shape)
            pieces = self.first[top + 1] - self.first[top]
            # A query takes one piece of an oversized list: its own, or one by its number.
            chosen = self.first[top] + part[:, None] % pieces
            if same:
                home = self.home[part][:, None]
                inside = (home >= self.first[top]) & (home < self.first[top + 1])
                chosen = np.where(inside, home, chosen)
            result[start : start + 1024] = chosen

        run_blocks(work, range(0, len(rows), 1024), threads)
        return result


def _assign(
    vectors: NDArray[np.float32],
    rows: NDArray[np.int64] | None,
    centres: NDArray[np.float32],
    threads: int | None,
) -> NDArray[np.int32]:
    n = len(vectors) if rows is None else len(rows)
    result = np.empty(n, dtype=np.int32)

    def work(start: int) -> None:
        stop = min(n, start + 1024)
        part = vectors[start:stop] if rows is None else vectors[rows[start:stop]]
        result[start:stop] = tile_product(part, centres).argmax(axis=1)

    run_blocks(work, range(0, n, 1024), threads)
    return result


def build_inverted_lists(
    vectors: NDArray[np.float32], *, seed: int, threads: int | None = None
) -> InvertedLists:
    """Spherical k-means on a sample of the rows, then every row into the list of its centre.

    Args:
        vectors: float32 (n, d), unit rows.
    """
    n = vectors.shape[0]
    count = int(min(MAX_LISTS, max(1, n // LIST_ROWS)))
    rng = np.random.default_rng(seed)
    train = np.sort(rng.choice(n, size=min(n, count * TRAIN_ROWS), replace=False))
    centres = vectors[np.sort(rng.choice(train, size=count, replace=False))].copy()
    for _ in range(ROUNDS):
        labels = _assign(vectors, train, centres, threads)
        for number, inside in enumerate(rows_by_label(labels, count)):
            if len(inside):
                total = vectors[train[inside]].sum(axis=0, dtype=np.float64)
                norm = np.linalg.norm(total)
                if norm > 0:
                    centres[number] = total / norm
    labels = _assign(vectors, None, centres, threads)
    sizes = np.bincount(labels, minlength=count)
    limit = OVERSIZE * max(1, n // count)
    pieces = np.maximum(1, -(-sizes // limit))
    first = np.concatenate([[0], np.cumsum(pieces)]).astype(np.int64)
    order = np.argsort(labels, kind="stable")
    rank = np.arange(n) - (np.cumsum(sizes) - sizes)[labels[order]]
    home = np.empty(n, dtype=np.int32)
    home[order] = first[labels[order]] + rank % pieces[labels[order]]
    by_piece = np.argsort(home, kind="stable").astype(np.int32)
    starts = np.searchsorted(home[by_piece], np.arange(first[-1] + 1)).astype(np.int64)
    return InvertedLists(centres=centres, first=first, order=by_piece, starts=starts, home=home)
