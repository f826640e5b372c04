"""Any chain file becomes an output, or a sentence about that file; any tree is scanned to its end.

The pipeline and the clustering are the real ones; a stand-in makes the vectors.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chain_files import ChainFileCase, chain_files
from embedding_fakes import UnitBackend, fake_spec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.output import publish
from reddit_assets.corpus.scan import Scanner, ScanOptions, Verdict
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.engines.embedding.engine import Embedder
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.errors import RedditAssetsError
from reddit_assets.ledger.planner import queue_wanted
from reddit_assets.tasks.filework import FileJob, FileResult
from reddit_assets.tasks.pipeline import FilePipeline
from reddit_assets.tasks.subreddit import cluster_subreddit

SUBREDDIT = "co/Cooking"
TOKEN = "0123456789abcdef"
PARAMS = ClusterParams(reduction="none")


@pytest.fixture(scope="module")
def embedder(minilm: ModelSpec) -> Embedder:
    return Embedder(fake_spec(minilm), UnitBackend())


class Publishing:
    """Callbacks that do what a worker does."""

    def __init__(self) -> None:
        self.errors: dict[str, Exception] = {}

    def started(self, job: FileJob) -> None:
        pass

    def progress(self, job: FileJob, rows: int) -> None:
        pass

    def finished(self, job: FileJob, result: FileResult) -> None:
        publish(result.temporary, job.output)

    def failed(self, job: FileJob, error: Exception) -> None:
        self.errors[job.key] = error


@contextmanager
def a_tree() -> Iterator[Layout]:
    with TemporaryDirectory() as folder:
        yield Layout.of(Path(folder))


def contents(root: Path) -> dict[Path, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def is_a_sentence(error: Exception, path: Path) -> None:
    """One of ours, which names the file and says what to do."""
    assert isinstance(error, RedditAssetsError), repr(error)
    assert str(path) in error.message
    assert error.hint


def verdicts(layout: Layout, columns: str) -> dict[str, Verdict]:
    options = ScanOptions(settle_seconds=0, deep=True, text_columns=columns)
    (status,) = Scanner(layout, options).scan()
    return {file.key: file.verdict for file in status.files}


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    st.lists(chain_files(), min_size=1, max_size=3),
    st.sampled_from(["", "", "title+selftext,body", "text,nowhere"]),
)
def test_any_chain_files_are_embedded_and_clustered_or_named(
    embedder: Embedder, cases: list[ChainFileCase], columns: str
) -> None:
    with a_tree() as layout:
        # Given files of one subreddit
        keys = [f"{SUBREDDIT}/c_{number}" for number in range(len(cases))]
        for key, case in zip(keys, cases, strict=True):
            case.write(layout.chain_path(key))
        before = contents(layout.chains)
        assert verdicts(layout, columns) == dict.fromkeys(keys, Verdict.MISSING)
        # If they go through the pipeline
        told = Publishing()
        jobs = (
            FileJob(TOKEN, key, layout.chain_path(key), layout.embedding_path(key)) for key in keys
        )
        FilePipeline(embedder, told, text_columns=columns).run(jobs)
        # Then each is fresh, with all its rows and columns, or a sentence names it
        found = verdicts(layout, columns)
        done = []
        for key, case in zip(keys, cases, strict=True):
            if key in told.errors:
                is_a_sentence(told.errors[key], layout.chain_path(key))
                assert found[key] is Verdict.MISSING
                continue
            assert found[key] is Verdict.FRESH
            made = pq.read_metadata(layout.embedding_path(key))
            assert made.num_rows == case.table.num_rows
            names = pq.read_schema(layout.embedding_path(key)).names
            assert names[: len(case.table.column_names)] == case.table.column_names
            done.append(key)
        # and what is there is clustered, with all rows
        if done:
            result = cluster_subreddit(layout, SUBREDDIT, done, PARAMS, token=TOKEN)
            for temporary, final in result.files:
                publish(temporary, final)
            rows = pq.read_metadata(layout.cluster_path(SUBREDDIT)).num_rows
            assert rows == sum(pq.read_metadata(layout.embedding_path(k)).num_rows for k in done)
        # and the chain files are as they were, and nothing else lies about.
        assert contents(layout.chains) == before
        assert list(layout.embeddings.rglob("*.tmp")) == []


# --- trees -----------------------------------------------------------------------------------
PARTS = ["aa", "b b", "é", "year=2020", "x.parquet", "_temporary", ".hidden", "lost+found"]
FILES = [
    *("c0.parquet", "c1.parquet", "c0.PARQUET", "c0.pq", "c0.parquet.gz", "c.csv", "README"),
    *("._c0.parquet", ".DS_Store", "_SUCCESS", ".c0.parquet.crc", ".c0.parquet", "a...b.parquet"),
    "n" * 230 + ".parquet",
]
KINDS = ["file", "file", "file", "folder", "pipe", "loop", "nothing", "out", "in"]
TREES = st.dictionaries(
    st.tuples(st.lists(st.sampled_from(PARTS), max_size=4), st.sampled_from(FILES)).map(
        lambda path: "/".join([*path[0], path[1]])
    ),
    st.sampled_from(KINDS),
    max_size=12,
)


def make(root: Path, name: str, kind: str) -> bool:
    """Make an entry; whether it could be made beside the others."""
    path = root / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "file":
            pq.write_table(pa.table({"body": ["hello"]}), path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to({"loop": path.name, "nothing": "no", "out": "/usr", "in": root}[kind])
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        return False
    return True


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TREES, TREES)
def test_any_tree_is_scanned_to_its_end_and_nothing_is_left_unsaid(
    chains: dict[str, str], outputs: dict[str, str]
) -> None:
    with a_tree() as layout:
        # Given odd entries in all trees
        layout.chains.mkdir()
        made = {name: kind for name, kind in chains.items() if make(layout.chains, name, kind)}
        for name, kind in outputs.items():
            make(layout.embeddings, name, kind)
            make(layout.clusters, name, kind)
        # If they are scanned
        scanner = Scanner(layout, ScanOptions(settle_seconds=0))
        report = queue_wanted(scanner, {}, dry_run=True)
        # Then each file is a chain file, or is counted with a reason, or is named by a problem
        seen = sum(report.files.values())
        said = sum(report.ignored.values()) + report.litter + len(report.problems)
        assert seen + said >= sum(kind == "file" for kind in made.values())
        assert set(report.ignored) == set(report.ignored_examples)
        # and a second scan says the same.
        again = queue_wanted(Scanner(layout, ScanOptions(settle_seconds=0)), {}, dry_run=True)
        assert (again.files, again.ignored) == (report.files, report.ignored)
        assert again.problems == report.problems
