"""The map's page and picture."""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import Any

import numpy as np
import pytest

from reddit_assets.engines.clustering.map import (
    FULL,
    MapPage,
    MapPosts,
    map_page,
    map_rows,
)
from reddit_assets.engines.clustering.map.page import BESIDE_CHARS, NONE


def read(made: MapPage) -> dict[str, Any]:
    """What a page holds, unpacked as its script does."""
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", made.page, re.S)
    assert len(scripts) == 2
    data: dict[str, Any] = json.loads(scripts[0])

    def whole(text: str) -> bytes:
        return zlib.decompress(base64.b64decode(text))

    for name in ("x", "y", "cluster", "scores", "days"):
        planes = np.frombuffer(whole(data[name]), np.uint8).reshape(4, -1)
        data[name] = np.ascontiguousarray(planes.T).view("<i4").ravel()
    blocks = data["blocks"]
    if blocks is None:
        assert made.posts is not None
        stamp, blocks = json.loads("[" + made.posts[len("mapPosts(") : -len(");")] + "]")
        assert stamp == data["beside"]["stamp"]
    posts = [post for block in blocks for post in json.loads(whole(block))]
    data["texts"], data["links"] = [text for text, _ in posts], [link for _, link in posts]
    return data


def page(texts: list[str]) -> MapPage:
    ids = np.array([7, 7, -1, 3], dtype=np.int32)
    xy = np.array([0.0, 1.0, 2.0, 3.0], dtype=np.float32)
    clusters = [
        {"cluster_id": 7, "theme_id": 0, "name": "a, b", "keywords": ["a", "b"], "size": 2},
        {"cluster_id": 3, "theme_id": 1, "name": "c", "keywords": [], "size": 1},
    ]
    posts = MapPosts(texts, [1.0, None, 2.0, 3.0], [86_400.0, None, 0.0, 0.0], [""] * 4)
    return map_page("Tëst", xy, xy, ids, posts, clusters, {0: "a", 1: "c"}, 4)


def test_the_page_is_self_contained_and_safe() -> None:
    # Given texts that try to leave their place
    evil = "</script><script>alert(1)</script><!-- \u2028 & 'x'"
    made = page([evil, "two", "", "four"])
    # If the page is read as a browser does, then the data is whole and nothing else is script
    data = read(made)
    assert data["texts"][0] == evil
    assert data["scores"].tolist() == [1, NONE, 2, 3]
    assert data["days"].tolist() == [1, NONE, 0, 0]
    assert [cluster["id"] for cluster in data["clusters"]] == [7, 3]
    # and nothing is loaded from anywhere
    assert not re.search(r"(?:src|href)\s*=|@import|url\(|fetch\(|https?://", made.page)
    assert made.posts is None


def test_a_large_subreddit_is_drawn_as_a_sample_with_every_cluster() -> None:
    # Given more rows than are drawn, most of them in one cluster
    labels = np.zeros(90_000, dtype=np.int32)
    labels[:50] = np.repeat(np.arange(1, 11), 5)
    labels[50:90_000:3] = -1
    # If rows are chosen
    chosen = map_rows(len(labels), labels, 1, 30_000)
    # Then there are as many as allowed, ascending, with all of the small clusters
    assert len(chosen) == 30_000
    assert (np.diff(chosen) > 0).all()
    assert set(range(50)) <= set(chosen.tolist())
    assert np.array_equal(chosen, map_rows(len(labels), labels, 1, 30_000))


def test_the_map_is_fitted_to_its_clusters_and_clips_nothing() -> None:
    # Given two clusters, and a few rows far from both, some of them of a cluster
    rng = np.random.default_rng(0)
    xy = rng.standard_normal((2, 2_000)).astype(np.float32)
    xy[0, 1_000:] += 8
    ids = np.repeat(np.array([0, 1], dtype=np.int32), 1_000)
    ids[:40] = -1
    xy[:, :40] += 500
    xy[1, 1_999] = -300
    clusters = [
        {"cluster_id": n, "theme_id": 0, "name": "", "keywords": [], "size": 1} for n in (0, 1)
    ]
    posts = MapPosts([""] * 2_000, [None] * 2_000, [None] * 2_000, [""] * 2_000)
    made = map_page("x", xy[0], xy[1], ids, posts, clusters, {0: "a"}, 2_000)
    data = read(made)
    x, y = data["x"], data["y"]
    # Then the clusters fill the frame, and no two far rows share a place on a rim
    for axis in (x, y):
        assert np.ptp(np.quantile(axis[ids >= 0], [0.01, 0.99])) > 0.8 * FULL
        assert len(np.unique(axis[:40])) == 40
    assert (x[:40] > FULL).all()
    assert y[1_999] > FULL


def test_long_posts_do_not_make_a_page_that_no_browser_opens() -> None:
    # Given more text than a page should have, then it lies beside the page,
    texts = [f"{number} " + "word " * 2_500 for number in range(3_000)]
    posts = MapPosts(texts, [None] * 3_000, [None] * 3_000, [""] * 3_000)
    xy = np.arange(3_000, dtype=np.float32)
    made = map_page("x", xy, xy, np.full(3_000, -1, np.int32), posts, [], {}, 3_000)
    assert len(made.page) < 12_000_000
    # in order, and posts are cut, and each says so.
    said = read(made)["texts"]
    assert [text.split()[0] for text in said] == [str(number) for number in range(3_000)]
    assert all(text.endswith(("word…", "wor…", "wo…", "w…", " …")) for text in said)
    assert sum(map(len, said)) <= BESIDE_CHARS


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
