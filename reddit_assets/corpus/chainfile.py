"""Reading a chain file: its fingerprint, its text column, its rows as a stream."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reddit_assets.corpus.fingerprints import Stamp, content_fingerprint
from reddit_assets.corpus.oserrors import reading, unreadable
from reddit_assets.corpus.provenance import SourceIdentity, is_embedding_column
from reddit_assets.errors import BadFileError, SourceChangedError, first_line

__all__ = ["TEXT_COLUMNS", "ChainFile", "texts_of"]

TEXT_COLUMNS = ("body", "text", "selftext", "content", "message")

# Bytes read ahead of the decoder per column: bounds memory for files with one huge row group.
_BUFFER = 1 << 20


class ChainFile:
    """An open chain file. Use as a context manager.

    The fingerprint is taken of the content of the open file; :meth:`verify_unchanged` takes it
    again from the path, so that vectors are never published for a content nobody has.

    Args:
        path: the file.

    Raises:
        BadFileError: no such file, unreadable, not parquet, truncated, no text column, a text
            column of another type, or ``emb_…`` columns already there.
        UnreadableFileError: no permission, or the storage fails (``host_fault``).

    Attributes:
        source: the content's identity.
        schema: the Arrow schema of all columns.
        text_column: name of the text column.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with reading(path):
                self._file = open(path, "rb")  # noqa: SIM115 - closed in close()
        except FileNotFoundError:
            raise BadFileError(
                f"There is no chain file {path}.", hint="Bring it back or purge the job."
            ) from None
        try:
            with reading(path):
                self._open()
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> None:
        stat = os.fstat(self._file.fileno())
        fingerprint = content_fingerprint(self._file.fileno())
        try:
            self._parquet = pq.ParquetFile(self._file, buffer_size=_BUFFER, pre_buffer=False)
            self.schema: pa.Schema = self._parquet.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise self._failed("is not a whole parquet file", error) from error
        self.source = SourceIdentity(
            fingerprint=fingerprint,
            size=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            rows=self._parquet.metadata.num_rows,
        )
        for name in self.schema.names:
            if is_embedding_column(name):
                raise self._bad(f"already has a column {name}: it looks like an embedding file")
        duplicates = {name for name in self.schema.names if self.schema.names.count(name) > 1}
        if duplicates:
            raise self._bad(f"has the column {sorted(duplicates)[0]!r} twice")
        self.text_column = self._find_text_column()

    def _find_text_column(self) -> str:
        for name in TEXT_COLUMNS:
            if name in self.schema.names:
                kind = self.schema.field(name).type
                if not _is_text(kind):
                    raise self._bad(f"has a text column {name!r} of type {kind} instead of text")
                return name
        raise self._bad(f"has no text column (one of {', '.join(TEXT_COLUMNS)})")

    def _bad(self, what: str) -> BadFileError:
        return BadFileError(
            f"{self.path} {what}.",
            hint="Mend or replace the file; it is then queued again by itself.",
        )

    def _failed(self, what: str, error: Exception) -> BadFileError:
        """pyarrow's errors of content have no number, those of the operating system have one."""
        if isinstance(error, OSError) and error.errno is not None:
            return unreadable(self.path, error)
        return self._bad(f"{what}: {first_line(error)}")

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.source.rows

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """All columns in file order, at most ``rows`` rows at a time; none for an empty file.

        Raises:
            BadFileError: a page cannot be decoded.
            UnreadableFileError: the storage fails.
        """
        try:
            yield from self._parquet.iter_batches(batch_size=rows, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise self._failed("cannot be read to its end", error) from error

    def verify_unchanged(self) -> None:
        """Read the path's content once more and compare.

        Raises:
            SourceChangedError: it is gone or another one.
            UnreadableFileError: no permission any more, or the storage fails.
        """
        now = "gone"
        try:
            with reading(self.path), open(self.path, "rb") as file:
                if content_fingerprint(file.fileno()) == self.source.fingerprint:
                    return
                now = str(Stamp.of(os.fstat(file.fileno())))
        except FileNotFoundError:
            pass
        raise SourceChangedError(
            f"{self.path} changed while it was read ({self.source.stamp} → {now}).",
            hint="The job is tried again with the new content.",
        )

    def close(self) -> None:
        """Close the file."""
        self._parquet.close()
        self._file.close()

    def __enter__(self) -> ChainFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def texts_of(batch: pa.RecordBatch, column: str) -> pa.LargeStringArray:
    """The texts of a batch as one large-string array without nulls (null means empty).

    Shape ``(rows,)``. Dictionary-encoded, string-view and all-null columns are cast.
    """
    array = batch.column(column)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    array = array.cast(pa.large_string())
    return pc.fill_null(array, "") if array.null_count else array


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_null(kind)
    )
