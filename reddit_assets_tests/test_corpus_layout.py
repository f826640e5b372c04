"""Paths and keys in both directions, and which jobs are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from reddit_assets.corpus.keys import cluster_key_of, shard_of, subreddit_of
from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import BadKeyError

LAYOUT = Layout.of(Path("/data"))


@pytest.mark.parametrize(
    "key", ["as/AskReddit/c_0", "Flat/c_0", "é/日本語/c 0", "as/with space/a.b", "as/r%/c:1"]
)
def test_keys_and_paths_are_inverse(key: str) -> None:
    assert LAYOUT.key_of(LAYOUT.chain_path(key)) == key
    assert LAYOUT.key_of(LAYOUT.embedding_path(key)) == key
    cluster = cluster_key_of(key)
    assert LAYOUT.cluster_key_of_path(LAYOUT.cluster_dir(cluster)) == cluster
    assert LAYOUT.cluster_key_of_path(LAYOUT.subreddit_path(cluster)) == cluster


def test_parts_of_keys() -> None:
    assert (shard_of("as/AskReddit"), subreddit_of("as/AskReddit")) == ("as", "AskReddit")
    assert (shard_of("Flat"), subreddit_of("Flat")) == (None, "Flat")


@pytest.mark.parametrize(
    "name",
    ["a...b", "a|b", "new\nline", "nul\0", " space", "space ", "..", "", "\udcff", "sep\u2028"],
)
def test_names_that_cannot_be_keys_are_refused_with_the_file_named(name: str) -> None:
    path = Path("/data/chains/as") / "AskReddit" / f"{name}.parquet"
    with pytest.raises(BadKeyError) as caught:
        LAYOUT.chain_path(f"as/AskReddit/{name}")
    assert "Rename" in str(caught.value)
    if name not in ("", ".."):
        with pytest.raises(BadKeyError, match="AskReddit"):
            LAYOUT.key_of(path)


@pytest.mark.parametrize("key", ["a", "a/b/c/d", "../etc/passwd", "as/../x", "/abs/key"])
def test_keys_of_another_shape_are_refused(key: str) -> None:
    with pytest.raises(BadKeyError):
        LAYOUT.chain_path(key)
