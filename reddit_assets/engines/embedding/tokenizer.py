"""Texts to token ids: one tokenizer for all backends, Arrow in and flat numpy arrays out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.errors import ModelNotFoundError

__all__ = ["Texts", "TokenTable", "Tokenizer", "as_texts"]

Texts: TypeAlias = pa.Array | pa.ChunkedArray | Iterable[str | None]

BYTES_PER_TOKEN = 6
"""First guess of how much of a long text holds the tokens kept; English has 4.4 bytes each."""
SPARE_TOKENS = 8
"""Tokens that a cut text must have beyond those kept before the cut is believed."""
HARD_LIMIT = 1 << 20
"""Most bytes that are looked at of a text that gives fewer tokens than are kept."""
WORD_END = re.compile(rb"[^\x00-\x20\x7f-\xff][\t\n\r ]")

TOKENIZE_ROWS = 1024
"""Rows handed to the tokenizer's threads at a time: enough to spread, small in memory."""


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

    def take(self, rows: np.ndarray) -> TokenTable:
        """The texts ``rows`` (int, shape (m,)), in that order."""
        lengths = self.lengths[rows]
        cu_seqlens = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=cu_seqlens[1:])
        where = np.repeat(self.cu_seqlens[:-1][rows] - cu_seqlens[:-1], lengths)
        where += np.arange(cu_seqlens[-1])
        return TokenTable(self.ids[where], cu_seqlens)

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


class Tokenizer:
    """The model's tokenizer with its ``max_tokens``, special tokens included.

    Long texts are cut before they are tokenized (10 MB are not tokenized to keep 256 tokens). The
    result is the same: a cut is made only at white space that follows a word, tokenizers split
    there before anything else, and the cut text must give more tokens than are kept; otherwise
    twice as much of the text is looked at. The one exception is a text whose first MiB holds
    fewer tokens than are kept (one endless word, megabytes of blanks): the rest is not looked at.

    Bytes that are not UTF-8 become U+FFFD, as Python's ``errors="replace"`` does it.
    """

    def __init__(self, spec: ModelSpec) -> None:
        """Load it.

        Raises:
            ModelNotFoundError: ``tokenizer.json`` is unreadable.
        """
        self.max_tokens = spec.max_tokens
        self.lowercase = spec.lowercase
        self.prompt = spec.prompt
        self._full = _load(spec.tokenizer_file)
        self._full.no_truncation()
        self._cut = _load(spec.tokenizer_file)
        self._cut.enable_truncation(spec.max_tokens)
        self.pad_id = _pad_id(self._cut)

    def __call__(self, texts: Texts) -> TokenTable:
        """Token ids of every text, in order; see :class:`TokenTable`.

        Raises:
            TypeError: ``texts`` is an array of something else than text.
        """
        array = as_texts(texts)
        lengths: list[int] = []
        pieces: list[np.ndarray] = []
        for start in range(0, len(array), TOKENIZE_ROWS):
            rows = self._prepare(array.slice(start, TOKENIZE_ROWS))
            encoded = [e.ids for e in self._cut.encode_batch_fast(rows, add_special_tokens=True)]
            lengths.extend(map(len, encoded))
            pieces.append(_flatten(encoded))
        cu_seqlens = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(np.asarray(lengths, np.int64), out=cu_seqlens[1:])
        return TokenTable(np.concatenate(pieces) if pieces else np.empty(0, np.int32), cu_seqlens)

    def _prepare(self, array: pa.Array) -> list[str]:
        """The rows as strings, long ones cut, with prompt and lower case applied."""
        limit = BYTES_PER_TOKEN * self.max_tokens
        sizes = pc.binary_length(array).to_numpy(zero_copy_only=False)
        long = np.flatnonzero(sizes > limit)
        if len(long):
            # Only the long rows leave Arrow as bytes, and of those only what may be needed.
            blank = pc.if_else(pa.array(sizes > limit), "", array)
            rows = _decode(blank)
            for index in long:
                rows[index] = self._prefix(array[int(index)].as_buffer())
        else:
            rows = _decode(array)
        if self.prompt:
            rows = [self.prompt + row for row in rows]
        if self.lowercase:
            rows = [row.lower() for row in rows]
        return rows

    def _prefix(self, buffer: pa.Buffer) -> str:
        """As much of a long text as decides its first ``max_tokens`` tokens."""
        size = BYTES_PER_TOKEN * self.max_tokens
        whole = memoryview(buffer)
        while size < min(len(whole), HARD_LIMIT):
            cut = _last_word_end(bytes(whole[:size]))
            if cut:
                text = bytes(whole[:cut]).decode("utf-8", "replace")
                given = text.lower() if self.lowercase else text
                if len(self._full.encode(given).ids) >= self.max_tokens + SPARE_TOKENS:
                    return text
            size *= 2
        return bytes(whole[:HARD_LIMIT]).decode("utf-8", "replace")


def _last_word_end(data: bytes) -> int:
    """Where the last run of white space after a plain ASCII character begins; 0: nowhere.

    ASCII on both sides, so that no accent, joiner or other character that acts on its neighbour
    is parted from it.
    """
    for step in (128, 1024, len(data)):  # The last match is nearly always within the last words.
        base = max(len(data) - step, 0)
        last = None
        for last in WORD_END.finditer(data, base):  # noqa: B007
            pass
        if last is not None:
            return last.start() + 1
    return 0


def _decode(array: pa.Array) -> list[str]:
    try:
        return array.to_pylist()
    except UnicodeDecodeError:
        raw = array.cast(pa.large_binary()).to_pylist()
        return [value.decode("utf-8", "replace") for value in raw]


def _flatten(encoded: list[list[int]]) -> np.ndarray:
    total = sum(map(len, encoded))
    return np.fromiter(chain.from_iterable(encoded), np.int32, total)


def _load(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer as FastTokenizer

        tokenizer = FastTokenizer.from_file(str(path))
    except Exception as error:  # The library raises bare Exception for a malformed file.
        raise ModelNotFoundError(
            f"The tokenizer {path} cannot be loaded: {error}.",
            hint="Put the model's own tokenizer.json there; `pip install tokenizers` if missing.",
        ) from None
    tokenizer.no_padding()
    return tokenizer


def _pad_id(tokenizer: Any) -> int:
    for token in ("[PAD]", "<pad>"):
        found = tokenizer.token_to_id(token)
        if found is not None:
            return int(found)
    return 0
