"""Reading a chain file: its fingerprint, its text columns, its rows as a stream."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from reddit_assets.corpus.fingerprints import Stamp, content_fingerprint
from reddit_assets.corpus.oserrors import open_file, reading, unreadable
from reddit_assets.corpus.output import holds_dictionary
from reddit_assets.corpus.provenance import SourceIdentity
from reddit_assets.corpus.rowsizes import DECODED_BYTES, largest_pages
from reddit_assets.corpus.texts import is_text, parse_columns, written
from reddit_assets.corpus.vectors import VECTOR_LIST, is_embedding_column
from reddit_assets.errors import BadFileError, SourceChangedError, first_line

__all__ = ["ChainFile"]

MOST_COLUMNS = 2_000
"""Most columns of a chain file: each costs time and memory in every batch."""
LARGEST_VALUE = 128_000_000
"""Most bytes of a value, as far as the metadata say: several must fit into memory."""
# Bytes read ahead of the decoder per column: bounds memory for files with one huge row group.
_BUFFER = 1 << 20


class ChainFile:
    """An open chain file. Use as a context manager.

    The fingerprint is taken of the content of the open file; :meth:`verify_unchanged` takes it
    again from the path, so that no vectors are published for content that is no longer there.

    Args:
        path: the file.
        text_columns: what the texts are of, as :mod:`~reddit_assets.corpus.texts` writes it.

    Raises:
        BadFileError: no such file, not parquet, truncated, no text column, a text column of
            another type, ``emb_…`` columns already there, too many columns, values too large, or
            a type that cannot be read.
        UnreadableFileError: not a file, no permission, or the storage fails (``host_fault``).

    Attributes:
        source: the content's identity.
        schema: the Arrow schema of all columns.
        text_column: what of ``text_columns`` the file has.
    """

    def __init__(self, path: Path, text_columns: str = "") -> None:
        self.path = path
        self._wanted = text_columns
        try:
            with reading(path):
                self._file = open_file(path)
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
            self._check_size()
            self.schema: pa.Schema = self._parquet.schema_arrow
        except pa.ArrowNotImplementedError as error:
            raise BadFileError(
                f"{self.path} has a column of a type that cannot be read: {first_line(error)}.",
                hint="Write the file again with that column as text or as 64-bit numbers.",
            ) from error
        except (pa.ArrowException, OSError) as error:
            raise self._failed("is not a whole parquet file", error) from error
        self.source = SourceIdentity(
            fingerprint=fingerprint,
            size=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            rows=self._parquet.metadata.num_rows,
        )
        seen: set[str] = set()
        for name in self.schema.names:
            if is_embedding_column(name) or name == VECTOR_LIST:
                raise self._bad(f"already has a column {name}: it looks like an embedding file")
            if name in seen:
                raise self._bad(f"has the column {name!r} twice")
            seen.add(name)
        self.text_column = self._find_text_columns(seen)

    def _check_size(self) -> None:
        """Refuse what would take too much time or memory, by the metadata alone."""
        metadata = self._parquet.metadata
        if metadata.num_columns > MOST_COLUMNS:
            raise BadFileError(
                f"{self.path} has {metadata.num_columns:,} columns; at most {MOST_COLUMNS:,} are "
                "taken.",
                hint="Write the file again with the columns that you need.",
            )
        counted = sum(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        if counted != metadata.num_rows:
            raise self._bad(
                f"says that it has {metadata.num_rows:,} rows, but its parts have {counted:,}"
            )
        row, page, dictionary = largest_pages(self._file.fileno(), metadata)
        largest = max(row, dictionary)
        if largest > LARGEST_VALUE or page > 8 * LARGEST_VALUE:
            raise BadFileError(
                f"{self.path} has values of up to {max(largest, page):,} bytes once it is "
                f"decompressed; at most {LARGEST_VALUE:,} are taken.",
                hint="Shorten them, or leave the column out.",
            )
        # A few bytes may stand for this value in every row: fewer rows then make a batch.
        self._most_rows = max(1, DECODED_BYTES // max(largest, 1))

    def _find_text_columns(self, there: set[str]) -> str:
        """What of the wanted columns is there and is text; the first one there must be text."""
        wanted = parse_columns(self._wanted)
        found: list[list[str]] = []
        for choice in wanted:
            names = [name for name in choice if name in there]
            for name in list(names):
                kind = self.schema.field(name).type
                if is_text(kind):
                    continue
                if not found:
                    raise BadFileError(
                        f"{self.path} has a text column {name!r} of type {kind} instead of text.",
                        hint="Write it as text, or name other columns in REDDIT_TEXT_COLUMNS.",
                    )
                names.remove(name)
            if names:
                found.append(names)
        if found:
            return written(found)
        raise self._bad(f"has no text column (one of {written(wanted)})")

    def _bad(self, what: str) -> BadFileError:
        return BadFileError(
            f"{self.path} {what}.",
            hint="Repair or replace the file; it is then queued again by itself.",
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

        Where long values may repeat, batches have fewer rows, so that each fits into memory.

        Raises:
            BadFileError: a page cannot be decoded, or the file has more or fewer rows than it says.
            UnreadableFileError: the storage fails.
        """
        seen, batch_rows = 0, min(rows, self._most_rows)
        try:
            for groups in self._row_groups():
                for batch in self._parquet.iter_batches(
                    batch_size=batch_rows, row_groups=groups, use_threads=False
                ):
                    seen += batch.num_rows
                    yield batch
        except (pa.ArrowException, OSError) as error:
            raise self._failed("cannot be read to its end", error) from error
        if seen != self.rows:
            raise self._bad(f"says that it has {self.rows:,} rows, but has {seen:,}")

    def _row_groups(self) -> list[list[int] | None]:
        """All at once; one by one where nested dictionaries may differ, which Arrow cannot join."""
        if any(holds_dictionary(field.type) for field in self.schema):
            return [[group] for group in range(self._parquet.num_row_groups)]
        return [None]

    def verify_unchanged(self) -> None:
        """Read the path's content once more and compare.

        Raises:
            SourceChangedError: it is gone or another one.
            UnreadableFileError: no permission any more, or the storage fails.
        """
        now = "gone"
        try:
            with reading(self.path), open_file(self.path) as file:
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
