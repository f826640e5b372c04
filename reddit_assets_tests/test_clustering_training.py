"""The node embedding's training: new rows leave the steps of the others as they were."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("evoc")

from reddit_assets.engines.clustering.canonical import canonical_order
from reddit_assets.engines.clustering.graph import build_graph, fuzzy_graph
from reddit_assets.engines.clustering.training import _buckets, train


def grouped(rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    middles = np.random.default_rng(5).standard_normal((12, 48))
    vectors = middles[rng.integers(0, 12, rows)] + rng.standard_normal((rows, 48)) * 0.5
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_the_random_row_is_the_same_after_new_rows() -> None:
    # Given hashes, and the same with a few more among them
    rng = np.random.default_rng(0)
    few = np.sort(rng.integers(0, 2**63, 1_000).astype(np.uint64) * np.uint64(2))
    more = np.sort(np.concatenate([few, rng.integers(0, 2**63, 20).astype(np.uint64)]))
    # If rows are drawn by the same random numbers
    drawn, again = few[_buckets(few, 20)], more[_buckets(more, 20)]
    # Then nearly all draws are of the same row
    assert (drawn == again).mean() > 0.93
    assert len(np.unique(drawn)) > 990


def test_groups_come_apart_whatever_the_threads() -> None:
    import numba

    # Given rows in groups, in canonical order
    vectors = grouped(600, 1)
    canonical = canonical_order(vectors, 10)
    x = vectors[canonical.kept]
    fuzzy = fuzzy_graph(build_graph(x, 15, seed=1), 15)
    start = np.random.default_rng(0).standard_normal((len(x), 4)).astype(np.float32)
    # If they are trained on by one thread and by two
    before = numba.get_num_threads()
    results = []
    for threads in (1, min(2, before)):
        numba.set_num_threads(threads)
        results.append(
            train(fuzzy, start, canonical.kept_hashes, epochs=100, noise_level=0.1, seed=1)
        )
    numba.set_num_threads(before)
    # Then the layouts are the same to the last bit, and neighbours lie near each other
    assert np.array_equal(results[0], results[1])
    made = results[0]
    rows, others = fuzzy.nonzero()
    near = np.linalg.norm(made[rows] - made[others], axis=1).mean()
    far = np.linalg.norm(made - made[::-1], axis=1).mean()
    assert near * 4 < far
