"""A subreddit's embedding files read together: one schema, one array of vectors, refusals named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from reddit_assets.corpus.oserrors import open_file
from reddit_assets.corpus.provenance import EmbeddingProvenance, OutputFile
from reddit_assets.corpus.rowsizes import DECODED_BYTES, bounded_rows
from reddit_assets.corpus.vectors import StoredVectors, find_vectors
from reddit_assets.engines.vectors import bad_rows
from reddit_assets.errors import BadFileError, ClusteringError, first_line
from reddit_assets.tasks.columns import common_type, fit, plain_type

__all__ = ["ADDED_COLUMNS", "Inputs", "open_inputs", "read_vectors"]

#: What a clustering appends, in this order.
ADDED_COLUMNS = (
    "cluster_id",
    "cluster_probability",
    "outlier_score",
    "x",
    "y",
    "topic_id",
    "theme_id",
    "cluster_change",
    "nearest_cluster",
    "nearest_similarity",
)
#: Rows read at a time.
BATCH_ROWS = 16_384
#: Bytes of a text that a summary looks at; a post has 40,000 characters at the most.
LONGEST_TEXT = 50_000


@dataclass(frozen=True)
class Inputs:
    """The embedding files of a subreddit, in key order, known to fit together.

    Attributes:
        keys: partition keys, ascending.
        paths: their files.
        rows: rows of each file.
        schema: the input columns, without vectors; types that fit all files.
        dimension: numbers per vector.
        half: whether a file's vectors were rounded to float16.
        adopted: how many files the earlier system made.
        sources: names in the files of columns that are renamed here.
        remarks: what was done to a column to unite the files, a sentence by its name.
    """

    keys: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()
    rows: tuple[int, ...] = ()
    schema: pa.Schema = field(default_factory=lambda: pa.schema([]))
    dimension: int = 0
    half: bool = False
    adopted: int = 0
    sources: Mapping[str, str] = field(default_factory=dict)
    remarks: Mapping[str, str] = field(default_factory=dict)

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
        result = np.empty((self.total, self.dimension), dtype=np.float32)
        at = 0
        for path in self.paths:
            start = at
            for block in read_vectors(path):
                if block.shape[1] != self.dimension:
                    raise _other_dimension(path, block.shape[1], self.paths[0], self.dimension)
                result[at : at + len(block)] = block
                at += len(block)
            infinite, wrong = bad_rows(result[start:at])
            if infinite or wrong:
                raise ClusteringError(
                    f"{path}: {infinite} of {at - start} vectors hold NaN, nulls or infinity, "
                    f"{wrong} are not of unit length.",
                    hint="Delete the file; the next scan embeds it again.",
                )
        return result

    def read(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some input columns of all rows, in file order, with the common types.

        A column that a file lacks is null there.
        """
        return self._read(pa.schema([self.schema.field(name) for name in names]))

    def take(
        self, names: Sequence[str], rows: NDArray[np.int64], characters: int | None = None
    ) -> pa.Table:
        """Some input columns of some rows; files are streamed, and very long texts cut.

        Args:
            rows: row numbers, ascending.
            characters: to which texts are cut.
        """
        wanted = pa.schema([self.schema.field(name) for name in names])
        parts = []
        at = taken = 0
        for batch in self._read(wanted):
            stop = int(np.searchsorted(rows, at + batch.num_rows))
            if stop > taken:
                part = batch.take(pa.array(rows[taken:stop] - at))
                parts.append(_shortened(part if characters is None else _cut(part, characters)))
            at, taken = at + batch.num_rows, stop
        return pa.Table.from_batches(parts, schema=wanted)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows: input columns with the common types."""
        return self._read(self.schema)

    def _read(self, wanted: pa.Schema) -> Iterator[pa.RecordBatch]:
        sources = [self.sources.get(name, name) for name in wanted.names]
        for path, rows in zip(self.paths, self.rows, strict=True):
            there = set(pq.read_schema(path).names) & set(sources)
            if not there:
                for start in range(0, rows, BATCH_ROWS):
                    yield _fitted({}, min(BATCH_ROWS, rows - start), sources, wanted, path)
                continue
            for batch in _batches(path, sorted(there)):
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                yield _fitted(columns, batch.num_rows, sources, wanted, path)


def _fitted(
    columns: Mapping[str, pa.Array],
    rows: int,
    sources: Sequence[str],
    wanted: pa.Schema,
    path: Path,
) -> pa.RecordBatch:
    """A batch with the wanted columns and types; what is missing is null."""
    try:
        arrays = [
            fit(columns[source], field.type) if source in columns else pa.nulls(rows, field.type)
            for source, field in zip(sources, wanted, strict=True)
        ]
    except pa.ArrowException as error:
        raise ClusteringError(
            f"{path} has a value that does not fit the other files: {first_line(error)}.",
            hint="Give the chain files of one subreddit the same column types.",
        ) from None
    return pa.RecordBatch.from_arrays(arrays, schema=wanted)


def _shortened(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with texts and bytes of a bounded length: many rows are held at a time."""
    columns = []
    for column in batch.columns:
        if column.type in (pa.large_string(), pa.large_binary()) and column.nbytes > LONGEST_TEXT:
            raw = pc.binary_slice(column.cast(pa.large_binary()), 0, LONGEST_TEXT)
            column = raw.cast(column.type, safe=False)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _cut(batch: pa.RecordBatch, characters: int) -> pa.RecordBatch:
    """The batch with texts of so many characters, or a few more where they are bytes."""
    columns = []
    for column in batch.columns:
        if column.type == pa.large_string():
            try:
                column = pc.utf8_slice_codeunits(column, 0, characters)
            except pa.ArrowInvalid:  # not UTF-8
                raw = pc.binary_slice(column.cast(pa.large_binary()), 0, 4 * characters)
                column = raw.cast(column.type, safe=False)
        elif column.type == pa.large_binary():
            column = pc.binary_slice(column, 0, 4 * characters)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _batches(path: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with _opened(path) as (file, descriptor):
        rows = bounded_rows(descriptor, file.metadata, BATCH_ROWS)
        for batch in file.iter_batches(batch_size=rows, columns=list(names)):
            yield batch.select(list(names))


def read_vectors(path: Path) -> Iterator[NDArray[np.float32]]:
    """A file's vectors as they are kept now: blocks of float32 (n, dimension).

    Raises:
        BadFileError: it has none, or cannot be read to its end.
    """
    with _opened(path) as (file, _):
        stored = find_vectors(file.schema_arrow, file.metadata)
        if stored is None:
            raise _no_vectors(path)
        # The sizes of texts, which bound other batches, do not matter here.
        rows = max(1, min(BATCH_ROWS, DECODED_BYTES // (8 * max(stored.dimension, 1))))
        for batch in file.iter_batches(batch_size=rows, columns=list(stored.read)):
            yield stored.array(batch)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[pq.ParquetFile, int]]:
    """A file and its descriptor."""
    try:
        with open_file(path) as opened, pq.ParquetFile(opened) as file:
            yield file, opened.fileno()
    except (pa.ArrowException, OSError) as error:
        raise BadFileError(
            f"{path} cannot be read to its end: {first_line(error)}.",
            hint="Delete the file; the next scan embeds it again.",
        ) from None


def open_inputs(files: Sequence[OutputFile], keys: Sequence[str]) -> Inputs:
    """Check that embedding files fit together, and unite their columns.

    A column that a file lacks is null there; an all-null column takes the type that it has
    elsewhere, text in any encoding counts as text, numbers widen, and what has no other common
    type becomes text. An input column named like one that clustering appends gets another name.
    Vectors must have one dimension and come from one model, as far as the files say.

    Args:
        files: as ``corpus.provenance.cluster_inputs`` returns them for ``keys``.
        keys: their partition keys, in the same order.

    Raises:
        ClusteringError: dimension or model differ; the file is named.
        BadFileError: a file is damaged; it is named.
    """
    if not files:
        return Inputs()
    order = sorted(range(len(keys)), key=lambda at: keys[at])
    files, keys = [files[at] for at in order], [keys[at] for at in order]
    schemas = [_schema(file.path) for file in files]
    stored = [_stored(file, schema) for file, schema in zip(files, schemas, strict=True)]
    for file in files:
        if file.dimension != files[0].dimension:
            raise _other_dimension(file.path, file.dimension, files[0].path, files[0].dimension)
    _one_model(files)
    inputs_alone = [
        pa.schema([field for field in schema if field.name not in vectors.names])
        for schema, vectors in zip(schemas, stored, strict=True)
    ]
    schema, remarks = _united(files, inputs_alone)
    inputs = Inputs(
        keys=tuple(keys),
        paths=tuple(file.path for file in files),
        rows=tuple(file.rows for file in files),
        schema=schema,
        dimension=files[0].dimension,
        half=any(vectors.half for vectors in stored),
        adopted=sum(file.adopted for file in files),
        remarks=remarks,
    )
    return _renamed(inputs)


def _schema(path: Path) -> pa.Schema:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise BadFileError(
            f"{path} is not a whole parquet file: {first_line(error)}.",
            hint="Delete the file; the next scan embeds it again.",
        ) from None
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise ClusteringError(
            f"{path} has the column {twice[0]!r} twice.",
            hint="Rename one in the chain file, and embed it again.",
        )
    return schema


def _stored(file: OutputFile, schema: pa.Schema) -> StoredVectors:
    vectors = find_vectors(schema)
    if vectors is None or (not file.dimension and file.rows):
        raise _no_vectors(file.path)
    return vectors


def _no_vectors(path: Path) -> BadFileError:
    return BadFileError(
        f"{path} has no vectors: neither emb_… columns nor a list `emb`.",
        hint="Delete the file; the next scan embeds it again.",
    )


def _other_dimension(path: Path, found: int, first: Path, wanted: int) -> ClusteringError:
    return ClusteringError(
        f"{path} has vectors of {found} dimensions, {first} of {wanted}.",
        hint="They were made by different models: embed the subreddit with one.",
    )


def _one_model(files: Sequence[OutputFile]) -> None:
    """Refuse files that say that different models made them."""
    known: tuple[str, str, Path] | None = None
    for file in files:
        if not isinstance(file.provenance, EmbeddingProvenance):
            continue
        model = file.provenance.model
        if known is not None and model.fingerprint != known[0]:
            raise ClusteringError(
                f"{file.path} was embedded with {model.name} ({model.fingerprint[:8]}), "
                f"{known[2]} with {known[1]} ({known[0][:8]}).",
                hint="Run `reddit-assets scan` to embed the files of the unwanted model again.",
            )
        known = known or (model.fingerprint, model.name, file.path)


def _united(
    files: Sequence[OutputFile], schemas: Sequence[pa.Schema]
) -> tuple[pa.Schema, dict[str, str]]:
    """The input columns of all files with types that fit, and what was done to which."""
    every = dict.fromkeys(name for schema in schemas for name in schema.names)
    fields, remarks = [], {}
    for name in every:
        kinds = {
            file.path: plain_type(schema.field(name).type)
            for file, schema in zip(files, schemas, strict=True)
            if name in schema.names
        }
        kind, remark = _one_type(name, kinds)
        if len(kinds) < len(files):
            remark.append(f"null in {len(files) - len(kinds)} of {len(files)} files, which lack it")
        if remark:
            remarks[name] = "; ".join(remark)
        fields.append(pa.field(name, kind))
    return pa.schema(fields), remarks


def _one_type(name: str, kinds: Mapping[Path, pa.DataType]) -> tuple[pa.DataType, list[str]]:
    """The type of a column in all files, and what was done to have one."""
    different = list(dict.fromkeys(kind for kind in kinds.values() if not pa.types.is_null(kind)))
    if len(different) < 2:
        return (different or [pa.null()])[0], []
    common: pa.DataType | None = different[0]
    for kind in different[1:]:
        common = common_type(common, kind) if common is not None else None
    if common is None or not _fits([path for path in kinds if kinds[path] != common], name, common):
        common = pa.large_string()
    return common, [f"{', '.join(map(str, different))} became {common}"]


def _fits(paths: Sequence[Path], name: str, kind: pa.DataType) -> bool:
    """Whether all values of a column that differs between files can be had in its common type."""
    try:
        for path in paths:
            for batch in _batches(path, [name]):
                fit(batch.column(0), kind)
    except pa.ArrowException:
        return False
    return True


def _renamed(inputs: Inputs) -> Inputs:
    """The same with other names for input columns named like those that clustering appends."""
    sources, remarks = {}, dict(inputs.remarks)
    taken = {*inputs.schema.names, *ADDED_COLUMNS}
    names = []
    for name in inputs.schema.names:
        given = name
        while given in ADDED_COLUMNS or (given != name and given in taken):
            given += "_input"
        if given != name:
            sources[given] = name
            taken.add(given)
            remarks[given] = f"was {name!r}, which is a name that clustering appends"
        names.append(given)
    fields = [pa.field(name, entry.type) for name, entry in zip(names, inputs.schema, strict=True)]
    return replace(inputs, schema=pa.schema(fields), sources=sources, remarks=remarks)
