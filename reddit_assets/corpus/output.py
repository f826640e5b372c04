"""Writing an output: a temporary file beside the target, synced, then renamed by the publisher.

The temporary name carries the job's token, ``<output>.<token>.tmp``: two workers never write the
same file, and a worker that finds the file of a dead token may delete it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reddit_assets.corpus.oserrors import writing
from reddit_assets.corpus.provenance import PROVENANCE_KEY, ClusterProvenance, EmbeddingProvenance
from reddit_assets.corpus.vectors import VectorFormat, leaves_of

__all__ = [
    "EmbeddingWriter",
    "holds_dictionary",
    "is_temporary",
    "publish",
    "remove_temporary",
    "sync_file",
    "temporary_path",
    "writing",
]

# ``<output>.<token>.tmp`` is ours, ``<output>.tmp`` the earlier system's.
_TEMPORARY = re.compile(
    r"(.+\.parquet|clusters\.(table|standing)|map\.(html|png|posts\.js))(\.[0-9a-f]{16})?\.tmp"
    r"|\.(model|buckets)\.json\.[0-9a-f]{16}\.tmp",
    re.DOTALL,
)

_BUFFER = 1 << 20
# Vectors do not repeat: a dictionary would only cost time. Byte-stream split lets zstd see the
# exponents side by side. Statistics of 384 columns would double the footer.
_COMPRESSION_LEVEL = 1
# Below so many rows zstd saves nothing in vectors (200 rows: 454 kB with, 450 kB without) and is
# half of the cost of a small file (5 rows: 9.9 ms with, 5.5 ms without).
_COMPRESSED_ROWS = 1_000
# Below so many, its start costs more per column than it saves, but in texts.
_FEW_ROWS = 100

# Bytes of a name that nearly all file systems take.
_LONGEST_NAME = 255


def temporary_path(output: Path, token: str) -> Path:
    """The temporary file that the holder of ``token`` (16 hex digits) writes for ``output``."""
    name = output.name
    if len(os.fsencode(name)) + len(token) + 5 > _LONGEST_NAME:
        digest = hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()
        name = f"{digest}{output.suffix}"
    return output.with_name(f"{name}.{token}.tmp")


def is_temporary(name: str) -> bool:
    """Whether a file below embeddings/ or clusters/ is a temporary one: ours, or the earlier
    system's. Any other name, and any name below chains/, is left alone.
    """
    return _TEMPORARY.fullmatch(name) is not None


def remove_temporary(output: Path, tokens: Iterable[str]) -> int:
    """Delete the temporary files of dead tokens; the number deleted."""
    removed = 0
    for token in tokens:
        with suppress(FileNotFoundError):
            temporary_path(output, token).unlink()
            removed += 1
    return removed


def publish(temporary: Path, output: Path) -> None:
    """Give a finished, synced temporary file its name, and sync the folder.

    Raises:
        WriteError: the rename is refused.
    """
    with writing(output):
        os.replace(temporary, output)
        folder = os.open(output.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def sync_file(path: Path) -> None:
    """Force a closed file's content to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class EmbeddingWriter:
    """Streams an embedding or clustered file into its temporary file. Use as a context manager.

    All input columns are kept as they are; vectors are appended, and behind them other columns. On
    any error the temporary file is deleted.

    Args:
        path: the temporary file; its folder is made.
        schema: the input columns, with what goes into the file's key-value metadata.
        dimension: numbers per vector.
        rows: number of rows that will come, if known: vectors of a small file stay uncompressed.
        vectors: how they are kept.
        behind: fields of the columns that follow the vectors.

    Raises:
        WriteError: the target cannot be written.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        dimension: int,
        *,
        rows: int | None = None,
        vectors: VectorFormat | None = None,
        behind: Sequence[pa.Field] = (),
    ) -> None:
        self.path = path
        self.rows = 0
        self._format = vectors or VectorFormat()
        few = rows if rows is not None and rows < _COMPRESSED_ROWS else None
        size = "" if few is None else "few" if few < _FEW_ROWS else "some"
        bare = schema.remove_metadata()
        self._inputs, self._behind, whole, options = _plan(
            bare, self._format, dimension, tuple(behind), size
        )
        self._schema = whole.with_metadata(schema.metadata)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._sink = open(path, "wb")  # noqa: SIM115 - closed in finish() and abort()
        # Without it every page of every column would be a call of Python.
        self._buffer = pa.BufferedOutputStream(pa.PythonFile(self._sink, "w"), _BUFFER)
        self._writer = pq.ParquetWriter(self._buffer, self._schema, **options)

    def write(
        self,
        batch: pa.RecordBatch | pa.Table,
        vectors: np.ndarray,
        behind: Sequence[pa.Array] = (),
    ) -> None:
        """Append rows as a row group.

        Args:
            batch: the input columns, ``n`` rows.
            vectors: float32 of shape ``(n, dimension)``.
            behind: the columns that follow.

        Raises:
            BadFileError: the vectors cannot be kept in float16.
            WriteError: the target cannot be written.
        """
        columns = [
            *map(_cast, batch.columns, self._inputs),
            *self._format.arrays(vectors),
            *map(_cast, behind, self._behind),
        ]
        with writing(self.path):
            self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self.rows += batch.num_rows

    def finish(
        self, provenance: EmbeddingProvenance | ClusterProvenance | Mapping[bytes, bytes]
    ) -> int:
        """Write the metadata, sync to disk and close; the file's size in bytes.

        Args:
            provenance: the record, or entries of the key-value metadata as they are.
        """
        if not isinstance(provenance, Mapping):
            provenance = {PROVENANCE_KEY: provenance.model_dump_json().encode()}
        with writing(self.path):
            if provenance:
                self._writer.add_key_value_metadata(dict(provenance))
            self._writer.close()
            self._buffer.flush()
            self._sink.flush()
            os.fsync(self._sink.fileno())
            size = os.fstat(self._sink.fileno()).st_size
            self._sink.close()
        return size

    def abort(self) -> None:
        """Close and delete the temporary file."""
        # The parquet writer's close would try to write a footer to a full disk: drop it.
        with suppress(OSError, pa.ArrowException):
            self._writer.close()
        with suppress(OSError, pa.ArrowException):
            self._buffer.close()
        with suppress(OSError):
            self._sink.close()
        with suppress(FileNotFoundError):
            self.path.unlink()

    def __enter__(self) -> EmbeddingWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._sink.closed:
            self.abort()


@lru_cache(maxsize=32)
def _plan(
    schema: pa.Schema,
    form: VectorFormat,
    dimension: int,
    behind: tuple[pa.Field, ...],
    size: str,
) -> tuple[list[pa.Field], list[pa.Field], pa.Schema, dict[str, Any]]:
    """The fields before and behind the vectors, all of them, and the writer's options.

    Kept: the files of a tree are alike, and this would be half of the cost of a small one.

    Args:
        size: empty, or ``some`` or ``few`` rows.
    """
    vectors = form.fields(dimension)
    inputs, behind_all = [_storable(f) for f in schema], [_storable(f) for f in behind]
    numbers = [field for field in behind_all if pa.types.is_floating(field.type)]
    others = [*inputs, *(field for field in behind_all if field not in numbers)]
    options: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": _COMPRESSION_LEVEL,
        "use_dictionary": [field.name for field in others],
        "write_statistics": [field.name for field in (*inputs, *behind_all)],
    }
    if size:
        # What a dict does not name is plain and uncompressed; naming 384 columns costs time.
        compressed = others if size == "some" else [f for f in others if not _is_short(f.type)]
        leaves = leaves_of(compressed)
        options["compression"] = dict.fromkeys(leaves, "zstd")
        options["compression_level"] = dict.fromkeys(leaves, _COMPRESSION_LEVEL)
    else:
        options["column_encoding"] = dict.fromkeys(
            leaves_of([*vectors, *numbers]), "BYTE_STREAM_SPLIT"
        )
    return inputs, behind_all, pa.schema([*inputs, *vectors, *behind_all]), options


def holds_dictionary(kind: pa.DataType) -> bool:
    """Whether a nested type has dictionary-encoded values inside."""
    children = [kind.field(at).type for at in range(kind.num_fields)]
    return any(pa.types.is_dictionary(child) or holds_dictionary(child) for child in children)


def _is_short(kind: pa.DataType) -> bool:
    return bool(pa.types.is_primitive(kind) or pa.types.is_null(kind))


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    return column if column.type == field.type else column.cast(field.type)


def _storable(field: pa.Field) -> pa.Field:
    """The field as parquet can hold it: string views become strings, and dictionaries inside of
    nested types their values, since Arrow reads such columns of several row groups one by one only.
    """
    return field.with_type(_stored(field.type))


def _stored(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if not holds_dictionary(kind):
        return kind
    if pa.types.is_struct(kind):
        return pa.struct([child.with_type(_inner(child.type)) for child in kind])
    for is_kind, make in (
        (pa.types.is_list, pa.list_),
        (pa.types.is_large_list, pa.large_list),
    ):
        if is_kind(kind):
            return make(kind.value_field.with_type(_inner(kind.value_type)))
    return kind


def _inner(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else _stored(kind)
