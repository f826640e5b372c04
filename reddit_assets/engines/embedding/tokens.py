"""Token ids of many texts as flat arrays, and any text column as one Arrow array."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Texts", "TokenTable", "as_texts"]

Texts: TypeAlias = pa.Array | pa.ChunkedArray | Iterable[str | None]


@dataclass(frozen=True)
class TokenTable:
    """Token ids of many texts, end to end.

    Attributes:
        ids: int32, shape (total tokens,).
        cu_seqlens: int64, shape (n + 1,); text ``i`` is ``ids[cu_seqlens[i]:cu_seqlens[i + 1]]``.
    """

    ids: np.ndarray
    cu_seqlens: np.ndarray

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per text, int64, shape (n,)."""
        return np.diff(self.cu_seqlens)

    def row(self, number: int) -> np.ndarray:
        """Ids of one text, int32, shape (tokens,)."""
        return self.ids[self.cu_seqlens[number] : self.cu_seqlens[number + 1]]

    def take(self, rows: np.ndarray) -> TokenTable:
        """The texts ``rows`` (int, shape (m,)), in that order."""
        lengths = self.lengths[rows]
        cu_seqlens = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=cu_seqlens[1:])
        where = np.repeat(self.cu_seqlens[:-1][rows] - cu_seqlens[:-1], lengths)
        where += np.arange(cu_seqlens[-1])
        return TokenTable(self.ids[where], cu_seqlens)

    def distinct(self) -> tuple[TokenTable, np.ndarray]:
        """Each different sequence of ids once, in the order of first appearance.

        Returns:
            The sequences, and for each text the number of its own (int64, shape (n,)). Sequences
            are compared as a whole: none shares a number with another one.
        """
        if not len(self):
            return self, np.empty(0, np.int64)
        ids = np.ascontiguousarray(self.ids, np.int32)
        offsets = np.ascontiguousarray(self.cu_seqlens * ids.itemsize, np.int64)
        as_bytes = pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), len(self), [None, pa.py_buffer(offsets), pa.py_buffer(ids)]
        )
        numbers = pc.dictionary_encode(as_bytes).indices.to_numpy().astype(np.int64)
        highest = np.maximum.accumulate(numbers)
        first = np.flatnonzero(np.diff(highest, prepend=-1))
        return (self if len(first) == len(self) else self.take(first)), numbers

    @staticmethod
    def of_lists(rows: Sequence[list[int]]) -> TokenTable:
        """From the ids of each text."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        cu_seqlens = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=cu_seqlens[1:])
        ids = np.fromiter(chain.from_iterable(rows), np.int32, int(cu_seqlens[-1]))
        return TokenTable(ids, cu_seqlens)

    @staticmethod
    def concatenate(tables: list[TokenTable]) -> TokenTable:
        """All texts of ``tables``, one table after the other."""
        if len(tables) == 1:
            return tables[0]
        lengths = [table.lengths for table in tables]
        cu_seqlens = np.zeros(sum(map(len, lengths)) + 1, np.int64)
        if lengths:
            np.cumsum(np.concatenate(lengths), out=cu_seqlens[1:])
        ids = [t.ids[t.cu_seqlens[0] : t.cu_seqlens[-1]] for t in tables]
        return TokenTable(np.concatenate(ids) if ids else np.empty(0, np.int32), cu_seqlens)


def as_texts(texts: Texts) -> pa.Array:
    """Any text column as one ``large_string`` array without nulls (a null is an empty text).

    Takes string, large_string, string_view, dictionary-encoded and null-typed arrays, chunked or
    not, and Python strings.

    Raises:
        TypeError: the array is not of text.
    """
    if not isinstance(texts, pa.Array | pa.ChunkedArray):
        texts = pa.array([_without_surrogates(text) for text in texts], pa.large_string())
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks() if texts.num_chunks != 1 else texts.chunk(0)
    if isinstance(texts, pa.ChunkedArray):  # Some pyarrow versions give one chunk back so.
        texts = texts.chunk(0) if texts.num_chunks else pa.array([], pa.large_string())
    kind = texts.type
    if pa.types.is_dictionary(kind):
        texts, kind = texts.dictionary_decode(), kind.value_type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (is_text or pa.types.is_string_view(kind) or pa.types.is_null(kind)):
        raise TypeError(f"not a text column but {kind}")
    if not pa.types.is_large_string(kind):
        # safe=False: the bytes were never checked to be UTF-8, and need not be (see Tokenizer).
        texts = pc.cast(texts, pa.large_string(), safe=False)
    return pc.fill_null(texts, "") if texts.null_count else texts


def _without_surrogates(text: str | None) -> str | None:
    """``text`` with lone surrogates, which UTF-8 cannot hold, as replacement characters."""
    if text is None:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
