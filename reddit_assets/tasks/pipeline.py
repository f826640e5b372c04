"""Many files at once: reading, tokenizing, computing, and writing overlap.

A reader thread opens files and gathers their rows into windows, across files; another thread
tokenizes each window; the backend's streams compute windows one after the other without a pause
between them; write threads append vectors to each file and finish it as soon as its last row is
there. At any time one window is computed, one is tokenized or ready, and one is gathered, so memory
does not grow with the size of a file, and small files share batches.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reddit_assets.corpus.provenance import ModelIdentity
from reddit_assets.corpus.vectors import VectorFormat
from reddit_assets.engines.embedding.engine import Embedder, Pending, Window
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.engines.host import available_cores
from reddit_assets.tasks.filework import FileCallbacks, FileInWork, FileJob, Piece

__all__ = ["FilePipeline", "identity_of"]

WINDOWS_COMPUTING = 2
"""One in computation and one ready, or on its way there through the tokenizer: the streams find
work when they finish a window."""
WINDOWS_UNWRITTEN = 4
"""Windows whose rows are still in memory; bounds memory when the disk is slower."""
WINDOW_BYTES = 64_000_000
"""Most text gathered for a window, in bytes."""
WINDOW_HELD = 256_000_000
"""Most bytes in memory of all columns gathered for a window."""
WINDOW_SECONDS = 5.0
"""Longest computing time of a window: more would hardly reduce padding, but delay results, and
leave other workers without work at the end of a queue."""
LEAST_BATCHES = 6
"""Batches per stream that make a window worth starting while there is more to read."""
BYTES_PER_TOKEN = 4.4
CORES_PER_WRITER = 2
"""A core writes about 100,000 rows a second, and an H100 makes 450,000: half of the cores may
write. Where processors compute, two threads are enough, on any number of cores."""


def identity_of(spec: ModelSpec) -> ModelIdentity:
    """The model as provenance and ``.model.json`` state it."""
    return ModelIdentity(
        name=spec.name,
        fingerprint=spec.fingerprint,
        dimension=spec.dimension,
        max_tokens=spec.max_tokens,
        pooling=spec.pooling,
    )


@dataclass
class _Gathered:
    """Rows on their way into the next window."""

    pieces: list[Piece] = field(default_factory=list)
    rows: int = 0
    size: int = 0
    held: int = 0
    tokens: float = 0.0

    def add(self, piece: Piece, max_tokens: int) -> None:
        sizes = pc.binary_length(piece.texts).to_numpy(zero_copy_only=False)
        self.pieces.append(piece)
        self.rows += len(sizes)
        self.size += int(sizes.sum())
        self.held += piece.size
        self.tokens += float(np.minimum(sizes / BYTES_PER_TOKEN + 2, max_tokens).sum())


@dataclass
class _Submitted:
    pieces: list[Piece]
    window: Window
    pending: Pending
    submitted: float


class FilePipeline:
    """Embeds files. One ``run`` at a time.

    Args:
        embedder: computes; stays open.
        callbacks: called at every file's start, progress and end, from several threads.
        window_rows: rows per window at the most; ``None`` takes the embedder's.
        text_columns: what texts are of, as :mod:`~reddit_assets.corpus.texts` writes it.
        vectors: how files keep them.
    """

    def __init__(
        self,
        embedder: Embedder,
        callbacks: FileCallbacks,
        *,
        window_rows: int | None = None,
        text_columns: str = "",
        vectors: VectorFormat | None = None,
    ) -> None:
        self._embedder = embedder
        self._format = vectors
        self._callbacks = callbacks
        self._text_columns = text_columns
        self._model = identity_of(embedder.spec)
        self._conformant = bool((embedder.conformance or {"conformant": True})["conformant"])
        self._window_rows = window_rows or embedder.window_rows
        self._least_tokens = LEAST_BATCHES * embedder.backend.streams * embedder.max_batch_tokens
        computes_elsewhere = not embedder.backend.device.startswith("cpu")
        self._write_threads = max(2, available_cores() // CORES_PER_WRITER * computes_elsewhere)
        self._state = threading.Condition()
        self._computing = 0
        self._unwritten = 0
        self._rate = 0.0
        self._crash: BaseException | None = None

    def run(self, jobs: Iterator[FileJob | None]) -> None:
        """Embed every file of ``jobs``, until it ends.

        Args:
            jobs: files in the order of starting. ``None`` means that no job waits at the moment:
                what was gathered is then computed rather than kept for company. The iterator may
                block, but should yield ``None`` every few hundredths of a second meanwhile.

        Raises:
            Exception: whatever ``jobs`` or a callback raises. A file's own errors are reported
                to ``callbacks.failed`` instead.
        """
        self._crash = None
        self._submitted: queue.SimpleQueue[_Submitted | None] = queue.SimpleQueue()
        with (
            ThreadPoolExecutor(self._write_threads, "write") as self._writers,
            ThreadPoolExecutor(1, "tokenize") as self._tokenizers,
        ):
            reader = threading.Thread(target=self._guarded, args=(self._read, jobs), name="read")
            reader.start()
            try:
                self._guarded(self._distribute)
            finally:
                reader.join()
        if self._crash is not None:
            raise self._crash

    def _guarded(self, work: Callable[..., None], *arguments: object) -> None:
        """Run a thread's work; let a crash end the other threads too."""
        try:
            work(*arguments)
        except BaseException as error:
            with self._state:
                self._crash = self._crash or error
                self._state.notify_all()
            self._submitted.put(None)

    # --- reading ---------------------------------------------------------------------------
    def _read(self, jobs: Iterator[FileJob | None]) -> None:
        gathered = _Gathered()
        for job in jobs:
            if self._crash is not None:
                return
            if job is None:
                if gathered.pieces and self._hungry():
                    gathered = self._submit(gathered)
                continue
            gathered = self._read_file(job, gathered)
        self._submit(gathered)
        self._tokenizers.submit(self._submitted.put, None)

    def _read_file(self, job: FileJob, gathered: _Gathered) -> _Gathered:
        """Gather a file's rows, submitting full windows on the way; the unfinished window."""
        self._callbacks.started(job)
        try:
            file = FileInWork(
                job,
                self._model,
                self._embedder.describe(),  # What tokenizes may have changed since the start.
                self._conformant,
                self._callbacks,
                self._text_columns,
                self._format,
            )
        except Exception as error:
            self._callbacks.failed(job, error)
            return gathered
        try:
            for piece in file.pieces():
                gathered.add(piece, self._embedder.spec.max_tokens)
                if self._full(gathered) or (
                    gathered.tokens >= self._least_tokens and self._hungry()
                ):
                    gathered = self._submit(gathered)
        except Exception as error:
            file.fail(error)
        file.read_to_end()
        self._drain_later(file)  # For a file without rows, or whose rows are all written already.
        return gathered

    def _full(self, gathered: _Gathered) -> bool:
        return (
            gathered.rows >= self._window_rows
            or gathered.size >= WINDOW_BYTES
            or gathered.held >= WINDOW_HELD
            # Until a first window shows how fast this host is, no more than keeps it busy: other
            # workers want their share.
            or gathered.tokens >= (self._rate * WINDOW_SECONDS or self._least_tokens)
        )

    def _hungry(self) -> bool:
        """Whether the streams have nothing waiting for them."""
        with self._state:
            return self._computing < WINDOWS_COMPUTING

    def _submit(self, gathered: _Gathered) -> _Gathered:
        """Hand the gathered rows on when there is room behind; an empty window."""
        if not gathered.pieces:
            return gathered
        with self._state:
            self._state.wait_for(
                lambda: (
                    self._crash is not None
                    or (self._computing < WINDOWS_COMPUTING and self._unwritten < WINDOWS_UNWRITTEN)
                )
            )
            self._computing += 1
            self._unwritten += 1
        self._tokenizers.submit(self._guarded, self._tokenize, gathered.pieces)
        return _Gathered()

    def _tokenize(self, pieces: list[Piece]) -> None:
        """Tokenize a window's rows and queue them for the streams."""
        try:
            window = self._embedder.window(pa.chunked_array([piece.texts for piece in pieces]))
        except Exception as error:
            self._off_the_streams()
            self._fail(pieces, error)
            return
        pending = self._embedder.submit(window.tokens)
        # A window may take long on a slow host: each batch says that it gets on.
        job = pieces[0].file.job
        pending.at_each_batch(lambda: self._callbacks.progress(job, 0))
        self._submitted.put(_Submitted(pieces, window, pending, time.monotonic()))

    # --- after computing -------------------------------------------------------------------
    def _distribute(self) -> None:
        """Hand each computed window's vectors to its files, in order."""
        before = 0.0
        while (one := self._submitted.get()) is not None:
            error: Exception | None = None
            try:
                vectors = one.pending.result()
            except Exception as problem:
                error = problem
            now = time.monotonic()
            seconds, before = now - max(one.submitted, before), now
            self._rate = max(float(one.window.tokens.cu_seqlens[-1]), 1.0) / max(seconds, 1e-3)
            self._off_the_streams()
            if error is not None:
                self._fail(one.pieces, error)
            else:
                self._hand_out(one, vectors, seconds)

    def _off_the_streams(self) -> None:
        """A window is computed, or never will be: there is room for another one."""
        with self._state:
            self._computing -= 1
            self._state.notify_all()

    def _hand_out(self, one: _Submitted, vectors: np.ndarray, seconds: float) -> None:
        """Give a window's vectors to its files, with their shares of its computing time."""
        tokens = one.window.row_tokens
        written = self._countdown(len(one.pieces))
        start, total = 0, max(int(tokens.sum()), 1)
        for piece in one.pieces:
            stop = start + piece.batch.num_rows
            own = int(tokens[start:stop].sum())
            piece.file.tokens += own
            piece.file.seconds += seconds * own / total
            piece.written = written
            piece.file.put(piece, vectors[one.window.rows[start:stop]])
            self._drain_later(piece.file)
            start = stop

    def _fail(self, pieces: list[Piece], error: Exception) -> None:
        """Fail the files of a window that cannot be tokenized or computed."""
        written = self._countdown(len(pieces))
        for piece in pieces:
            piece.written = written
            piece.file.fail(error)
            piece.file.put(piece, np.empty((0, 0), np.float32))
            self._drain_later(piece.file)

    def _countdown(self, count: int) -> Callable[[], None]:
        """A callback that, called ``count`` times, releases a window's memory."""
        left = [count]

        def written() -> None:
            with self._state:
                left[0] -= 1
                if not left[0]:
                    self._unwritten -= 1
                    self._state.notify_all()

        return written

    def _drain_later(self, file: FileInWork) -> None:
        self._writers.submit(self._guarded, file.drain)
