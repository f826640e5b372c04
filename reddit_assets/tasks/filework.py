"""One chain file on its way through the pipeline: opened, read in pieces, written, finished."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reddit_assets.corpus.chainfile import ChainFile
from reddit_assets.corpus.fingerprints import embedding_version
from reddit_assets.corpus.output import EmbeddingWriter, temporary_path
from reddit_assets.corpus.provenance import EmbeddingProvenance, ModelIdentity
from reddit_assets.corpus.texts import empty_rows, text_rule, texts_of
from reddit_assets.corpus.vectors import VectorFormat

__all__ = ["FileCallbacks", "FileInWork", "FileJob", "FileResult", "Piece"]

PIECE_ROWS = 2_048
PIECE_BYTES = 32_000_000
"""A piece is at most so many rows, and about so many bytes of all columns decoded."""
EXPANSION = 6
"""Bytes in memory per byte in the file, a generous guess for zstd-compressed text."""
ROW_GROUP_ROWS = 16_384
"""Rows per row group of an output: 384 column headers per group want many rows to share them."""
ROW_GROUP_BYTES = 256_000_000
"""Bytes in memory at which a row group is written, however few its rows."""


@dataclass(frozen=True)
class FileJob:
    """A chain file to be embedded.

    Attributes:
        token: names the temporary file, and the job in the callbacks.
        key: the file's partition key, for the provenance.
        source: the chain file.
        output: the embedding file; ``<output>.<token>.tmp`` is what is written.
        job_id: for the provenance.
    """

    token: str
    key: str
    source: Path
    output: Path
    job_id: str = ""


@dataclass(frozen=True)
class FileResult:
    """A finished file, synced to disk under its temporary name.

    Attributes:
        temporary: where it lies.
        rows: of the file.
        tokens: of all rows, as the model sees them.
        seconds: computing time; of shared batches, in proportion to its tokens.
        size: bytes of the output.
        data_version: of the output.
        source_version: content fingerprint of the chain file.
        provenance: as it is in the file.
    """

    temporary: Path
    rows: int
    tokens: int
    seconds: float
    size: int
    data_version: str
    source_version: str
    provenance: EmbeddingProvenance


class FileCallbacks(Protocol):
    """What the pipeline says of each file; called from its threads, so make them thread-safe."""

    def started(self, job: FileJob) -> None:
        """It is being read."""
        ...

    def progress(self, job: FileJob, rows: int) -> None:
        """So many more of its rows are embedded."""
        ...

    def finished(self, job: FileJob, result: FileResult) -> None:
        """It lies complete under its temporary name."""
        ...

    def failed(self, job: FileJob, error: Exception) -> None:
        """It cannot be made; its temporary file is gone."""
        ...


@dataclass
class Piece:
    """Consecutive rows of a file.

    Attributes:
        file: where they belong.
        batch: all input columns.
        texts: large_string array of the text columns, no nulls.
        size: bytes of the batch in memory.
    """

    file: FileInWork
    batch: pa.RecordBatch
    texts: pa.Array
    size: int
    written: Callable[[], None] = field(default=lambda: None)


class FileInWork:
    """State of one file. The reader thread reads; write threads take turns through ``drain``.

    Args:
        job: what is wanted.
        model: for the provenance.
        writer_facts: backend, device, precision, versions: for the provenance.
        conformant: whether the vectors are exact, for the provenance.
        callbacks: called when it ends.
        text_columns: what the texts are of, as :mod:`~reddit_assets.corpus.texts` writes it.
        vectors: how they are kept.

    Raises:
        BadFileError: it cannot be used.
    """

    def __init__(
        self,
        job: FileJob,
        model: ModelIdentity,
        writer_facts: dict[str, Any],
        conformant: bool,
        callbacks: FileCallbacks,
        text_columns: str = "",
        vectors: VectorFormat | None = None,
    ) -> None:
        self.job = job
        self._format = vectors
        self._model = model
        self._facts = writer_facts
        self._conformant = conformant
        self._callbacks = callbacks
        self._text_columns = text_rule(text_columns)
        self._chain = ChainFile(job.source, self._text_columns)
        self._temporary = temporary_path(job.output, job.token)
        self._writer: EmbeddingWriter | None = None
        self._lock = threading.Lock()
        self._ready: deque[tuple[Piece, np.ndarray]] = deque()
        self._draining = False
        self._all_read = False
        self._outstanding = 0
        self._ended = False
        self._error: Exception | None = None
        self._held: list[tuple[pa.RecordBatch, np.ndarray]] = []
        self._held_rows = self._held_bytes = 0
        self._empty = 0
        self.tokens = 0
        self.seconds = 0.0

    # --- the reader's side -----------------------------------------------------------------
    def pieces(self) -> Iterator[Piece]:
        """The file's rows in order, in pieces of bounded size.

        Raises:
            BadFileError: a page cannot be decoded.
        """
        row_bytes = EXPANSION * self._chain.source.size / max(self._chain.rows, 1)
        rows = int(np.clip(PIECE_BYTES / max(row_bytes, 1.0), 1, PIECE_ROWS))
        for batch in self._chain.batches(rows):
            if self._error is not None:
                return
            texts = texts_of(batch, self._chain.text_column)
            self._empty += pc.sum(empty_rows(texts)).as_py() or 0
            piece = Piece(self, batch, texts, _bytes(batch))
            with self._lock:
                self._outstanding += 1
            yield piece

    def read_to_end(self) -> None:
        """No more pieces will come, for whatever reason. Only then can the file end."""
        with self._lock:
            self._all_read = True

    def fail(self, error: Exception) -> None:
        """The file cannot be made; pieces under way are dropped when they arrive."""
        with self._lock:
            if self._error is None:
                self._error = error

    # --- the writer's side -----------------------------------------------------------------
    def put(self, piece: Piece, vectors: np.ndarray) -> None:
        """Add a computed piece, in file order; :meth:`drain` writes it."""
        with self._lock:
            self._ready.append((piece, vectors))

    def drain(self) -> None:
        """Write what is ready, and finish the file after its last piece. One thread at a time."""
        with self._lock:
            if self._draining or self._ended:
                return
            self._draining = True
        while True:
            with self._lock:
                item = self._ready.popleft() if self._ready else None
                last = item is None and self._all_read and not self._outstanding
                if item is None and not last:
                    self._draining = False
                    return
                if last:
                    self._ended = True
            if item is None:
                self._end()
                return
            self._write(*item)

    def _write(self, piece: Piece, vectors: np.ndarray) -> None:
        try:
            if self._error is None:
                self._held.append((piece.batch, vectors))
                self._held_rows += piece.batch.num_rows
                self._held_bytes += piece.size
                if self._held_rows >= ROW_GROUP_ROWS or self._held_bytes >= ROW_GROUP_BYTES:
                    self._flush()
                self._callbacks.progress(self.job, piece.batch.num_rows)
        except Exception as error:
            self.fail(error)
        finally:
            with self._lock:
                self._outstanding -= 1
            piece.written()

    def _flush(self) -> None:
        batches = [batch for batch, _ in self._held]
        vectors = [part for _, part in self._held]
        self._held, self._held_rows, self._held_bytes = [], 0, 0
        if self._writer is None:
            self._writer = EmbeddingWriter(
                self._temporary,
                self._chain.schema,
                self._model.dimension,
                rows=self._chain.rows,
                vectors=self._format,
            )
        if len(batches) == 1:
            self._writer.write(batches[0], vectors[0])
        elif batches:
            self._writer.write(pa.concat_batches(batches), np.concatenate(vectors))

    def _end(self) -> None:
        """Write the provenance, sync and report; or delete the file and report the failure."""
        try:
            if self._error is not None:
                raise self._error
            self._flush()
            assert self._writer is not None
            self._chain.verify_unchanged()
            source = self._chain.source
            version = embedding_version(
                source.fingerprint, self._model.fingerprint, self._text_columns
            )
            empty = self._empty / source.rows if source.rows else 0.0
            made = EmbeddingProvenance(
                key=self.job.key,
                data_version=version,
                source=source,
                model=self._model,
                conformant=self._conformant,
                writer={"host": socket.gethostname(), **self._facts},
                tokens=self.tokens,
                seconds=self.seconds,
                text_column=self._chain.text_column,
                text_columns=self._text_columns,
                empty_texts=round(empty, 6),
                job_id=self.job.job_id,
                written_at=time.time(),
            )
            size = self._writer.finish(made)
            result = FileResult(
                temporary=self._temporary,
                rows=source.rows,
                tokens=self.tokens,
                seconds=self.seconds,
                size=size,
                data_version=version,
                source_version=source.fingerprint,
                provenance=made,
            )
        except Exception as error:
            if self._writer is not None:
                self._writer.abort()
            self._close()
            self._callbacks.failed(self.job, error)
            return
        self._close()
        self._callbacks.finished(self.job, result)

    def _close(self) -> None:
        self._held.clear()
        with suppress(OSError):
            self._chain.close()


def _bytes(batch: pa.RecordBatch) -> int:
    """What a batch takes in memory, without dictionaries, which batches share."""
    columns = (
        column.indices if pa.types.is_dictionary(column.type) else column
        for column in batch.columns
    )
    return sum(column.nbytes for column in columns)
