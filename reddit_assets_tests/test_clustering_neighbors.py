"""Nearest neighbours against NumPy, exact and by inverted lists."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("numba")

from reddit_assets.engines.clustering.inverted_lists import build_inverted_lists
from reddit_assets.engines.clustering.neighbors import knn, nearest


def unit(rows: int, *, seed: int = 0, groups: int = 20) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((groups, 64))
    vectors = middles[rng.integers(0, groups, rows)] + rng.standard_normal((rows, 64)) * 0.5
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("rows", [2, 7, 512, 513, 1700])
@pytest.mark.parametrize("threads", [1, 2])
def test_exact_neighbours_are_numpys(rows: int, threads: int) -> None:
    # Given rows, in one tile and in several
    vectors = unit(rows)
    k = min(10, rows - 1)
    # If their neighbours are asked for
    indices, sims = knn(vectors, k, threads=threads)
    # Then they are those of the full product, without the row itself
    full = vectors @ vectors.T
    np.fill_diagonal(full, -np.inf)
    expected = -np.sort(-full, axis=1)[:, :k]
    assert np.allclose(sims, expected, atol=1e-5)
    assert (indices != np.arange(rows)[:, None]).all()
    assert np.allclose(np.take_along_axis(full, indices.astype(np.int64), 1), sims, atol=1e-5)


def test_cells_find_nearly_all_and_do_not_depend_on_threads() -> None:
    # Given rows in groups
    vectors = unit(6_000)
    exact, _ = knn(vectors, 10)
    # If the neighbours come from lists, with one thread and with two
    one, sims = knn(vectors, 10, exact_rows=0, threads=1)
    two, _ = knn(vectors, 10, exact_rows=0, threads=2)
    # Then nearly all are right, sorted, and the same
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, one, strict=True)])
    assert recall > 0.85
    assert (np.diff(sims, axis=1) <= 0).all()
    assert np.array_equal(one, two)


def test_near_duplicates_do_not_make_a_huge_cell() -> None:
    # Given that half the rows are nearly the same text
    vectors = unit(8_000)
    rng = np.random.default_rng(1)
    vectors[:4_000] = vectors[0] + rng.standard_normal((4_000, 64)).astype(np.float32) * 1e-6
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # If lists are built
    lists = build_inverted_lists(vectors, seed=1)
    # Then none is much larger than the average, and every row is in one
    assert np.diff(lists.starts).max() <= 4 * (8_000 // 20) + 1
    assert np.array_equal(np.sort(lists.order), np.arange(8_000))


@pytest.mark.parametrize("exact_rows", [0, 100_000])
def test_nearest_of_other_rows(exact_rows: int) -> None:
    # Given rows, of which some are asked for again
    vectors = unit(3_000)
    # If the nearest are looked up
    indices, sims = nearest(vectors[:200], vectors, 3, exact_rows=exact_rows)
    # Then each row finds itself first
    assert np.array_equal(indices[:, 0], np.arange(200))
    assert np.allclose(sims[:, 0], 1, atol=1e-5)
