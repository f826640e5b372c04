"""The engine: texts in file order in, vectors in file order out, whatever is batched together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reddit_assets.engines.embedding.backends.base import Backend, Batch
from reddit_assets.engines.embedding.batching import plan_batches
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.engines.embedding.tokenizer import Texts, Tokenizer, TokenTable, as_texts
from reddit_assets.errors import BackendUnavailableError

__all__ = ["Embedder", "Encoded", "Pending", "Window"]


@dataclass(frozen=True)
class Encoded:
    """Vectors and what they cost.

    Attributes:
        vectors: float32, shape (n, dimension).
        tokens: tokens per text as the model sees it, int64, shape (n,).
        computed_rows: texts that were computed; the others have the token ids of one of them.
        computed_tokens: their tokens.
    """

    vectors: np.ndarray
    tokens: np.ndarray
    computed_rows: int
    computed_tokens: int


@dataclass(frozen=True)
class Window:
    """Rows that are tokenized, sorted and computed together.

    Attributes:
        tokens: the different sequences of token ids of the window.
        rows: for each row the number of its own in ``tokens``; int64, shape (n,).
    """

    tokens: TokenTable
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def row_tokens(self) -> np.ndarray:
        """Tokens per row, int64, shape (n,)."""
        return self.tokens.lengths[self.rows]


class Pending:
    """Vectors that are being computed."""

    def __init__(self, vectors: np.ndarray, futures: list[Future[None]]) -> None:
        self._vectors = vectors
        self._futures = futures

    def at_each_batch(self, call: Callable[[], None]) -> None:
        """Have ``call`` called, from any thread, whenever a batch is done."""
        for future in self._futures:
            future.add_done_callback(lambda _: call())

    def result(self) -> np.ndarray:
        """Wait for the vectors: float32, shape (n, dimension).

        Raises:
            Exception: what the backend raised first; the rest is not computed then.
        """
        try:
            for future in self._futures:
                future.result()
        finally:
            for future in self._futures:  # After a failure the rest would only cost time.
                future.cancel()
        return self._vectors


class Embedder:
    """A model on a backend. Not to be shared by threads: it manages its own.

    Attributes:
        spec: the model.
        backend: what computes.
        tokenizer: the model's.
        max_batch_tokens: tokens per batch.
        window_rows: rows tokenized ahead and sorted together.
        conformance: what the self-check at the start measured, or ``None``.
        reason: a sentence on why this backend was chosen.
    """

    def __init__(
        self,
        spec: ModelSpec,
        backend: Backend,
        *,
        max_batch_tokens: int | None = None,
        window_rows: int | None = None,
        conformance: dict[str, Any] | None = None,
    ) -> None:
        """Put a model's tokenizer and a backend together.

        Args:
            spec: the model.
            backend: what computes it.
            max_batch_tokens: tokens per batch; ``None`` takes the backend's best.
            window_rows: rows tokenized ahead and sorted together; ``None`` takes the backend's.
            conformance: what the self-check measured, for :meth:`describe`.
        """
        self.spec = spec
        self.backend = backend
        # A GPU takes more tokens than one thread gives; a processor's workers want the cores.
        self.tokenizer = Tokenizer(spec, parallel=backend.device != "cpu")
        self.max_batch_tokens = max_batch_tokens or backend.max_batch_tokens
        self.window_rows = window_rows or backend.window_rows
        self.conformance = conformance
        self.reason = ""
        self._pool = ThreadPoolExecutor(max(backend.streams, 1), "embed")
        self._ahead = ThreadPoolExecutor(1, "tokenize")

    @property
    def dimension(self) -> int:
        """Columns of a vector."""
        return self.spec.dimension

    def describe(self) -> dict[str, Any]:
        """Model, backend, precision, device and versions: what an output records."""
        return {
            **self.spec.describe(),
            **self.backend.describe(),
            "tokenizer": self.tokenizer.describe(),
            "max_batch_tokens": self.max_batch_tokens,
            "conformance": self.conformance,
        }

    def encode(self, texts: Texts) -> np.ndarray:
        """Vectors of texts, float32, shape (n, dimension), in their order.

        Args:
            texts: Arrow array of any text type, chunked or not, or Python strings. Nulls count
                as empty texts.

        Raises:
            TypeError: the array is not of text.
        """
        return self.encode_counted(texts).vectors

    def encode_counted(
        self, texts: Texts, *, progress: Callable[[int], None] | None = None
    ) -> Encoded:
        """Vectors with token counts; ``progress`` is called with the rows of each done window."""
        array = as_texts(texts)
        vectors = np.empty((len(array), self.dimension), np.float32)
        tokens = np.empty(len(array), np.int64)
        computed_rows = computed_tokens = start = 0
        for window in self._windows_ahead(array):
            stop = start + len(window)
            vectors[start:stop] = self.encode_tokens(window.tokens)[window.rows]
            tokens[start:stop] = window.row_tokens
            computed_rows += len(window.tokens)
            computed_tokens += int(window.tokens.cu_seqlens[-1])
            if progress is not None:
                progress(len(window))
            start = stop
        return Encoded(vectors, tokens, computed_rows, computed_tokens)

    def encode_tokens(self, tokens: TokenTable) -> np.ndarray:
        """Vectors of tokenized texts: float32, shape (n, dimension).

        The texts are batched by length to the token budget and computed in the backend's streams.
        """
        return self.submit(tokens).result()

    def submit(self, tokens: TokenTable) -> Pending:
        """Begin to compute tokenized texts; what was submitted before is computed before.

        Submitting the next texts before these are done leaves no stream without work.
        """
        vectors = np.empty((len(tokens), self.dimension), np.float32)
        batches = plan_batches(tokens.lengths, self.max_batch_tokens, padded=self.backend.padded)
        return Pending(
            vectors, [self._pool.submit(self._compute, tokens, rows, vectors) for rows in batches]
        )

    def window(self, texts: Texts) -> Window:
        """Tokenize texts as one window, each different text once.

        Texts that differ where the tokenizer sees no difference (white space, case, what lies
        behind the last token kept) share a computation as well, since their ids are equal.
        """
        encoded = pc.dictionary_encode(as_texts(texts))
        rows = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        tokens, numbers = self.tokenizer(encoded.dictionary).distinct()
        return Window(tokens, numbers[rows])

    def close(self) -> None:
        """Give back threads and the backend's memory."""
        self._pool.shutdown(cancel_futures=True)
        self._ahead.shutdown(cancel_futures=True)
        self.backend.close()

    def __enter__(self) -> Embedder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _compute(self, tokens: TokenTable, rows: np.ndarray, vectors: np.ndarray) -> None:
        made = self.backend.forward(Batch(tokens.take(rows), self.tokenizer.pad_id))
        if self.spec.truncated:
            made = made[:, : self.dimension]
            if self.spec.normalize:
                made = made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12)
        if made.shape != (len(rows), self.dimension) or not np.isfinite(made).all():
            name = f"{self.backend.name} {self.backend.precision} on {self.backend.device}"
            raise BackendUnavailableError(
                f"{name} made {np.isnan(made).sum():,} NaN in vectors of shape {made.shape} for "
                f"{len(rows)} texts of {self.dimension} dimensions.",
                hint="Use --precision fp32, or another --backend.",
            )
        vectors[rows] = made

    def _windows_ahead(self, array: pa.Array) -> Iterator[Window]:
        """The windows in order, each tokenized while the one before it is computed."""
        starts = range(0, len(array), self.window_rows)
        following: Future[Window] | None = None
        for start in starts:
            current = following or self._ahead.submit(
                self.window, array.slice(start, self.window_rows)
            )
            window = current.result()
            after = start + self.window_rows
            following = (
                self._ahead.submit(self.window, array.slice(after, self.window_rows))
                if after < len(array)
                else None
            )
            yield window
