"""Trees and queues shared with the earlier system, in both directions."""

from __future__ import annotations

from pathlib import Path

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


def next_phase(layout: Layout) -> polars.DataFrame:
    """What the earlier system's next phase does: it walks all folders and reads what it finds."""
    shards = [folder for folder in layout.clusters.iterdir() if folder.is_dir()]
    folders = [folder for shard in shards for folder in shard.iterdir() if folder.is_dir()]
    files = [file for folder in sorted(folders) for file in sorted(folder.glob("*.parquet"))]
    return polars.concat([polars.read_parquet(file) for file in files])


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
