"""Trees and queues shared with the earlier system, in both directions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("hdbscan")
pytest.importorskip("evoc")

from reddit_assets.cli.app import run
from reddit_assets.corpus.layout import Layout
from reddit_assets.tasks.report import clusters_report

SUBREDDITS = ("as/AskReddit", "bo/books", "co/Cooking")
ROWS, DIMENSION = 60, 48


def earlier_embedding(layout: Layout, key: str, *, rows: int = ROWS, kind: type = np.float64):
    """A chain file and the earlier system's embedding file of it: three topics, no provenance."""
    dice = np.random.default_rng(len(key))
    topics = np.arange(rows) % 3
    table = pa.table(
        {
            "id": [f"{key}-{row}" for row in range(rows)],
            "body": [("bread flour", "knife steel", "cake icing")[topic] for topic in topics],
            "ups": pa.array(range(rows), pa.int64()),
            "downs": pa.array([0] * rows, pa.int64()),
        }
    )
    middles = np.random.default_rng(1).normal(size=(3, DIMENSION))
    vectors = middles[topics] + 0.3 * dice.normal(size=(rows, DIMENSION))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for path in (layout.chain_path(key), layout.embedding_path(key)):
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        for column in range(DIMENSION):
            values = pa.array(vectors[:, column].astype(kind))
            table = table.append_column(f"emb_{column:03d}", values)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Subreddits that the earlier system has embedded."""
    layout = Layout.of(tmp_path)
    for key in SUBREDDITS:
        earlier_embedding(layout, f"{key}/c_0")
    monkeypatch.setenv("REDDIT_ROOT", str(tmp_path))
    monkeypatch.delenv("REDIS_URL", raising=False)
    return layout


def next_phase(
    layout: Layout, how: Literal["vertical", "diagonal_relaxed"] = "vertical"
) -> polars.DataFrame:
    """What the earlier system's next phase does: it walks all folders and reads what it finds."""
    shards = [folder for folder in layout.clusters.iterdir() if folder.is_dir()]
    folders = [folder for shard in shards for folder in shard.iterdir() if folder.is_dir()]
    files = [file for folder in sorted(folders) for file in sorted(folder.glob("*.parquet"))]
    return polars.concat([polars.read_parquet(file) for file in files], how=how)


def test_its_next_phase_reads_what_we_cluster(layout: Layout) -> None:
    # Given subreddits that were clustered, If all parquet files below clusters/ are concatenated
    assert run(["cluster"]) == 0
    frame = next_phase(layout)
    # Then each row of the corpus is there once, with what the next phase needs
    assert len(frame) == len(SUBREDDITS) * ROWS
    assert {"id", "body", "ups", "downs", "cluster_id"} <= set(frame.columns)
    assert frame["id"].n_unique() == len(frame)
    # and nothing else there ends in .parquet, hidden or not
    assert {path.name for path in layout.clusters.rglob("*.parquet")} == {"clustered.parquet"}
    assert not [path for path in layout.clusters.glob("*/*/*") if path.is_dir()]


def as_before(layout: Layout, key: str) -> Path:
    """Gives a table of clusters the name that earlier versions of ours gave it."""
    old = layout.cluster_dir(key) / "clusters.parquet"
    (layout.cluster_dir(key) / "clusters.table").rename(old)
    return old


def test_an_old_table_is_found_and_the_next_run_renames_it(
    layout: Layout, valkey_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given tables of an earlier version's name, and a user's file of that name
    assert run(["cluster"]) == 0
    old = as_before(layout, "bo/books")
    users = layout.cluster_dir("co/Cooking") / "clusters.parquet"
    pq.write_table(pa.table({"mine": [1]}), users)
    # If the clusters are asked for, Then they are found
    assert run(["clusters", "books", "--json"]) == 0
    # If a scan only looks, Then nothing is renamed
    assert run(["scan", "--dry-run"]) == 0
    assert old.exists()
    # If one queues jobs, Then the table has its new name, and the user's file is still there
    assert run(["scan", "--redis-url", valkey_url, "--no-wait"]) == 0
    assert not old.exists()
    assert (layout.cluster_dir("bo/books") / "clusters.table").exists()
    assert users.exists()
    # If there are both, Then the older one goes: the next phase would read it
    pq.write_table(pq.read_table(layout.cluster_dir("bo/books") / "clusters.table"), old)
    assert run(["cluster", "--subreddit", "books"]) == 0
    assert not old.exists()


def test_identities_last_over_the_renaming(layout: Layout) -> None:
    # Given a clustered subreddit, its table having the old name
    assert run(["cluster", "--subreddit", "books"]) == 0
    as_before(layout, "bo/books")
    # If it is clustered again, Then all clusters continue
    assert run(["cluster", "--subreddit", "books"]) == 0
    changes = clusters_report(layout.cluster_dir("bo/books"))["summary"]["changes"]
    assert (changes["continued"], changes["born"]) == (3, 0)


def earlier_clusters(layout: Layout, key: str, first: int) -> dict[str, int]:
    """The earlier clusterer's file: the rows in another order, ids from ``first`` on, some noise.

    Returns the id of each row.
    """
    table = pq.read_table(layout.embedding_path(f"{key}/c_0"))
    order = np.random.default_rng(3).permutation(table.num_rows)
    ids = np.where(order % 10 == 9, -1, first + order % 3)
    path = layout.cluster_path(key)
    path.parent.mkdir(parents=True)
    pq.write_table(table.take(order).append_column("cluster_id", pa.array(ids)), path)
    return dict(zip(table["id"].take(order).to_pylist(), ids.tolist(), strict=True))


def test_adoption_is_told_and_leads_out(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    # Given files of the earlier system, one of them clustered by it, If a scan looks
    before = earlier_clusters(layout, "bo/books", first=7)
    assert run(["scan", "--dry-run"]) == 0
    # Then adopted files and clusters are counted apart, for programs as well
    assert "adopted: 3 embedding files and 1 clusters" in capsys.readouterr().out
    assert run(["scan", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["adopted"] == {"files": 3, "clusters": 1}
    # If all are clustered, Then the adopted one is not called fresh
    assert run(["cluster"]) == 0
    said = capsys.readouterr().out
    assert "2 clustered, 0 were fresh, 0 wait" in said
    assert "1 more were clustered by the earlier system" in said
    # and both stand side by side for the next phase
    assert len(next_phase(layout, how="diagonal_relaxed")) == len(SUBREDDITS) * ROWS
    # If its clusters are asked for, Then the answer is a command that makes them
    assert run(["clusters", "books"]) == 1
    assert "`reddit-assets cluster --subreddit books`" in capsys.readouterr().err
    assert run(["cluster", "--subreddit", "books"]) == 0
    assert run(["clusters", "books", "--json"]) == 0
    # and the clusters keep the ids that they had
    table = pq.read_table(layout.cluster_path("bo/books"))
    now = dict(zip(table["id"].to_pylist(), table["cluster_id"].to_pylist(), strict=True))
    assert {now[row] for row in now} == {7, 8, 9}
    assert all(now[row] == before[row] for row in now if before[row] >= 0)
