"""The map of the corpus: all subreddits' clusters, each linked to its own map."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("hdbscan")
pytest.importorskip("evoc")

from reddit_assets.corpus.layout import Layout
from reddit_assets.engines.clustering.map import MapPage
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.errors import NotFoundError
from reddit_assets.tasks.corpus_map import make_corpus_map
from reddit_assets_tests.test_clustering_map import read
from reddit_assets_tests.test_clustering_subreddit import embed, run, table

KEYS = ["co/Cooking", "日本/旅行 1", "zz/Damaged", "zz/NotYet"]


def test_every_cluster_is_a_point_that_leads_to_its_own_map(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path)
    # Given no clusters at all, then the error says what to do.
    with pytest.raises(NotFoundError, match="no clusters"):
        make_corpus_map(layout, KEYS, ClusterParams())
    # Given two subreddits with clusters, one that is damaged and one that is still to come,
    for key in KEYS[:2]:
        embed(layout, f"{key}/a", table(150))
        run(layout, [f"{key}/a"], cluster_key=key)
    (layout.cluster_dir(KEYS[2])).mkdir(parents=True)
    (layout.cluster_dir(KEYS[2]) / "clusters.table").write_bytes(b"no table")
    # one whose place is no folder,
    (layout.clusters / "zz" / "File").write_bytes(b"")
    # and an earlier map whose posts lay beside it:
    (layout.clusters / "map.posts.js").write_text("old")
    made = make_corpus_map(layout, KEYS, ClusterParams())
    # the damaged one is named, the others' clusters are all there,
    assert (made.subreddits, made.left_out) == (2, ("zz/Damaged",))
    data = read(MapPage(layout.corpus_map.read_text(encoding="utf-8"), None))
    assert data["count"] == made.clusters == len(data["links"])
    assert data["links"][0].startswith("co/Cooking/map.html#cluster=")
    assert data["links"][-1].startswith("%E6%97%A5%E6%9C%AC/%E6%97%85%E8%A1%8C%201/map.html#")
    assert data["texts"][0].startswith("Cooking: ")
    assert sum(data["scores"]) <= 300
    # and nothing else is left but an emptied file of posts.
    names = sorted(path.name for path in layout.clusters.iterdir() if path.is_file())
    assert names == ["map.html", "map.posts.js"]
    assert (layout.clusters / "map.posts.js").read_bytes() == b""
    # Of too many, the largest of each subreddit are drawn.
    assert make_corpus_map(layout, KEYS[:2], ClusterParams(), most=4).clusters == 4
