"""Conversion: a file whose vectors are kept in one form in, the same file in another form out.

Nothing is computed again, and nobody need know: the provenance is carried over as it is, so the
data version stays, and the modification time is kept. A file of the earlier system, whose version
is its size and time, carries the version that it had.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reddit_assets.corpus.layout import CLUSTERED_NAME
from reddit_assets.corpus.oserrors import open_file, unreadable
from reddit_assets.corpus.output import EmbeddingWriter, holds_dictionary, publish, temporary_path
from reddit_assets.corpus.provenance import ADOPTED_KEY, OutputFile, read_output
from reddit_assets.corpus.rowsizes import bounded_rows
from reddit_assets.corpus.vectors import StoredVectors, VectorFormat, find_vectors
from reddit_assets.errors import BadFileError, first_line
from reddit_assets.tasks.clustered import GROUP_ROWS, grouped
from reddit_assets.tasks.filework import ROW_GROUP_ROWS

__all__ = ["Converted", "convert_file"]

_BATCH_ROWS = 16_384
# Arrow writes it.
_SCHEMA_KEY = b"ARROW:schema"


@dataclass(frozen=True)
class Converted:
    """What became of a file.

    Attributes:
        outcome: ``converted``; ``already`` as wanted; ``busy``: a worker has it, so it was left.
        before, after: its size in bytes; the same if it was left.
        widened: whether float16 numbers are kept in float32 now, which does not bring back what
            they had lost.
    """

    outcome: str
    before: int
    after: int
    widened: bool = False


def convert_file(
    path: Path, wanted: VectorFormat, token: str, busy: Callable[[], bool] = lambda: False
) -> Converted:
    """Give an embedding or clustered file another form of vectors, atomically.

    A crash leaves the old file or the new one. A file that changes meanwhile is left as it is.

    Args:
        token: names the temporary file (16 hex digits).
        busy: asked before, and again just before the rename: whether a worker has the file's job.

    Raises:
        FileNotFoundError: there is no such file.
        BadFileError: it is damaged, has no vectors, or cannot keep them so.
        WriteError: the new one cannot be written.
    """
    if busy():
        size = path.stat().st_size
        return Converted("busy", size, size)
    output = read_output(path)
    before = output.stamp.size
    temporary = temporary_path(path, token)
    try:
        with open_file(path) as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
            status = os.fstat(opened.fileno())
            stored = find_vectors(file.schema_arrow, file.metadata)
            if stored is None:
                raise BadFileError(f"{path} has no vectors.", hint="It is left as it is.")
            if stored.is_as(wanted):
                return Converted("already", before, before)
            rows = bounded_rows(opened.fileno(), file.metadata, _BATCH_ROWS)
            after = _write(temporary, file, output, stored, wanted, rows)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from error
        raise BadFileError(
            f"{path} cannot be read to its end: {first_line(error)}.",
            hint="Delete the file; the next scan makes it again.",
        ) from None
    try:
        os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
        if busy() or not _same(path, status):
            return Converted("busy", before, before)
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return Converted("converted", before, after, stored.half and wanted.dtype == "float32")


def _write(
    temporary: Path,
    file: pq.ParquetFile,
    output: OutputFile,
    stored: StoredVectors,
    wanted: VectorFormat,
    rows: int,
) -> int:
    """The file's content in the wanted form; the size in bytes."""
    schema = file.schema_arrow
    first = min(schema.names.index(name) for name in stored.names)
    others = [field for field in schema if field.name not in stored.names]
    front = [field for field in others if schema.names.index(field.name) < first]
    # Of the file: the schema's own lack what was added when the file was closed.
    entries = {**(file.metadata.metadata or {})}
    entries.pop(_SCHEMA_KEY, None)
    if output.adopted:
        entries[ADOPTED_KEY] = output.data_version.encode()
    most = GROUP_ROWS if output.path.name == CLUSTERED_NAME else ROW_GROUP_ROWS
    with EmbeddingWriter(
        temporary,
        pa.schema(front),
        stored.dimension,
        rows=output.rows,
        vectors=wanted,
        behind=others[len(front) :],
    ) as writer:
        for group in grouped(_batches(file, rows), most):
            batch = pa.Table.from_batches(group).combine_chunks()
            for part in batch.to_batches() or []:
                writer.write(
                    part.select([field.name for field in front]),
                    stored.array(part),
                    [part.column(field.name) for field in others[len(front) :]],
                )
        return writer.finish(entries)


def _batches(file: pq.ParquetFile, rows: int) -> Iterator[pa.RecordBatch]:
    # Arrow cannot join nested dictionaries of several row groups.
    alone = any(holds_dictionary(field.type) for field in file.schema_arrow)
    for groups in [[at] for at in range(file.num_row_groups)] if alone else [None]:
        yield from file.iter_batches(batch_size=rows, row_groups=groups, use_threads=False)


def _same(path: Path, status: os.stat_result) -> bool:
    """Whether the file is the one that was read."""
    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    return (now.st_ino, now.st_size, now.st_mtime_ns) == (
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
    )
