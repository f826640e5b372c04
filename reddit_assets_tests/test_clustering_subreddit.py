"""A subreddit's files: what is written, what is refused, what lasts from night to night."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("hdbscan")
pytest.importorskip("evoc")

from reddit_assets.corpus.fingerprints import cluster_version, set_hash
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.output import EmbeddingWriter, publish
from reddit_assets.corpus.provenance import (
    ClusterProvenance,
    EmbeddingProvenance,
    ModelIdentity,
    SourceIdentity,
    cluster_inputs,
    read_output,
)
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.errors import BadFileError, ClusteringError
from reddit_assets.tasks.inputs import ADDED_COLUMNS
from reddit_assets.tasks.report import clusters_report, render
from reddit_assets.tasks.subreddit import ClusterResult, cluster_subreddit

THEMES = [
    "sourdough bread starter flour",
    "cast iron steak pan",
    "knife sharpening whetstone steel",
    "vegetable soup stock onion",
    "chocolate cake icing butter",
]
DIMENSION = 48


def table(rows: int, *, first: int = 0, seed: int = 0, **columns: Any) -> pa.Table:
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, len(THEMES), rows)
    words = [THEMES[kind].split() for kind in kinds]
    return pa.table(
        {
            "id": pa.array([f"t{first + at}" for at in range(rows)], pa.string()),
            "body": [f"How about {rng.choice(w)} and {rng.choice(w)}? {w[0]}" for w in words],
            "ups": pa.array(rng.integers(0, 500, rows)),
            "created_utc": pa.array(1_600_000_000 + rng.integers(0, 10**7, rows)),
            "kind": pa.array(kinds),
            **columns,
        }
    )


def vectors_of(kinds: np.ndarray, seed: int) -> np.ndarray:
    middles = np.random.default_rng(77).standard_normal((len(THEMES), DIMENSION))
    noise = np.random.default_rng(seed).standard_normal((len(kinds), DIMENSION))
    found = middles[kinds] + noise * 0.35
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def embed(
    layout: Layout, key: str, source: pa.Table, vectors: np.ndarray | None = None, model: str = "m"
) -> None:
    if vectors is None:
        vectors = vectors_of(source["kind"].to_numpy(), seed=len(key) + source.num_rows)
    said = SourceIdentity(fingerprint=key, size=1, mtime_ns=1, rows=source.num_rows)
    identity = ModelIdentity(
        name=model, fingerprint=model * 32, dimension=DIMENSION, max_tokens=256, pooling="mean"
    )
    with EmbeddingWriter(layout.embedding_path(key), source.schema, vectors.shape[1]) as writer:
        for batch in source.to_batches():
            writer.write(batch, vectors)
        writer.finish(
            EmbeddingProvenance(key=key, data_version="v" + key, source=said, model=identity)
        )


def run(
    layout: Layout, keys: list[str], *, cluster_key: str = "co/Cooking", **params: Any
) -> ClusterResult:
    result = cluster_subreddit(layout, cluster_key, keys, ClusterParams(**params), token="tok")
    for temporary, final in result.files:
        assert temporary.name == f"{final.name}.tok.tmp"
        publish(temporary, final)
    return result


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.of(tmp_path)


def test_rows_columns_and_provenance(layout: Layout) -> None:
    # Given three files of one subreddit, one of them empty
    keys = ["co/Cooking/a", "co/Cooking/b", "co/Cooking/c"]
    tables = [table(150), table(0), table(130, first=150, seed=1)]
    for key, source in zip(keys, tables, strict=True):
        embed(layout, key, source)
    # If they are clustered, the keys given in any order
    result = run(layout, keys[::-1])
    # Then all columns are kept in key order and the new ones are appended with their types
    made = pq.read_table(layout.cluster_path("co/Cooking"))
    names = [f"emb_{at:03d}" for at in range(DIMENSION)]
    assert made.column_names == [*tables[0].column_names, *names, *ADDED_COLUMNS]
    assert made["id"].to_pylist() == [f"t{at}" for at in range(280)]
    assert made.schema.field("cluster_id").type == pa.int32()
    assert made.schema.field("cluster_probability").type == pa.float32()
    assert {made.schema.field(name).type for name in names} == {pa.float32()}
    # and the clusters are the groups that are there
    ids, kinds = made["cluster_id"].to_numpy(), made["kind"].to_numpy()
    for number in range(ids.max() + 1):
        assert len(set(kinds[ids == number])) == 1
    assert result.metadata["clusters"] >= 4
    assert result.rows == 280
    # and the provenance is what a scan compares
    provenance = read_output(layout.cluster_path("co/Cooking")).provenance
    assert isinstance(provenance, ClusterProvenance)
    files = cluster_inputs(layout, keys)
    assert provenance.inputs == {key: "v" + key for key in keys}
    assert provenance.inputs_hash == set_hash(provenance.inputs)
    assert provenance.inputs_stamp == set_hash(
        {key: file.stamp for key, file in zip(keys, files, strict=True)}
    )
    assert provenance.settings_fingerprint == ClusterParams().fingerprint
    assert provenance.data_version == result.data_version
    assert provenance.data_version == cluster_version(
        provenance.inputs_hash, ClusterParams().fingerprint
    )
    json.dumps([result.metadata, result.table])


def test_clusters_say_what_they_are_about(layout: Layout) -> None:
    # Given a clustered subreddit
    embed(layout, "co/Cooking/a", table(300))
    result = run(layout, ["co/Cooking/a"])
    # If the report is read
    report = clusters_report(layout.cluster_dir("co/Cooking"))
    # Then every cluster has the words of one theme, posts of its own, scores and dates
    made = pq.read_table(layout.cluster_path("co/Cooking")).to_pandas()
    for row in report["clusters"]:
        mine = made[made["cluster_id"] == row["cluster_id"]]
        words = THEMES[mine["kind"].iloc[0]].split()
        assert row["size"] == len(mine)
        assert row["keywords"][0].split()[0] in words
        assert set(row["representative_ids"]) <= set(mine["id"])
        assert row["representative_texts"][0] in set(mine["body"])
        assert row["score_median"] == mine["ups"].median()
        assert row["first_date"].startswith("2020")
        assert row["fate"] == "born"
    assert sum(theme["clusters"] for theme in report["themes"]) == len(report["clusters"])
    of_topics = {topic["topic_id"]: topic for topic in report["topics"]}
    for row in report["clusters"]:
        assert of_topics[row["topic_id"]]["theme_id"] == row["theme_id"]
    assert len(of_topics) == result.metadata["topics"]
    assert result.table[0]["topic"] in {topic["name"] for topic in report["topics"]}
    assert result.png is not None
    assert result.png.startswith(b"\x89PNG")
    assert len(result.png) <= 60_000
    # and a terminal can show it
    from rich.console import Console

    shown = StringIO()
    console = Console(width=120, file=shown)
    console.print(render(report))
    json.dumps(report)
    # also where a theme is named by a post that looks like markup.
    report["themes"][0]["name"] = "[/b] [Homemade] bread"
    console.print(render(report))
    assert "[/b] [Homemade] bread" in shown.getvalue()


def test_file_order_does_not_matter(layout: Layout, tmp_path: Path) -> None:
    # Given the same rows in files of other names, so in another order
    parts = [table(120, seed=3), table(140, first=120, seed=4), table(90, first=260, seed=5)]
    found = [vectors_of(part["kind"].to_numpy(), seed=at) for at, part in enumerate(parts)]
    other = Layout.of(tmp_path / "other")
    for at in range(3):
        embed(layout, f"co/Cooking/{'abc'[at]}", parts[at], found[at])
        embed(other, f"co/Cooking/{'zyx'[at]}", parts[at], found[at])
    # If both are clustered
    run(layout, [f"co/Cooking/{name}" for name in "abc"])
    run(other, [f"co/Cooking/{name}" for name in "xyz"])
    # Then every post has the same cluster
    columns = ["id", "cluster_id", "x", "theme_id"]
    left, right = (
        pq.read_table(place.cluster_path("co/Cooking"), columns=columns).sort_by("id")
        for place in (layout, other)
    )
    assert left.equals(right)


@pytest.mark.parametrize("with_ids", [True, False])
def test_a_second_night_keeps_the_ids(layout: Layout, with_ids: bool) -> None:
    # Given a clustered subreddit whose ids are not 0, 1, … any more
    first = table(400) if with_ids else table(400).drop_columns(["id"])
    embed(layout, "co/Cooking/a", first)
    run(layout, ["co/Cooking/a"])
    # If a few rows are added
    second = table(12, first=400, seed=8)
    embed(layout, "co/Cooking/b", second if with_ids else second.drop_columns(["id"]))
    before = pq.read_table(layout.cluster_path("co/Cooking"))["cluster_id"].to_numpy()
    result = run(layout, ["co/Cooking/a", "co/Cooking/b"])
    # Then the old rows have their old ids, and the changes say so
    after = pq.read_table(layout.cluster_path("co/Cooking"))["cluster_id"].to_numpy()[:400]
    moved = float((before != after).mean())
    assert moved == 0
    assert result.metadata["rows_moved_share"] == pytest.approx(moved, abs=1e-4)
    assert result.metadata["clusters_continued"] >= 4


@pytest.mark.parametrize("rows", [0, 1, 4, 5])
def test_few_rows_have_an_output(layout: Layout, rows: int) -> None:
    # Given next to no rows
    embed(layout, "co/Cooking/a", table(rows))
    # If they are clustered
    result = run(layout, ["co/Cooking/a"])
    # Then there are all files, and every row is noise
    made = pq.read_table(layout.cluster_path("co/Cooking"))
    assert made["cluster_id"].to_pylist() == [-1] * rows
    assert result.metadata["clusters"] == 0
    assert clusters_report(layout.cluster_dir("co/Cooking"))["clusters"] == []
    assert (layout.cluster_dir("co/Cooking") / "map.html").stat().st_size > 1_000


def test_originals_files_are_cast(layout: Layout) -> None:
    # Given a file of the earlier system (float64 vectors, no provenance), beside one of ours
    source = table(80, seed=2)
    found = vectors_of(source["kind"].to_numpy(), seed=2).astype(np.float64)
    for at in range(DIMENSION):
        source = source.append_column(f"emb_{at:03d}", pa.array(found[:, at]))
    path = layout.embedding_path("co/Cooking/old")
    path.parent.mkdir(parents=True)
    pq.write_table(source, path)
    embed(layout, "co/Cooking/new", table(80, first=80))
    # If they are clustered, then the vectors are float32 and the adopted file is counted
    result = run(layout, ["co/Cooking/new", "co/Cooking/old"])
    made = pq.read_table(layout.cluster_path("co/Cooking"))
    assert made.schema.field("emb_007").type == pa.float32()
    assert result.metadata["adopted_files"] == 1


def test_an_all_null_column_fits_any_type(layout: Layout) -> None:
    # Given a column that is all null in one file and text in the other
    embed(layout, "co/Cooking/a", table(30, flair=pa.nulls(30)))
    embed(layout, "co/Cooking/b", table(30, first=30, flair=pa.array(["x"] * 30, pa.string())))
    # If they are clustered, then the column has the type that it has somewhere
    run(layout, ["co/Cooking/a", "co/Cooking/b"])
    made = pq.read_table(layout.cluster_path("co/Cooking"))
    assert made.schema.field("flair").type == pa.large_string()
    assert made["flair"].null_count == 30


@pytest.mark.parametrize("fault", ["model", "dimension", "nan", "norm"])
def test_what_does_not_fit_is_refused_with_the_file(layout: Layout, fault: str) -> None:
    # Given a good file and one that does not go with it
    embed(layout, "co/Cooking/good", table(40))
    bad = table(40, first=40)
    found = vectors_of(bad["kind"].to_numpy(), seed=1)
    model = "m"
    if fault == "model":
        model = "n"
    elif fault == "dimension":
        found = np.concatenate([found, found], axis=1) / np.sqrt(2).astype(np.float32)
    elif fault == "nan":
        found[3, 3] = np.nan
    else:
        found[5] *= 1.5
    embed(layout, "co/Cooking/later", bad, found, model)
    # If they are clustered, then it is refused, the file named, and nothing is left behind
    with pytest.raises(ClusteringError, match="later"):
        cluster_subreddit(
            layout,
            "co/Cooking",
            ["co/Cooking/good", "co/Cooking/later"],
            ClusterParams(),
            token="tok",
        )
    assert not list(layout.clusters.glob("**/*.tmp"))


def test_an_error_while_writing_leaves_nothing(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given that the last file cannot be written
    embed(layout, "co/Cooking/a", table(40))

    def fail(*args: Any, **more: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reddit_assets.tasks.subreddit.write_clustered", fail)
    # If the subreddit is clustered, then no temporary file is left
    with pytest.raises(OSError, match="space"):
        cluster_subreddit(layout, "co/Cooking", ["co/Cooking/a"], ClusterParams(), token="tok")
    assert not list(layout.clusters.glob("**/*.tmp"))


def test_a_report_needs_our_table(tmp_path: Path) -> None:
    # Given no table, and a table of something else
    with pytest.raises(BadFileError, match="no"):
        clusters_report(tmp_path)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "clusters.table")
    # If a report is asked for, then the error names the file
    with pytest.raises(BadFileError, match=r"clusters\.table"):
        clusters_report(tmp_path)
