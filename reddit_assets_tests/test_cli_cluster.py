"""``reddit-assets cluster``: without a queue, resumable, one or all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reddit_assets.cli.app import run
from reddit_assets.corpus.layout import Layout


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Two subreddits whose embedding files the earlier system made, one without embeddings."""
    layout = Layout.of(tmp_path)
    dice = np.random.default_rng(7)
    for key in ("as/AskReddit/c_0", "as/AskReddit/c_1", "bo/books/c_0", "ca/cars/c_0"):
        texts = pa.table({"body": ["one", "two"]})
        chain, embedding = layout.chain_path(key), layout.embedding_path(key)
        for path in (chain, embedding):
            path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(texts, chain)
        if "cars" not in key:
            vectors = dice.normal(size=(2, 384)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            table = texts
            for column in range(384):
                table = table.append_column(f"emb_{column:03d}", pa.array(vectors[:, column]))
            pq.write_table(table, embedding)
    monkeypatch.setenv("REDDIT_ROOT", str(tmp_path))
    monkeypatch.delenv("REDIS_URL", raising=False)
    return layout


def test_all_are_clustered_once_and_an_interrupted_run_resumes(
    layout: Layout, capsys: pytest.CaptureFixture[str]
):
    # Given two subreddits with embeddings and one without, If all are clustered
    assert run(["cluster"]) == 0
    assert "2 clustered, 0 were fresh, 1 wait for embeddings" in capsys.readouterr().out
    # Then each has its rows, all noise since they are so few, and no temporary file is left
    table = pq.read_table(layout.cluster_path("as/AskReddit"))
    assert table["cluster_id"].to_pylist() == [-1] * 4
    assert not list(layout.clusters.rglob("*.tmp"))
    # If one is lost and all are clustered again, Then only that one is
    layout.cluster_path("bo/books").unlink()
    assert run(["cluster"]) == 0
    assert "1 clustered, 1 were fresh, 1 wait" in capsys.readouterr().out


def test_one_is_clustered_by_name_and_again(layout: Layout, capsys: pytest.CaptureFixture[str]):
    # Given one subreddit's name, If it is clustered twice, Then it is made each time, it alone
    for _ in range(2):
        assert run(["cluster", "--subreddit", "books"]) == 0
        assert "1 clustered, 0 were fresh, 0 wait" in capsys.readouterr().out
    assert not layout.cluster_path("as/AskReddit").exists()
    # If there is none of that name, Then that is said, with the names that are like it
    assert run(["cluster", "--subreddit", "Boks"]) == 1
    error = capsys.readouterr().err
    assert "There is no subreddit Boks" in error
    assert "Did you mean books?" in error


@pytest.mark.parametrize("name", ["b*", "*", "!cars", "books,AskReddit", "b?oks"])
def test_a_name_is_no_pattern(layout: Layout, capsys: pytest.CaptureFixture[str], name: str):
    # Given a pattern where one name is meant, Then nothing is made
    assert run(["cluster", "--subreddit", name]) == 1
    assert f"There is no subreddit {name} in" in capsys.readouterr().err
    assert not list(layout.clusters.rglob("*.parquet"))


def test_a_name_that_two_shards_have_is_not_guessed(
    layout: Layout, capsys: pytest.CaptureFixture[str]
):
    # Given a second shard with a subreddit of the same name
    other = layout.chain_path("xx/books/c_0")
    other.parent.mkdir(parents=True)
    pq.write_table(pa.table({"body": ["one"]}), other)
    # Then the keys are named, and one of them is accepted
    assert run(["cluster", "--subreddit", "books"]) == 1
    assert "books exists 2 times: bo/books, xx/books." in capsys.readouterr().err
    assert run(["cluster", "--subreddit", "bo/books"]) == 0


def test_a_subreddit_that_cannot_be_clustered_is_named(
    layout: Layout, capsys: pytest.CaptureFixture[str]
):
    # Given an embedding file whose vectors are not unit vectors
    path = layout.embedding_path("bo/books/c_0")
    table = pq.read_table(path)
    at = table.schema.get_field_index("emb_000")
    table = table.set_column(at, "emb_000", pa.array([9.0, 9.0], pa.float32()))
    pq.write_table(table, path)
    # If all are clustered, Then the others are, and the failure names the file
    assert run(["cluster"]) == 1
    output = capsys.readouterr()
    assert "1 clustered, 0 were fresh, 1 wait for embeddings, 1 failed." in output.out
    assert "bo/books failed:" in output.err
    assert "c_0" in output.err


def test_clusters_are_printed_as_text_and_json(layout: Layout, capsys: pytest.CaptureFixture[str]):
    # Given a clustered subreddit
    run(["cluster", "--subreddit", "AskReddit"])
    capsys.readouterr()
    # If its clusters are asked for by name and by key, Then both mean it
    assert run(["clusters", "AskReddit", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["key"], report["rows"], report["clusters"]) == ("as/AskReddit", 4, [])
    assert run(["clusters", "as/AskReddit"]) == 0
    shown = capsys.readouterr().out
    assert "as/AskReddit" in shown
    assert "map.html" in shown
    # If there are none, Then the sentence says how they are made
    assert run(["clusters", "cars"]) == 1
    assert "`reddit-assets cluster --subreddit cars` makes them." in capsys.readouterr().err
    assert run(["clusters", "askreddit"]) == 1
    assert "Did you mean AskReddit?" in capsys.readouterr().err


def test_a_failure_of_one_subreddit_stops_no_other(
    layout: Layout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from reddit_assets.tasks import subreddit

    # Given one subreddit with a broken file, and one at which a library fails
    layout.embedding_path("as/AskReddit/c_1").write_bytes(b"PAR1 and no more")
    real = subreddit.cluster_subreddit

    def cluster(layout: Layout, key: str, *more: object, **options: object) -> object:
        if key == "bo/books":
            raise ValueError("need at least one array to concatenate\nand more")
        return real(layout, key, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(subreddit, "cluster_subreddit", cluster)
    # If all are clustered
    assert run(["cluster", "--force"]) == 1
    # Then the list at the end names what failed, each on one line
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "bo/books failed: ValueError: need at least one array to concatenate."
    assert any(line.startswith(("0 clustered", "1 clustered")) for line in said)
