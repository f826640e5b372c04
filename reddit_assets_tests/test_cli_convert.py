"""``reddit-assets convert``: the same vectors elsewhere, and nobody need know."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reddit_assets.cli.app import run
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.output import publish
from reddit_assets.corpus.provenance import ADOPTED_KEY, PROVENANCE_KEY, read_output
from reddit_assets.corpus.vectors import FLOAT16_BOUND, VectorFormat, embedding_names, find_vectors
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.engines.embedding.conformance import cosines
from reddit_assets.ledger.job import Job, Kind, new_token
from reddit_assets.local.treelock import TreeLock
from reddit_assets.settings import Settings
from reddit_assets.tasks.convert import convert_file
from reddit_assets.tasks.inputs import read_vectors
from reddit_assets.tasks.subreddit import cluster_subreddit
from reddit_assets.workspace import Workspace
from reddit_assets_tests.factories import claim_jobs, write_chain, write_embedding

OWN, ADOPTED = "co/Cooking/own", "co/Cooking/adopted"
FORMS = [f"{layout} {dtype}" for layout in ("list", "both", "columns") for dtype in ("32", "16")]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A clustered subreddit of a file of ours and one of the earlier system."""
    monkeypatch.setenv("REDDIT_ROOT", str(tmp_path))
    monkeypatch.delenv("REDIS_URL", raising=False)
    layout = Layout.of(tmp_path)
    for key, rows in ((OWN, 40), (ADOPTED, 3)):
        write_chain(layout, key, [f"text {number} of {key}" for number in range(rows)])
    write_embedding(layout, OWN)
    table = pq.read_table(layout.chain_path(ADOPTED))
    vectors = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for name, column in zip(embedding_names(4), vectors.T, strict=True):
        table = table.append_column(name, pa.array(column.astype(np.float64)))
    pq.write_table(table, layout.embedding_path(ADOPTED), row_group_size=2)
    params = ClusterParams.from_settings(Settings())
    made = cluster_subreddit(layout, "co/Cooking", [OWN, ADOPTED], params, token=new_token())
    for temporary, final in made.files:
        publish(temporary, final)
    return layout


def files_of(layout: Layout) -> list[Path]:
    return [
        layout.embedding_path(OWN),
        layout.embedding_path(ADOPTED),
        layout.cluster_path("co/Cooking"),
    ]


def vectors_in(path: Path) -> np.ndarray:
    return np.concatenate(list(read_vectors(path)))


def others_in(path: Path) -> pa.Table:
    table = pq.read_table(path)
    stored = find_vectors(table.schema)
    assert stored is not None
    return table.drop_columns([*stored.names]).replace_schema_metadata(None)


def unwanted(layout: Layout, *, deep: bool) -> bool:
    """Whether a scan wants nothing made again."""
    settings = Settings(root=layout.chains.parent, settle_seconds=0.0)
    (status,) = Workspace.of_trees(settings, layout).scanner(deep=deep).scan()
    assert status.cluster is not None
    return status.cluster.verdict.done and all(file.verdict.done for file in status.files)


@pytest.mark.parametrize("form", FORMS)
def test_a_tree_goes_there_and_back_and_nothing_is_made_again(
    form: str, tree: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given a tree of which nothing is wanted
    assert unwanted(tree, deep=False)
    files = files_of(tree)
    vectors, others = [vectors_in(path) for path in files], [others_in(path) for path in files]
    before = [read_output(path) for path in files]
    orders = [pq.read_schema(path).names for path in files]
    # If it is converted, and converted again
    layout, width = form.split()
    wanted = VectorFormat(layout, f"float{width}")  # type: ignore[arg-type]
    convert = ["convert", "--no-workers", "--json"]
    flags = ["--vector-layout", layout, "--vector-dtype", wanted.dtype]
    for expected in ("converted", "already"):
        assert run([*convert, *flags]) == 0
        said = json.loads(capsys.readouterr().out)
        # (the earlier system's columns are float64, so that file is always converted)
        assert said[expected] >= 1 + (str(wanted) != "columns float32" or expected == "already")
        assert said["failed"] == {}
    # Then all files have that form, rows, columns, versions and times as before, near vectors
    exact = width == "32" or layout == "both"
    for path, old, there, rest in zip(files, before, vectors, others, strict=True):
        stored = find_vectors(pq.read_schema(path))
        assert stored is not None
        assert stored.is_as(wanted)
        assert others_in(path).equals(rest)
        found = read_output(path)
        assert (found.rows, found.dimension) == (old.rows, old.dimension)
        assert (found.data_version, found.provenance) == (old.data_version, old.provenance)
        assert found.stamp.mtime_ns == old.stamp.mtime_ns
        assert (vectors_in(path) == there).all() if exact else True
        assert cosines(vectors_in(path), there).min() >= FLOAT16_BOUND
    # and nobody wants anything made again, by a quick look or a deep one
    assert unwanted(tree, deep=False)
    assert unwanted(tree, deep=True)
    # If it is converted back, Then the vectors are those that were there, in the columns' order
    rounded = [vectors_in(path) for path in files]
    assert run([*convert, "--vector-layout", "columns"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["widened"] == (0 if exact else 3)
    for path, there, order in zip(files, rounded, orders, strict=True):
        np.testing.assert_array_equal(vectors_in(path), there)
        assert pq.read_schema(path).names == order
    assert [read_output(path).data_version for path in files] == [o.data_version for o in before]
    assert unwanted(tree, deep=False)
    assert not list(tree.embeddings.rglob("*.tmp")) + list(tree.clusters.rglob("*.tmp"))


def test_the_provenance_is_carried_over_to_the_letter(tree: Layout) -> None:
    # Given a file whose provenance a later version wrote
    path = tree.embedding_path(OWN)
    table = pq.read_table(path)
    said = json.loads(table.schema.metadata[PROVENANCE_KEY]) | {"of_a_later_version": 1}
    text = json.dumps(said).encode()
    pq.write_table(table.replace_schema_metadata({PROVENANCE_KEY: text, b"own": b"x"}), path)
    # If it is converted, Then all entries are there as they were
    convert_file(path, VectorFormat("list"), new_token())
    metadata = pq.read_metadata(path).metadata
    assert (metadata[PROVENANCE_KEY], metadata[b"own"]) == (text, b"x")
    assert ADOPTED_KEY not in metadata


def test_files_of_a_workers_jobs_are_left(
    tree: Layout,
    valkey_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Given a worker that has a file's job
    monkeypatch.setenv("REDIS_URL", valkey_url)
    queue = Workspace.load().queues[Kind.EMBED]
    queue.enqueue([Job(Kind.EMBED, OWN, "s")], tree)
    claims = claim_jobs(queue, "worker", 1, 60.0)
    assert claims
    content = tree.embedding_path(OWN).read_bytes()
    # If the tree is converted, Then that file is left, and the command says so
    assert run(["convert", "--vector-layout", "list"]) == 1
    said = capsys.readouterr().out
    assert "2 converted to list float32, 0 were so already, 0 failed" in said
    assert "1 are being made by workers now: run this again" in said
    assert "New files are written as columns float32: set REDDIT_VECTOR_LAYOUT=list" in said
    assert tree.embedding_path(OWN).read_bytes() == content
    # If the worker gives the job back, Then the rest is converted
    queue.release(claims)
    assert run(["convert", "--vector-layout", "list"]) == 0
    assert "1 converted to list float32, 2 were so already" in capsys.readouterr().out


def test_what_is_published_meanwhile_is_kept(tree: Layout) -> None:
    # Given a worker that publishes between the reading and the rename
    path = tree.embedding_path(OWN)
    calls = []

    def publish_another() -> bool:
        calls.append(path)
        if len(calls) == 2:
            other = path.with_suffix(".new")
            other.write_bytes(path.read_bytes())
            other.replace(path)
        return False

    # If the file is converted, Then what was published is there, and nothing else
    content = path.read_bytes()
    assert convert_file(path, VectorFormat("list"), new_token(), publish_another).outcome == "busy"
    assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == ["own.parquet", "adopted.parquet"]


def test_without_a_queue_to_ask_nothing_is_touched(
    tree: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given no queue, If a tree is converted, Then that is refused
    contents = [path.read_bytes() for path in files_of(tree)]
    assert run(["convert", "--vector-layout", "list"]) == 1
    assert "REDIS_URL is not set" in capsys.readouterr().err
    # Given an `up` elsewhere that works on the tree, Then as well, whatever is said of workers
    with TreeLock(tree.embeddings, "another", {"page": "http://elsewhere"}, lambda why: None):
        assert run(["convert", "--vector-layout", "list", "--no-workers"]) == 1
    assert "Another `reddit-assets up` works on" in capsys.readouterr().err
    assert [path.read_bytes() for path in files_of(tree)] == contents


def test_a_damaged_file_does_not_stop_the_others(
    tree: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given a file that is cut off, and one that float16 cannot hold
    own = tree.embedding_path(OWN)
    own.write_bytes(own.read_bytes()[:-9])
    adopted = tree.embedding_path(ADOPTED)
    table = pq.read_table(adopted)
    large = pa.array([1e6] * 3)
    pq.write_table(table.set_column(table.schema.names.index("emb_000"), "emb_000", large), adopted)
    # If the tree is converted, Then both are named, and the third is converted
    assert run(["convert", "--no-workers", "--vector-layout", "list", "--vector-dtype", "float16"])
    said = capsys.readouterr().out
    assert "1 converted to list float16, 0 were so already, 2 failed" in said
    assert "is not a whole parquet file" in said
    assert "vectors cannot be kept in float16" in said
