"""A subreddit's embedding files read together: one schema, one array of vectors, refusals named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from reddit_assets.corpus.chainfile import TEXT_COLUMNS
from reddit_assets.corpus.provenance import EmbeddingProvenance, OutputFile, is_embedding_column
from reddit_assets.engines.vectors import bad_rows
from reddit_assets.errors import BadFileError, ClusteringError, first_line

__all__ = ["ADDED_COLUMNS", "Inputs", "open_inputs"]

#: What a clustering appends, in this order.
ADDED_COLUMNS = ("cluster_id", "cluster_probability", "outlier_score", "x", "y", "theme_id")
#: Rows read at a time.
BATCH_ROWS = 16_384


@dataclass(frozen=True)
class Inputs:
    """The embedding files of a subreddit, in key order, known to fit together.

    Attributes:
        keys: partition keys, ascending.
        paths: their files.
        rows: rows of each file.
        schema: the input columns, without ``emb_…``; types that fit all files.
        names: ``emb_…`` columns in order.
        text_column: the first of the text columns that is there, or ``None``.
        adopted: how many files the original made.
    """

    keys: tuple[str, ...]
    paths: tuple[Path, ...]
    rows: tuple[int, ...]
    schema: pa.Schema
    names: tuple[str, ...]
    text_column: str | None
    adopted: int

    @property
    def total(self) -> int:
        """Rows of all files."""
        return sum(self.rows)

    def vectors(self) -> NDArray[np.float32]:
        """All vectors, float32 (rows, dimension), in file order.

        Raises:
            ClusteringError: a file holds NaN, or rows that are not of unit length; it is named.
            BadFileError: a file cannot be read to its end.
        """
        result = np.empty((self.total, len(self.names)), dtype=np.float32)
        at = 0
        for path in self.paths:
            start = at
            for batch in _batches(path, list(self.names)):
                block = np.empty((len(self.names), batch.num_rows), dtype=np.float32)
                for index, column in enumerate(batch.columns):
                    block[index] = column.to_numpy(zero_copy_only=False)
                result[at : at + batch.num_rows] = block.T
                at += batch.num_rows
            infinite, wrong = bad_rows(result[start:at])
            if infinite or wrong:
                raise ClusteringError(
                    f"{path}: {infinite} of {at - start} vectors hold NaN, nulls or infinity, "
                    f"{wrong} are not of unit length.",
                    hint="Delete the file; the next scan embeds it again.",
                )
        return result

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Some input columns of all rows, in file order, with the common types."""
        wanted = pa.schema([self.schema.field(name) for name in names])
        parts = []
        for path in self.paths:
            for batch in _batches(path, list(names)):
                parts.append(_cast(batch, wanted, path))
        return pa.Table.from_batches(parts, schema=wanted)

    def texts(self, name: str, rows: NDArray[np.int64]) -> list[str]:
        """The texts of some rows of a column, nulls as empty strings; files are streamed.

        Args:
            rows: row numbers, ascending.
        """
        wanted = pa.schema([pa.field(name, pa.large_string())])
        found: list[str] = []
        at = taken = 0
        for path in self.paths:
            for batch in _batches(path, [name]):
                stop = int(np.searchsorted(rows, at + batch.num_rows))
                if stop > taken:
                    column = _cast(batch, wanted, path).column(0).take(rows[taken:stop] - at)
                    found += [value or "" for value in column.to_pylist()]
                at, taken = at + batch.num_rows, stop
        return found

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows: input columns with the common types, then ``emb_…`` as float32."""
        vectors = [pa.field(name, pa.float32(), nullable=False) for name in self.names]
        wanted = pa.schema([*self.schema, *vectors])
        for path in self.paths:
            for batch in _batches(path, wanted.names):
                yield _cast(batch, wanted, path)


def _batches(path: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    if not names:
        return
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names):
                yield batch.select(names)
    except (pa.ArrowException, OSError) as error:
        raise BadFileError(
            f"{path} cannot be read to its end: {first_line(error)}.",
            hint="Delete the file; the next scan embeds it again.",
        ) from None


def _cast(batch: pa.RecordBatch, wanted: pa.Schema, path: Path) -> pa.RecordBatch:
    try:
        columns = [
            batch.column(field.name)
            if batch.column(field.name).type == field.type
            else batch.column(field.name).cast(field.type)
            for field in wanted
        ]
    except pa.ArrowException as error:
        raise ClusteringError(
            f"{path} has a value that does not fit the other files: {first_line(error)}.",
            hint="Give the chain files of one subreddit the same column types.",
        ) from None
    return pa.RecordBatch.from_arrays(columns, schema=wanted)


def _plain(kind: pa.DataType) -> pa.DataType:
    """A type as it is written: text in all its forms is one type."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary(kind) or pa.types.is_binary_view(kind):
        return pa.large_binary()
    return kind


def _input_fields(path: Path) -> tuple[list[pa.Field], list[str]]:
    """Input columns and ``emb_…`` columns of a file."""
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise BadFileError(
            f"{path} is not a whole parquet file: {first_line(error)}.",
            hint="Delete the file; the next scan embeds it again.",
        ) from None
    vectors = sorted(name for name in schema.names if is_embedding_column(name))
    inputs = [
        pa.field(field.name, _plain(field.type))
        for field in schema
        if not is_embedding_column(field.name)
    ]
    taken = [field.name for field in inputs if field.name in ADDED_COLUMNS]
    if taken:
        raise ClusteringError(
            f"{path} already has a column {taken[0]!r}, which clustering appends.",
            hint="Rename the column in the chain file.",
        )
    return inputs, vectors


def open_inputs(files: Sequence[OutputFile], keys: Sequence[str]) -> Inputs:
    """Check that embedding files fit together.

    The files must have the same column names; the order may differ. An all-null column takes the
    type that it has elsewhere, text in any encoding counts as text, numbers widen. Vectors must
    have one dimension and come from one model, as far as the files say; float64 vectors of
    adopted files are cast.

    Args:
        files: as ``corpus.provenance.cluster_inputs`` returns them for ``keys``.
        keys: their partition keys, in the same order.

    Raises:
        ClusteringError: columns, dimension or model differ; the file is named.
    """
    if not files:
        return Inputs((), (), (), pa.schema([]), (), None, 0)
    order = sorted(range(len(keys)), key=lambda at: keys[at])
    files, keys = [files[at] for at in order], [keys[at] for at in order]
    fields, names = _input_fields(files[0].path)
    common = pa.schema(fields)
    model: tuple[str, str, Path] | None = None
    for file in files:
        mine, vectors = _input_fields(file.path)
        if vectors != names or not vectors:
            raise ClusteringError(
                f"{file.path} has {len(vectors)} vector columns, {files[0].path} {len(names)}.",
                hint="They were made by different models: embed the subreddit with one.",
            )
        there, here = {field.name for field in common}, {field.name for field in mine}
        if there != here:
            missing, extra = sorted(there - here), sorted(here - there)
            raise ClusteringError(
                f"{file.path} has other columns than {files[0].path}: "
                f"missing {missing or 'none'}, extra {extra or 'none'}.",
                hint="Give the chain files of one subreddit the same columns.",
            )
        try:
            common = pa.unify_schemas([common, pa.schema(mine)], promote_options="permissive")
        except pa.ArrowException as error:
            raise ClusteringError(
                f"{file.path} has a column of another type than {files[0].path}: "
                f"{first_line(error)}.",
                hint="Give the chain files of one subreddit the same column types.",
            ) from None
        if isinstance(file.provenance, EmbeddingProvenance):
            said = (file.provenance.model.fingerprint, file.provenance.model.name, file.path)
            if model is not None and said[0] != model[0]:
                raise ClusteringError(
                    f"{file.path} was embedded with {said[1]} ({said[0][:8]}), "
                    f"{model[2]} with {model[1]} ({model[0][:8]}).",
                    hint="Run `reddit-assets scan` to embed the files of the unwanted model again.",
                )
            model = model or said
    common = pa.schema([common.field(field.name) for field in fields])
    text = next((name for name in TEXT_COLUMNS if name in common.names), None)
    return Inputs(
        keys=tuple(keys),
        paths=tuple(file.path for file in files),
        rows=tuple(file.rows for file in files),
        schema=common,
        names=tuple(names),
        text_column=text,
        adopted=sum(file.adopted for file in files),
    )
