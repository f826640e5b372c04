"""The map's page and picture."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from reddit_assets.engines.clustering.map import MAX_POINTS, map_page, map_rows


def page(texts: list[str]) -> str:
    ids = np.array([7, 7, -1, 3], dtype=np.int32)
    xy = np.array([0.0, 1.0, 2.0, 3.0], dtype=np.float32)
    clusters = [
        {"cluster_id": 7, "theme_id": 0, "name": "a, b", "keywords": ["a", "b"], "size": 2},
        {"cluster_id": 3, "theme_id": 1, "name": "c", "keywords": [], "size": 1},
    ]
    return map_page("Tëst", xy, xy, ids, texts, clusters, {0: "a", 1: "c"}, 4)


def test_the_page_is_self_contained_and_safe() -> None:
    # Given texts that try to leave their place
    evil = "</script><script>alert(1)</script><!-- \u2028 & 'x'"
    made = page([evil, "two", "", "four"])
    # If the page is read as a browser does, then the data is whole and nothing else is script
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", made, re.S)
    assert len(scripts) == 2
    data = json.loads(scripts[0])
    assert data["texts"][0] == evil
    assert [cluster["id"] for cluster in data["clusters"]] == [7, 3]
    # and nothing is loaded from anywhere
    assert not re.search(
        r"(?:src|href)\s*=|@import|url\(|fetch\(|https?://", made.replace(evil, "")
    )


def test_a_large_subreddit_is_drawn_as_a_sample_with_every_cluster() -> None:
    # Given more rows than are drawn, most of them in one cluster
    labels = np.zeros(3 * MAX_POINTS, dtype=np.int32)
    labels[:50] = np.repeat(np.arange(1, 11), 5)
    labels[50:90_000:3] = -1
    # If rows are chosen
    chosen = map_rows(len(labels), labels, seed=1)
    # Then there are as many as allowed, ascending, with all of the small clusters
    assert len(chosen) == MAX_POINTS
    assert (np.diff(chosen) > 0).all()
    assert set(range(50)) <= set(chosen.tolist())
    assert np.array_equal(chosen, map_rows(len(labels), labels, seed=1))


def test_the_picture_is_bounded() -> None:
    pytest.importorskip("matplotlib")
    from reddit_assets.engines.clustering.map import map_png

    # Given many points and names that a font may lack
    rng = np.random.default_rng(0)
    xy = rng.standard_normal((2, 20_000)).astype(np.float32)
    themes = rng.integers(-1, 12, 20_000).astype(np.int32)
    clusters = [
        {"x": 0.1, "y": 0.2, "size": 5, "keywords": ["$x^", "日本"], "name": "n"},
        {"x": 1.0, "y": 1.0, "size": 4, "keywords": ["日本語"], "name": "n"},
    ]
    # If pictures are made, then each is within its bound
    for limit in (60_000, 8_000):
        made = map_png("名前 $a_b", xy[0], xy[1], themes, clusters, limit=limit)
        assert made.startswith(b"\x89PNG")
        assert len(made) <= limit
