"""Identities from night to night on constructed cases."""

from __future__ import annotations

import numpy as np
import pytest

from reddit_assets.engines.clustering.identity import Level, Previous, keep_identities, keep_level


def directions(count: int) -> np.ndarray:
    return np.eye(16, dtype=np.float32)[:count]


def previous(ids: list[int], next_id: int) -> Previous:
    return Previous(np.array(ids, dtype=np.int32), directions(len(ids)), next_id)


def rows(*parts: tuple[int, int]) -> np.ndarray:
    return np.array([value for value, count in parts for _ in range(count)], dtype=np.int32)


def test_first_night_gives_new_ids() -> None:
    # Given no night before
    changes = keep_identities(rows(), rows(), None, directions(3))
    # Then all clusters are born
    assert changes.ids.tolist() == [0, 1, 2]
    assert changes.counts == {"continued": 0, "born": 3, "split": 0, "merged": 0, "died": 0}
    assert changes.next_id == 3


def test_renumbered_clusters_keep_their_ids() -> None:
    # Given three clusters whose numbers have changed, and some rows that moved
    old = rows((7, 50), (3, 40), (5, 30), (-1, 20))
    new = rows((2, 48), (-1, 2), (0, 40), (1, 27), (0, 3), (-1, 15), (2, 5))
    # If they are matched
    changes = keep_identities(old, new, previous([7, 3, 5], 9), directions(3))
    # Then each keeps its id and the moved share is of the rows that changed
    assert changes.ids.tolist() == [3, 5, 7]
    assert changes.fates == ("continued",) * 3
    assert changes.died == ()
    assert changes.moved_share == pytest.approx((2 + 3 + 5) / 140)
    assert changes.kept_share == 1.0


def test_split_merge_birth_and_death_are_told_apart() -> None:
    # Given: 0 splits 60 / 40; 1 and 2 merge; 3 goes to noise; 4 continues; 9 is new from noise
    old = rows((0, 60), (0, 40), (1, 30), (2, 25), (3, 20), (4, 50), (-1, 30))
    new = rows((0, 60), (1, 40), (2, 30), (2, 25), (-1, 20), (3, 50), (4, 30))
    # If the nights are compared
    changes = keep_identities(old, new, previous([0, 1, 2, 3, 4], 5), directions(5))
    # Then every fate is right, the larger part keeps the id, and dead ids are not given again
    assert changes.fates == ("continued", "split", "merged", "continued", "born")
    assert changes.ids.tolist() == [0, 5, 1, 4, 6]
    assert changes.parents == ((), (0,), (1, 2), (), ())
    assert changes.died == (3,)
    assert changes.counts == {"continued": 2, "born": 1, "split": 1, "merged": 1, "died": 1}
    assert changes.next_id == 7
    assert changes.moved_share == pytest.approx((40 + 25 + 20 + 30) / 255)
    assert changes.kept_share == pytest.approx(3 / 5)


def test_without_shared_rows_centroids_decide() -> None:
    # Given that all rows were replaced, but the clusters mean the same
    before = Previous(np.array([4, 8], dtype=np.int32), directions(2), 9)
    # If they are matched
    changes = keep_identities(rows(), rows(), before, directions(3)[::-1].copy())
    # Then two keep their ids by their centroids and one is new
    assert changes.ids.tolist() == [9, 8, 4]
    assert changes.fates == ("born", "continued", "continued")


def test_all_clusters_gone() -> None:
    # Given two clusters and a night without any
    changes = keep_identities(
        rows((0, 5), (1, 5)), rows((-1, 10)), previous([0, 1], 2), directions(0).reshape(0, 16)
    )
    # Then both died, their ids stay taken
    assert changes.died == (0, 1)
    assert changes.next_id == 2
    assert changes.moved_share == 1.0


def test_topics_keep_their_ids_while_their_clusters_come_and_go() -> None:
    # Given topics 4 (clusters 7, 3) and 2 (cluster 5), and tonight's topics 0, 1, 2
    before = Level(np.array([4, 4, 2], dtype=np.int32), 6)
    old = rows((7, 50), (3, 40), (5, 30), (-1, 20), (8, 5))
    new = rows((0, 50), (1, 35), (-1, 5), (2, 30), (3, 20), (2, 5))
    groups = np.array([1, 1, 0, 2], dtype=np.int32)
    # If they are matched
    found = keep_level(old, new, before, groups, np.array([7, 3, 5], dtype=np.int32))
    # Then each cluster's topic has its id of last night, or one that was never given
    assert found.ids.tolist() == [4, 4, 2, 6]
    assert found.next_id == 7
    # and without a night before they are numbered as they come
    assert keep_level(old, new, None, groups, rows()).ids is groups
    none = keep_level(rows(), rows(), before, groups[:0], rows())
    assert (none.ids.tolist(), none.next_id) == ([], 6)
