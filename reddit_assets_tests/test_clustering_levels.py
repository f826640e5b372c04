"""Topics and themes: nested, numbered by rows, the same for any order of the clusters."""

from __future__ import annotations

import numpy as np
import pytest

from reddit_assets.engines.clustering import levels
from reddit_assets.engines.clustering.levels import cluster_levels, cut_sizes, join_levels


def middles(groups: int, each: int, seed: int = 0) -> np.ndarray:
    """Unit centroids of ``groups`` groups that lie well apart, ``each`` of a group together."""
    rng = np.random.default_rng(seed)
    points = np.repeat(rng.standard_normal((groups, 32)), each, axis=0)
    points += 0.1 * rng.standard_normal(points.shape)
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("most", [4_096, 60])
def test_topics_lie_in_themes(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given 14 groups of 8 clusters, all of them in the tree or only the largest
    monkeypatch.setattr(levels, "TREE_CLUSTERS", most)
    points = middles(14, 8)
    sizes = np.random.default_rng(1).integers(20, 900, len(points))
    # If they are grouped
    topic, theme = cluster_levels(points, sizes)
    # Then there are as many topics and themes as wanted, each topic in one theme
    assert (int(topic.max()) + 1, int(theme.max()) + 1) == cut_sizes(len(points)) == (42, 16)
    assert len(np.unique(np.stack([topic, theme], axis=1), axis=0)) == 42
    # and numbered by rows, and no theme holds clusters of two groups
    assert (np.diff(np.bincount(theme, weights=sizes)) <= 0).all()
    assert (np.diff(np.bincount(topic, weights=sizes)) <= 0).all()
    assert len(np.unique(np.stack([np.repeat(np.arange(14), 8), theme], axis=1), axis=0)) == 16
    # and the same for another order of the clusters
    turn = np.random.default_rng(2).permutation(len(points))
    again = cluster_levels(points[turn], sizes[turn])
    assert np.array_equal(again[0], topic[turn])
    assert np.array_equal(again[1], theme[turn])


def test_few_clusters_are_topics_and_themes_of_their_own() -> None:
    topic, theme = cluster_levels(middles(3, 2), np.array([5, 9, 7, 1, 2, 3]))
    assert topic.tolist() == theme.tolist() == [2, 0, 1, 5, 4, 3]
    assert [len(level) for level in cluster_levels(middles(0, 1), np.zeros(0, dtype=np.int64))] == [
        0,
        0,
    ]


def test_a_cluster_that_is_born_joins_the_topic_of_the_most_similar_one() -> None:
    points, born = middles(4, 3), np.array([4, 11])
    topics = np.repeat([7, 3, 9, 5], 3).astype(np.int32)
    themes = np.repeat([2, 2, 8, 8], 3).astype(np.int32)
    topics[born] = themes[born] = -1
    topic, theme = join_levels(born, topics, themes, points, np.arange(12, 0, -1))
    assert topic.tolist() == np.repeat([0, 1, 2, 3], 3).tolist()
    assert theme.tolist() == np.repeat([0, 1], 6).tolist()
    # and if nothing stands, all are grouped
    none = np.full(12, -1, dtype=np.int32)
    sizes = np.arange(12, 0, -1)
    assert np.array_equal(
        join_levels(np.arange(12), none, none, points, sizes)[0], cluster_levels(points, sizes)[0]
    )
