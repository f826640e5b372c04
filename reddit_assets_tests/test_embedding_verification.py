"""Computing a sample of an embedding file again and comparing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reddit_assets.corpus.vectors import embedding_names
from reddit_assets.engines.embedding.engine import Embedder
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.errors import BadFileError
from reddit_assets.tasks.verification import verify_file
from reddit_assets_tests.embedding_fakes import DIMENSION, FakeBackend, fake_spec

TEXTS = [f"text {number} of a {'long ' * (number % 7)}file" for number in range(50)]


@pytest.fixture(scope="module")
def embedder(minilm: ModelSpec) -> Embedder:
    return Embedder(fake_spec(minilm), FakeBackend())


def write(path: Path, texts: list[str], vectors: np.ndarray, rows_per_group: int = 10) -> Path:
    """An embedding file without provenance, in several row groups."""
    columns = {"body": texts}
    columns |= dict(zip(embedding_names(vectors.shape[1]), vectors.T, strict=True))
    pq.write_table(pa.table(columns), path, row_group_size=rows_per_group)
    return path


def test_a_sample_of_a_good_file_agrees(tmp_path: Path, embedder: Embedder) -> None:
    path = write(tmp_path / "a.parquet", TEXTS, embedder.encode(TEXTS))
    for seed in range(5):
        found = verify_file(path, embedder, 4, seed=seed)
        assert found.rows == 4
        assert found.min_cosine > 0.999999
        assert found.conformant
    assert verify_file(path, embedder, 1_000).rows == 10, "one row group at the most"


def test_a_deviating_vector_is_measured(tmp_path: Path, embedder: Embedder) -> None:
    vectors = embedder.encode(TEXTS)
    vectors[7] = -vectors[7]
    path = write(tmp_path / "a.parquet", TEXTS, vectors, rows_per_group=len(TEXTS))
    found = verify_file(path, embedder, len(TEXTS))
    assert found.min_cosine == pytest.approx(-1.0)
    assert found.mean_cosine == pytest.approx(1 - 2 / len(TEXTS))
    assert not found.conformant


def test_longer_cuts_are_told_from_other_deviations(tmp_path: Path, embedder: Embedder) -> None:
    # Given a file in which a long text was not cut where the model cuts, among many short ones
    texts = [*TEXTS, "word " * 1_000]
    vectors = embedder.encode(texts)
    vectors[-1] = np.roll(vectors[-1], 1)
    path = write(tmp_path / "a.parquet", texts, vectors, rows_per_group=len(texts))
    # If four rows are verified, Then the long one is among them, and said to be the only one
    for seed in range(3):
        found = verify_file(path, embedder, 4, seed=seed)
        assert (found.rows, found.conformant, found.only_long_deviate) == (4, False, True)
    # If a short one deviates as well, Then it is not the cut
    vectors[:50] = -vectors[:50]
    found = verify_file(write(path, texts, vectors, len(texts)), embedder, 4)
    assert (found.conformant, found.only_long_deviate) == (False, False)


def test_a_file_without_rows_has_nothing_to_deviate(tmp_path: Path, embedder: Embedder) -> None:
    path = write(tmp_path / "a.parquet", [], np.empty((0, DIMENSION), np.float32))
    found = verify_file(path, embedder, 4)
    assert (found.rows, found.conformant) == (0, True)


def test_what_cannot_be_compared_is_told(tmp_path: Path, embedder: Embedder) -> None:
    truncated = write(tmp_path / "a.parquet", TEXTS, embedder.encode(TEXTS))
    truncated.write_bytes(truncated.read_bytes()[:500])
    with pytest.raises(BadFileError, match="not a whole parquet file"):
        verify_file(truncated, embedder, 4)
    other = write(tmp_path / "b.parquet", TEXTS, np.ones((len(TEXTS), 5), np.float32))
    with pytest.raises(BadFileError, match="5 dimensions, the model 8"):
        verify_file(other, embedder, 4)
    with pytest.raises(FileNotFoundError):
        verify_file(tmp_path / "none.parquet", embedder, 4)
