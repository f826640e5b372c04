"""Cosine nearest neighbours: exact by blocked matrix products, in inverted lists above a size.

Unit vectors are assumed, so the dot product is the cosine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.blocks import (
    BLOCK_FLOATS,
    run_blocks,
    run_rounds,
    tile_product,
)
from reddit_assets.engines.clustering.compiled import numba
from reddit_assets.engines.clustering.inverted_lists import InvertedLists, build_inverted_lists

__all__ = ["EXACT_ROWS", "knn", "nearest"]

#: Up to this many rows the exact product is cheaper than building inverted lists.
EXACT_ROWS = 20_000
#: Rows of a tile of the exact product.
TILE = 512
#: Queries whose candidates are collected together in the search of lists.
CHUNK_ROWS = 65_536


@numba.njit(cache=True, nogil=True)
def _top_k(
    sims: NDArray[np.float32],
    ids: NDArray[np.int32],
    skip: NDArray[np.int32],
    out_i: NDArray[np.int32],
    out_s: NDArray[np.float32],
) -> None:  # pragma: no cover - compiled
    """The k largest per row, descending; ties go to the lower id (ids ascend)."""
    k = out_i.shape[1]
    for r in range(sims.shape[0]):
        best_i = out_i[r]
        best_s = out_s[r]
        for t in range(k):
            best_i[t] = -1
            best_s[t] = -np.inf
        worst = np.float32(-np.inf)
        for c in range(sims.shape[1]):
            s = sims[r, c]
            if s > worst and ids[c] != skip[r]:
                t = k - 1
                while t > 0 and s > best_s[t - 1]:
                    best_s[t] = best_s[t - 1]
                    best_i[t] = best_i[t - 1]
                    t -= 1
                best_s[t] = s
                best_i[t] = ids[c]
                worst = best_s[k - 1]


@numba.njit(cache=True, nogil=True)
def _merge(
    cand_i: NDArray[np.int32],
    cand_s: NDArray[np.float32],
    out_i: NDArray[np.int32],
    out_s: NDArray[np.float32],
) -> None:  # pragma: no cover - compiled
    """The k best of (rows, slots, k) candidates; ties go to the lower id."""
    k = out_i.shape[1]
    for r in range(cand_i.shape[0]):
        for t in range(k):
            out_i[r, t] = -1
            out_s[r, t] = -np.inf
        for p in range(cand_i.shape[1]):
            for c in range(k):
                s = cand_s[r, p, c]
                i = cand_i[r, p, c]
                if i < 0 or s < out_s[r, k - 1]:
                    break
                if s == out_s[r, k - 1] and i > out_i[r, k - 1]:
                    continue
                t = k - 1
                while t > 0 and (
                    s > out_s[r, t - 1] or (s == out_s[r, t - 1] and i < out_i[r, t - 1])
                ):
                    out_s[r, t] = out_s[r, t - 1]
                    out_i[r, t] = out_i[r, t - 1]
                    t -= 1
                out_s[r, t] = s
                out_i[r, t] = i


@numba.njit(cache=True, nogil=True)
def _offer(
    sims: NDArray[np.float32],
    columns: bool,
    row_at: int,
    id_at: int,
    out_i: NDArray[np.int32],
    out_s: NDArray[np.float32],
) -> None:  # pragma: no cover - compiled
    """Offer a tile of similarities to the running best of its rows (or of its columns)."""
    k = out_i.shape[1]
    rows = sims.shape[1] if columns else sims.shape[0]
    others = sims.shape[0] if columns else sims.shape[1]
    for r in range(rows):
        best_i = out_i[row_at + r]
        best_s = out_s[row_at + r]
        worst = best_s[k - 1]
        for c in range(others):
            s = sims[c, r] if columns else sims[r, c]
            if s >= worst and id_at + c != row_at + r:
                i = id_at + c
                if s == worst and i > best_i[k - 1] and best_i[k - 1] >= 0:
                    continue
                t = k - 1
                while t > 0 and (s > best_s[t - 1] or (s == best_s[t - 1] and i < best_i[t - 1])):
                    best_s[t] = best_s[t - 1]
                    best_i[t] = best_i[t - 1]
                    t -= 1
                best_s[t] = s
                best_i[t] = i
                worst = best_s[k - 1]


def _rounds(tiles: int) -> list[list[tuple[int, int]]]:
    """All pairs of tiles in rounds whose pairs share no tile (a round-robin tournament)."""
    rounds: list[list[tuple[int, int]]] = [[(tile, tile) for tile in range(tiles)]]
    ring: list[int | None] = [*range(tiles)]
    if tiles % 2:
        ring.append(None)
    for _ in range(len(ring) - 1):
        pairs: list[tuple[int, int]] = []
        half = len(ring) // 2
        for left, right in zip(ring[:half], reversed(ring[half:]), strict=True):
            if left is not None and right is not None:
                pairs.append((min(left, right), max(left, right)))
        rounds.append(pairs)
        ring = [ring[0], ring[-1], *ring[1:-1]]
    return rounds


def _exact_all(
    vectors: NDArray[np.float32], k: int, threads: int | None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Exact neighbours among the rows themselves: half the products, since they are symmetric."""
    n = vectors.shape[0]
    out_i = np.full((n, k), -1, dtype=np.int32)
    out_s = np.full((n, k), -np.inf, dtype=np.float32)

    def work(pair: tuple[int, int]) -> None:
        left, right = pair[0] * TILE, pair[1] * TILE
        sims = tile_product(vectors[left : left + TILE], vectors[right : right + TILE])
        _offer(sims, False, left, right, out_i, out_s)
        if left != right:
            _offer(sims, True, right, left, out_i, out_s)

    run_rounds(work, _rounds(-(-n // TILE)), threads)
    return out_i, out_s


def _exact(
    queries: NDArray[np.float32], base: NDArray[np.float32], k: int, threads: int | None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    n = queries.shape[0]
    out_i = np.empty((n, k), dtype=np.int32)
    out_s = np.empty((n, k), dtype=np.float32)
    ids = np.arange(base.shape[0], dtype=np.int32)
    block = max(64, min(2048, BLOCK_FLOATS // max(1, base.shape[0])))

    def work(start: int) -> None:
        stop = min(n, start + block)
        skip = np.full(stop - start, -1, dtype=np.int32)
        sims = tile_product(queries[start:stop], base)
        _top_k(sims, ids, skip, out_i[start:stop], out_s[start:stop])

    run_blocks(work, range(0, n, block), threads)
    return out_i, out_s


def _by_inverted_lists(
    queries: NDArray[np.float32],
    base: NDArray[np.float32],
    lists: InvertedLists,
    k: int,
    same: bool,
    threads: int | None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    n = queries.shape[0]
    out_i = np.empty((n, k), dtype=np.int32)
    out_s = np.empty((n, k), dtype=np.float32)
    # Queries of the same neighbourhood are handled together, so that each product is dense.
    order = lists.order if same else np.arange(n, dtype=np.int32)
    for start in range(0, n, CHUNK_ROWS):
        rows = order[start : start + CHUNK_ROWS]
        probes = lists.probe(queries, rows, same, threads)
        slots = probes.shape[1]
        cand_i = np.full((len(rows), slots, k), -1, dtype=np.int32)
        cand_s = np.full((len(rows), slots, k), -np.inf, dtype=np.float32)
        flat = probes.ravel()
        by_list = np.argsort(flat, kind="stable")
        bounds = np.searchsorted(flat[by_list], np.arange(lists.count + 1))

        def work(
            number: int,
            rows: NDArray[np.int32] = rows,
            by_list: NDArray[np.int64] = by_list,
            bounds: NDArray[np.int64] = bounds,
            slots: int = slots,
            cand_i: NDArray[np.int32] = cand_i,
            cand_s: NDArray[np.float32] = cand_s,
        ) -> None:
            members = lists.members(number)
            mine = by_list[bounds[number] : bounds[number + 1]]
            if not len(mine) or not len(members):
                return
            theirs = base[members]
            step = max(64, BLOCK_FLOATS // len(members))
            for at in range(0, len(mine), step):
                part = mine[at : at + step]
                local, slot = part // slots, part % slots
                asked = rows[local]
                found_i = np.empty((len(part), k), dtype=np.int32)
                found_s = np.empty((len(part), k), dtype=np.float32)
                skip = asked if same else np.full(len(part), -1, dtype=np.int32)
                _top_k(tile_product(queries[asked], theirs), members, skip, found_i, found_s)
                cand_i[local, slot] = found_i
                cand_s[local, slot] = found_s

        run_blocks(work, np.flatnonzero(np.diff(bounds)).tolist(), threads)
        chunk_i = np.empty((len(rows), k), dtype=np.int32)
        chunk_s = np.empty((len(rows), k), dtype=np.float32)
        _merge(cand_i, cand_s, chunk_i, chunk_s)
        out_i[rows] = chunk_i
        out_s[rows] = chunk_s
    return out_i, out_s


def knn(
    vectors: NDArray[np.float32],
    k: int,
    *,
    seed: int = 42,
    threads: int | None = None,
    exact_rows: int = EXACT_ROWS,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k nearest other rows of each row by cosine.

    Exact up to ``exact_rows`` rows; above, each row looks only into the lists of rows around it
    (an inverted file, as in Jégou et al. 2011), which makes the cost linear in the rows.

    Args:
        vectors: float32 (n, d), unit rows.
        k: neighbours per row, less than n.

    Returns:
        indices int32 (n, k), −1 where fewer than k were found (lists only), and similarities
        float32 (n, k), descending, −inf where there is none.
    """
    n = vectors.shape[0]
    if n <= exact_rows:
        return _exact_all(vectors, k, threads)
    lists = build_inverted_lists(vectors, seed=seed, threads=threads)
    return _by_inverted_lists(vectors, vectors, lists, k, True, threads)


def nearest(
    queries: NDArray[np.float32],
    base: NDArray[np.float32],
    k: int,
    *,
    seed: int = 42,
    threads: int | None = None,
    exact_rows: int = EXACT_ROWS,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k rows of ``base`` nearest to each query by cosine; like :func:`knn` otherwise.

    Args:
        queries: float32 (q, d), unit rows.
        base: float32 (n, d), unit rows, n ≥ k.
    """
    if base.shape[0] <= exact_rows:
        return _exact(queries, base, k, threads)
    lists = build_inverted_lists(base, seed=seed, threads=threads)
    return _by_inverted_lists(queries, base, lists, k, False, threads)
