"""Vectors as columns, as a list, as both, in two widths: every reader reads the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reddit_assets.corpus.chainfile import ChainFile
from reddit_assets.corpus.facts import AdoptedFacts, facts_of, read_facts
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.output import EmbeddingWriter
from reddit_assets.corpus.provenance import read_output
from reddit_assets.corpus.vectors import (
    FLOAT16_BOUND,
    StoredVectors,
    VectorFormat,
    as_float16,
    embedding_names,
    find_vectors,
)
from reddit_assets.engines.embedding.conformance import cosines
from reddit_assets.errors import BadFileError
from reddit_assets.platform.quality import check_embeddings
from reddit_assets.tasks.inputs import open_inputs
from reddit_assets_tests.factories import write_chain

FORMATS = [
    VectorFormat(layout, dtype)
    for layout in ("columns", "list", "both")
    for dtype in ("float32", "float16")
]


def unit_vectors(rows: int, dimension: int, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(rows, dimension)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def write(path: Path, table: pa.Table, vectors: np.ndarray, form: VectorFormat) -> None:
    batch = table.combine_chunks()
    with EmbeddingWriter(
        path, table.schema, vectors.shape[1], rows=len(table), vectors=form
    ) as writer:
        for start in range(0, max(len(table), 1), 600):
            writer.write(batch.slice(start, 600), vectors[start : start + 600])
        writer.finish({})


def read(path: Path) -> tuple[StoredVectors, np.ndarray]:
    with pq.ParquetFile(path) as file:
        stored = find_vectors(file.schema_arrow, file.metadata)
        assert stored is not None
        blocks = [stored.array(batch) for batch in file.iter_batches(500, columns=[*stored.read])]
    return stored, np.concatenate([np.empty((0, stored.dimension), np.float32), *blocks])


@pytest.mark.parametrize("form", FORMATS, ids=str)
@pytest.mark.parametrize("rows", [0, 1, 5, 1_500])
def test_what_is_written_in_any_form_is_read_again(
    form: VectorFormat, rows: int, tmp_path: Path
) -> None:
    # Given rows, with columns of their own that look like vectors, and vectors
    table = pa.table(
        {
            "body": [f"text {number}" for number in range(rows)],
            "embedding": pa.array([[1.0, 2.0]] * rows, pa.list_(pa.float32())),
            "emb_x": pa.array(range(rows), pa.int64()),
        }
    )
    vectors, path = unit_vectors(rows, 384), tmp_path / "one.parquet"
    # If they are written in a form
    write(path, table, vectors, form)
    # Then the file says that form of itself and no other, and has the same rows and vectors
    stored, found = read(path)
    assert [other for other in FORMATS if stored.is_as(other)] == [form]
    # (beside a list, columns are float32 whatever the list is, and columns are read)
    exact = form.dtype == "float32" or form.layout == "both"
    np.testing.assert_array_equal(
        found, vectors if exact else vectors.astype(np.float16).astype(np.float32)
    )
    assert stored.half != exact
    assert pq.read_table(path).drop_columns([*stored.names]).equals(table)
    if "list" in stored.names or form.layout != "columns":
        kept = pq.read_table(path)["emb"].combine_chunks().flatten().to_numpy()
        assert kept.dtype == form.dtype
        np.testing.assert_array_equal(kept.reshape(-1, 384), vectors.astype(form.dtype))
    # and both looks agree on what it is
    assert read_output(path).dimension == 384
    assert read_facts(str(path), "a/b/one") == facts_of(read_output(path), "a/b/one")


@given(
    arrays(
        np.float32,
        (3, 16),
        elements=st.floats(-1, 1, width=32) | st.sampled_from([1e-8, -3e-6, 6e-5, 1.0]),
    )
)
def test_a_unit_vector_keeps_its_direction_in_float16(raw: np.ndarray) -> None:
    raw[:, 0] += np.where(np.abs(raw).max(axis=1) < 0.5, 1, 0)
    unit = raw / np.linalg.norm(raw.astype(np.float64), axis=1, keepdims=True)
    rounded = as_float16(unit.astype(np.float32))
    assert cosines(rounded, unit.astype(np.float32)).min() >= FLOAT16_BOUND


@pytest.mark.parametrize("bad", [np.nan, np.inf, 70_000.0, 1e-9])
def test_what_float16_cannot_hold_is_refused(bad: float) -> None:
    vectors = unit_vectors(4, 8)
    vectors[2] = bad
    with pytest.raises(BadFileError, match="1 of 4 vectors cannot be kept in float16"):
        as_float16(vectors)


@pytest.mark.parametrize("name", ["emb", "embedding"])
@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float64()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float16()),
        pa.list_(pa.float64(), 8),
    ],
    ids=str,
)
def test_lists_of_other_programs_are_adopted(name: str, kind: pa.DataType, tmp_path: Path) -> None:
    # Given a chain file, and its embedding file as another program writes it
    layout = Layout.of(tmp_path)
    key = "co/Cooking/one"
    chain = pq.read_table(write_chain(layout, key, ["a", "b", "c"]))
    vectors = unit_vectors(3, 8)
    column = pa.array(list(vectors.astype(kind.value_type.to_pandas_dtype())), kind)
    path = layout.embedding_path(key)
    path.parent.mkdir(parents=True)
    pq.write_table(chain.append_column(name, column), path)
    # Then its vectors are found by a quick and by a deep look, by the check and by the clusterer
    facts = read_facts(str(path), key)
    assert facts == facts_of(read_output(path), key)
    assert isinstance(facts, AdoptedFacts)
    assert facts.dimension == 8
    assert not check_embeddings(layout, [key]).problems
    inputs = open_inputs([read_output(path)], [key])
    np.testing.assert_allclose(inputs.vectors(), vectors, atol=1e-3)
    assert inputs.schema.names == chain.schema.names


def test_a_vector_that_is_null_or_too_short_is_not_a_number(tmp_path: Path) -> None:
    path = tmp_path / "one.parquet"
    rows = [[1.0, 0.0], None, [1.0], [0.0, 1.0], [], [0.0, None]]
    pq.write_table(pa.table({"embedding": pa.array(rows, pa.list_(pa.float32()))}), path)
    stored, found = read(path)
    assert stored.dimension == 2
    np.testing.assert_array_equal(
        np.isnan(found).any(axis=1), [False, True, True, False, True, True]
    )


@pytest.mark.parametrize("name", ["emb", *embedding_names(1)])
def test_a_chain_file_with_vectors_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "one.parquet"
    pq.write_table(pa.table({"body": ["a"], name: ["b"]}), path)
    with pytest.raises(BadFileError, match="already has a column"):
        ChainFile(path)
