"""The file pipeline: every file whole and right, whatever its neighbours are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reddit_assets.corpus.provenance import read_output
from reddit_assets.engines.embedding.backends.base import Batch
from reddit_assets.engines.embedding.engine import Embedder, Window
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.errors import BadFileError, SourceChangedError
from reddit_assets.tasks import filework
from reddit_assets.tasks.filework import FileJob, FileResult
from reddit_assets.tasks.pipeline import FilePipeline
from reddit_assets_tests.embedding_fakes import DIMENSION, FakeBackend, fake_spec

WORDS = np.array(
    ["the", "of", "cat", "dog", "house", "tree", "river", "stone", "idea", "question", "war"]
)


@pytest.fixture(scope="module")
def embedder(minilm: ModelSpec) -> Embedder:
    return Embedder(fake_spec(minilm), FakeBackend())


@pytest.fixture(autouse=True)
def healthy(embedder: Embedder) -> None:
    backend = embedder.backend
    assert isinstance(backend, FakeBackend)
    backend.poison = None
    backend.batches.clear()


class Collected:
    """Callbacks that keep what they are given."""

    def __init__(self) -> None:
        self.results: dict[str, FileResult] = {}
        self.errors: dict[str, Exception] = {}
        self.rows: dict[str, int] = {}
        self.begun: list[str] = []
        self.ended = threading.Condition()

    def started(self, job: FileJob) -> None:
        self.begun.append(job.token)

    def progress(self, job: FileJob, rows: int) -> None:
        with self.ended:
            self.rows[job.token] = self.rows.get(job.token, 0) + rows

    def finished(self, job: FileJob, result: FileResult) -> None:
        with self.ended:
            assert job.token not in self.results
            self.results[job.token] = result

    def failed(self, job: FileJob, error: Exception) -> None:
        with self.ended:
            assert job.token not in self.errors
            self.errors[job.token] = error


def texts_of_length(rows: int, seed: int) -> list[str | None]:
    random = np.random.default_rng(seed)
    texts: list[str | None] = [
        " ".join(random.choice(WORDS, random.integers(1, 40))) for _ in range(rows)
    ]
    if rows > 2:
        texts[1], texts[2] = None, ""
    return texts


def job_for(folder: Path, name: str, table: pa.Table, **options: object) -> FileJob:
    source = folder / f"{name}.parquet"
    pq.write_table(table, source, **options)
    return FileJob(name, name, source, folder / "out" / f"{name}.parquet", job_id=f"job-{name}")


def chain(rows: int, seed: int) -> pa.Table:
    return pa.table(
        {"id": list(range(rows)), "body": pa.array(texts_of_length(rows, seed), pa.string())}
    )


def run(embedder: Embedder, jobs: list[FileJob], **options: int) -> Collected:
    told = Collected()
    FilePipeline(embedder, told, **options).run(iter(jobs))
    return told


def vectors_in(path: Path) -> np.ndarray:
    table = pq.read_table(path)
    return np.stack([table[f"emb_{i:03d}"].to_numpy() for i in range(DIMENSION)], axis=1)


def test_small_files_share_batches_and_stay_apart(embedder: Embedder, tmp_path: Path) -> None:
    # Given forty files of five rows
    tables = [chain(5, seed) for seed in range(40)]
    jobs = [job_for(tmp_path, f"f{i}", table) for i, table in enumerate(tables)]
    # If they go through the pipeline
    told = run(embedder, jobs)
    # Then each has its own rows and vectors, provenance, and only its temporary name
    assert len(told.results) == 40
    assert not told.errors
    for job, table in zip(jobs, tables, strict=True):
        result = told.results[job.token]
        assert result.temporary == job.output.with_name(f"{job.output.name}.{job.token}.tmp")
        written = pq.read_table(result.temporary)
        assert written.select(["id", "body"]).equals(table)
        assert written.schema.field("emb_000").type == pa.float32()
        np.testing.assert_allclose(
            vectors_in(result.temporary), embedder.encode(table["body"]), rtol=1e-5, atol=1e-5
        )
        provenance = read_output(result.temporary).provenance
        assert provenance is not None
        assert provenance.job_id == job.job_id
        assert provenance.data_version == result.data_version
        assert provenance.tokens == result.tokens > 0
        assert not job.output.exists()
    # and there were far fewer batches than files
    assert isinstance(embedder.backend, FakeBackend)
    shared = [rows for rows, _ in embedder.backend.batches]
    assert max(shared) > 5


def test_a_file_over_many_windows_keeps_its_order(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a file of many row groups, windows far smaller than it, and a small one behind it
    monkeypatch.setattr(filework, "ROW_GROUP_ROWS", 700)
    monkeypatch.setattr(filework, "PIECE_ROWS", 64)
    large = chain(3_000, 1)
    jobs = [
        job_for(tmp_path, "large", large, row_group_size=100),
        job_for(tmp_path, "small", chain(3, 2)),
    ]
    # If they go through
    told = run(embedder, jobs, window_rows=150)
    # Then rows and vectors are in the file's order, in row groups of a sensible size
    result = told.results["large"]
    assert told.rows == {"large": 3_000, "small": 3}
    assert pq.read_table(result.temporary)["id"].to_pylist() == list(range(3_000))
    np.testing.assert_allclose(
        vectors_in(result.temporary), embedder.encode(large["body"]), rtol=1e-5, atol=1e-5
    )
    assert pq.read_metadata(result.temporary).num_row_groups <= 5
    assert "small" in told.results


def test_a_file_without_rows_gets_an_output_without_rows(
    embedder: Embedder, tmp_path: Path
) -> None:
    told = run(embedder, [job_for(tmp_path, "empty", chain(0, 0))])
    written = pq.read_table(told.results["empty"].temporary)
    assert written.num_rows == 0
    assert written.schema.names == ["id", "body", *[f"emb_{i:03d}" for i in range(DIMENSION)]]


def test_a_bad_file_fails_alone_and_leaves_nothing(embedder: Embedder, tmp_path: Path) -> None:
    # Given a file that is not there, one without text, one cut in its data, between good ones
    (tmp_path / "out").mkdir()
    cut = job_for(tmp_path, "cut", chain(2_000, 3), row_group_size=500, compression="none")
    content = bytearray(cut.source.read_bytes())
    third = pq.read_metadata(cut.source).row_group(2).column(1).data_page_offset
    content[third : third + 400] = b"\xff" * 400
    cut.source.write_bytes(content)
    jobs = [
        job_for(tmp_path, "good", chain(10, 4)),
        FileJob("gone", "gone", tmp_path / "gone.parquet", tmp_path / "out" / "gone.parquet"),
        job_for(tmp_path, "textless", pa.table({"id": [1]})),
        cut,
        job_for(tmp_path, "fine", chain(10, 5)),
    ]
    # If they go through together
    told = run(embedder, jobs, window_rows=100)
    # Then the good ones are made, each bad one is reported once with its reason, and no
    # temporary file of a bad one is left
    assert set(told.results) == {"good", "fine"}
    assert set(told.errors) == {"gone", "textless", "cut"}
    assert all(isinstance(error, BadFileError) for error in told.errors.values())
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"good.parquet.good.tmp", "fine.parquet.fine.tmp"}


def test_a_source_that_changes_while_it_is_read_is_not_published(
    embedder: Embedder, tmp_path: Path
) -> None:
    # Given a file that is replaced once its reading has begun
    job = job_for(tmp_path, "moving", chain(50, 6))

    class Replacing(Collected):
        def progress(self, job: FileJob, rows: int) -> None:
            pq.write_table(chain(50, 7), job.source)

    told = Replacing()
    # If it goes through
    FilePipeline(embedder, told).run(iter([job]))
    # Then it fails as changed, and nothing is left
    assert isinstance(told.errors["moving"], SourceChangedError)
    assert not list((tmp_path / "out").iterdir())


def test_a_failing_device_fails_the_files_of_its_window_only(
    embedder: Embedder, tmp_path: Path
) -> None:
    # Given a device that fails at one word, which is in the last of three files
    assert isinstance(embedder.backend, FakeBackend)
    embedder.backend.poison = int(embedder.tokenizer(["zebra"]).ids[1])
    jobs = [
        job_for(tmp_path, "one", chain(60, 8)),
        job_for(tmp_path, "two", chain(60, 9)),
        job_for(tmp_path, "three", pa.table({"body": ["a zebra"] * 60})),
        job_for(tmp_path, "four", chain(60, 10)),
    ]
    # If windows hold one file each
    told = run(embedder, jobs, window_rows=60)
    # Then that file alone fails, with the device's error
    assert set(told.errors) == {"three"}
    assert "device failed" in str(told.errors["three"])
    assert set(told.results) == {"one", "two", "four"}


def test_what_was_gathered_is_computed_when_no_job_waits(
    embedder: Embedder, tmp_path: Path
) -> None:
    # Given a source of jobs that gives a second job only after the first is finished
    told = Collected()
    first, second = (job_for(tmp_path, name, chain(4, 11)) for name in ("first", "second"))

    def jobs() -> Iterator[FileJob | None]:
        yield first
        for _ in range(2_000):
            if "first" in told.results:
                break
            threading.Event().wait(0.005)
            yield None
        yield second

    # If it runs
    FilePipeline(embedder, told).run(jobs())
    # Then the first did not wait for the second
    assert list(told.results) == ["first", "second"]
    assert told.begun == ["first", "second"]


def test_the_next_window_is_read_while_one_is_tokenized(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given windows of two files, whose first waits in the tokenizer until a third file is read,
    # and whose second cannot be tokenized
    told, tokenize = Collected(), embedder.window
    read_on = []

    def slow(texts: pa.ChunkedArray) -> Window:
        read_on.append(wait_until(lambda: len(told.begun) > 2))
        if len(read_on) == 2:
            raise RuntimeError("no such text")
        return tokenize(texts)

    monkeypatch.setattr(embedder, "window", slow)
    jobs = [job_for(tmp_path, f"r{i}", chain(20, i)) for i in range(6)]
    # If they go through the pipeline
    FilePipeline(embedder, told, window_rows=40).run(iter(jobs))
    # Then the reader did not wait for the tokenizer, and only the second window's files failed.
    assert read_on == [True, True, True]
    assert set(told.errors) == {"r2", "r3"}
    assert set(told.results) == {"r0", "r1", "r4", "r5"}


def wait_until(said: Callable[[], bool]) -> bool:
    """Whether it came true within some seconds."""
    for _ in range(1_000):
        if said():
            return True
        threading.Event().wait(0.005)
    return False


def test_a_crash_of_the_callbacks_ends_the_run(embedder: Embedder, tmp_path: Path) -> None:
    # Given callbacks that raise: the one to whom results go is gone
    class Gone(Collected):
        def finished(self, job: FileJob, result: FileResult) -> None:
            raise BrokenPipeError("gone")

    jobs = [job_for(tmp_path, f"g{i}", chain(20, i)) for i in range(30)]
    # If the pipeline runs, then it ends with that error instead of hanging
    with pytest.raises(BrokenPipeError):
        FilePipeline(embedder, Gone(), window_rows=40).run(iter(jobs))


def test_the_first_window_leaves_files_to_other_workers(minilm: ModelSpec, tmp_path: Path) -> None:
    # Given a hundred files and a backend that does not get on, so that no rate is known:
    go_on = threading.Event()

    class Stuck(FakeBackend):
        def forward(self, batch: Batch) -> np.ndarray:
            go_on.wait(30)
            return super().forward(batch)

    texts = [" ".join(WORDS)] * 50
    jobs = []
    for number in range(100):
        source = tmp_path / f"c_{number}.parquet"
        pq.write_table(pa.table({"body": [f"{text} {number}" for text in texts]}), source)
        jobs.append(FileJob(f"{number}", f"a/b/{number}", source, tmp_path / f"e_{number}.parquet"))
    seen = Collected()
    with Embedder(fake_spec(minilm), Stuck()) as embedder:
        pipeline = FilePipeline(embedder, seen)
        thread = threading.Thread(target=pipeline.run, args=(iter(jobs),))
        thread.start()
        before = -1
        while before != len(seen.begun):  # until the reader takes no more
            before = len(seen.begun)
            thread.join(1.0)
        # Then it has taken what keeps it busy, and no more.
        assert 0 < before < 60
        go_on.set()
        thread.join(60)
    assert len(seen.results) == 100
