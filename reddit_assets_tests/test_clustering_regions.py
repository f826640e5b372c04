"""Large subreddits: regions that leave together what is alike, and clusters of full detail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reddit_assets.engines.clustering.clusterer import cluster
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.engines.clustering.regions import cut, keep_coarse
from reddit_assets.engines.clustering.sample import rows_in_memory

pytest.importorskip("hdbscan")
pytest.importorskip("evoc")


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 400),
    st.integers(1, 90),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(0, 99),
)
def test_any_layout_is_cut_into_regions(
    rows: int, most: int, dimensions: int, places: int, seed: int
) -> None:
    # Given points, many of them in the same place
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((places, dimensions)).astype(np.float32)
    layout = points[rng.integers(0, places, rows)]
    # If they are cut, Then every row is in one region, and none has too many
    regions = cut(layout, most)
    assert sorted(np.concatenate([[], *regions]).tolist()) == list(range(rows))
    assert all(0 < len(region) <= max(most, 1) for region in regions) or not rows
    assert all((np.diff(region) > 0).all() for region in regions)


def test_cuts_go_through_empty_space() -> None:
    # Given 60 groups of 50 points in a plane
    rng = np.random.default_rng(4)
    group = np.repeat(np.arange(60), 50)
    middles = np.stack(np.divmod(np.arange(60), 8), axis=1) + rng.uniform(-0.2, 0.2, (60, 2))
    layout = (middles[group] + 0.05 * rng.standard_normal((3_000, 2))).astype(np.float32)
    # If they are cut, Then hardly a group lies in two regions
    regions = cut(layout, 700)
    whole = sum(len(np.unique(group[region])) for region in regions)
    assert len(regions) >= 5
    assert whole <= 62


def test_small_groups_of_a_large_subreddit_are_found() -> None:
    # Given 50 groups of 40 rows among 1,000 others, more than are clustered together
    rng = np.random.default_rng(1)
    middles = rng.standard_normal((50, 96))
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    rows = [np.repeat(middles, 40, axis=0) + 0.05 * rng.standard_normal((2_000, 96))]
    rows.append(rng.standard_normal((1_000, 96)))
    vectors = np.concatenate(rows).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    params = ClusterParams(max_rows=1_000)
    # If they are clustered
    found = cluster(vectors, params)
    # Then every row was looked at, and nearly all groups are clusters (Jaccard of a half)
    assert found.info["clustered_rows"] == 3_000
    assert found.info["assigned_share"] == 0
    groups = found.labels[:2_000].reshape(50, 40)
    sizes = np.bincount(found.labels[found.labels >= 0])
    hits = 0
    for members in groups:
        common = np.bincount(members[members >= 0], minlength=len(sizes))
        hits += bool((common / (40 + sizes - common)).max() >= 0.5)
    assert hits >= 45
    # and the same for the rows in another order
    turn = rng.permutation(3_000)
    again = cluster(np.ascontiguousarray(vectors[turn]), params)
    assert np.array_equal(again.labels, found.labels[turn])
    assert np.array_equal(again.x, found.x[turn])


def test_what_is_left_of_a_coarse_cluster_is_no_noise() -> None:
    # Given coarse clusters: one that a cluster fills, one with small parts, one with few rows left
    coarse = np.repeat([0, 1, 2, -1], [10, 20, 6, 4]).astype(np.int32)
    labels = np.full(40, -1, dtype=np.int32)
    labels[:7], labels[10:15], labels[15:18], labels[30:32], labels[38:] = 0, 1, 2, 2, 3
    # If what is left is kept
    found = keep_coarse(labels, coarse, 5)
    # Then it joins, is a cluster by itself, or stays noise
    assert found[:10].tolist() == [0] * 10
    assert found[10:30].tolist() == [1] * 5 + [2] * 3 + [4] * 12
    assert found[30:36].tolist() == [2] * 2 + [-1] * 4
    assert found[36:].tolist() == [-1, -1, 3, 3]
    assert keep_coarse(labels[:0], coarse[:0], 5).tolist() == []


def test_memory_bounds_the_rows_that_are_clustered() -> None:
    # A million rows fit into 6,000 MiB, twice as many do not; never more rows than there are.
    assert rows_in_memory(1_000_000, 384, 50_000, 6_000) == 1_000_000
    many = [rows_in_memory(2_000_000, 384, 50_000, memory) for memory in (3_600, 4_000, 6_000)]
    assert 5_000 < many[0] < 50_000 < many[1] < many[2] < 2_000_000
    assert rows_in_memory(100_000, 384, 50_000, 1) == 5_000
    assert rows_in_memory(10, 384, 50_000, 6_000) == 10
