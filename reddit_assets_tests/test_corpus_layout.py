"""Paths and keys in both directions, and which jobs are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from reddit_assets.corpus.keys import cluster_key_of, shard_of, subreddit_of
from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import BadJobError, BadKeyError

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


def test_the_job_of_the_original_is_understood() -> None:
    job = {
        "input_path": "/data/chains/as/AskReddit/c_0.parquet",
        "output_path": "/data/embeddings/as/AskReddit/c_0.parquet",
        "extra": 1,
    }
    assert LAYOUT.embed_key_of_job(job) == "as/AskReddit/c_0"
    cluster = {"subreddit_path": "/data/embeddings/as/AskReddit"}
    assert LAYOUT.cluster_key_of_job(cluster) == "as/AskReddit"


def test_a_key_counts_where_roots_differ() -> None:
    job = {"input_path": "/mnt/a.parquet", "output_path": "/mnt/b.parquet", "key": "as/A/c"}
    assert LAYOUT.embed_key_of_job(job) == "as/A/c"


INPUT, OUTPUT = "/data/chains/as/A/c.parquet", "/data/embeddings/as/A/c.parquet"


@pytest.mark.parametrize(
    ("job", "why"),
    [
        ({}, "has no input_path"),
        ({"input_path": INPUT}, "has no output_path"),
        ({"input_path": 7, "output_path": OUTPUT}, "is int, not text"),
        ({"input_path": "chains/as/A/c.parquet", "output_path": OUTPUT}, "not an absolute path"),
        ({"input_path": "/data/chains/../x/A/c.parquet", "output_path": OUTPUT}, "outside"),
        ({"input_path": "/etc/passwd", "output_path": OUTPUT}, "outside"),
        ({"input_path": INPUT, "output_path": "/tmp/c.parquet"}, "outside"),
        ({"input_path": "/data/chainsaw/A/c.parquet", "output_path": OUTPUT}, "outside"),
        ({"input_path": INPUT, "output_path": "/data/embeddings/as/A/d.parquet"}, "as/A/d"),
        ({"input_path": "/data/chains/as/A/c.csv", "output_path": OUTPUT}, "not a .parquet"),
        ({"key": ["as/A/c"]}, "is list, not text"),
        ({"key": "../../etc/passwd"}, "'..'"),
    ],
)
def test_bad_jobs_are_refused_with_a_reason(job: dict[str, object], why: str) -> None:
    with pytest.raises(BadJobError) as caught:
        LAYOUT.embed_key_of_job(job)
    assert why in str(caught.value)


def test_a_job_through_a_symbolic_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path / "root")
    (layout.chains / "as").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (layout.chains / "as" / "A").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadJobError, match="symbolic link"):
        layout.embed_key_of_job({"key": "as/A/c"})


def test_a_root_that_is_itself_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real" / "chains").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    layout = Layout.of(tmp_path / "link")
    assert layout.embed_key_of_job({"key": "as/A/c"}) == "as/A/c"
