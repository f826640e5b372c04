"""Texts to token ids: one tokenizer for all backends, Arrow in and flat numpy arrays out."""

from __future__ import annotations

import logging
import re
import threading
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reddit_assets.engines.embedding.digests import file_digest
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.engines.embedding.tokenizer_backends import (
    FastTokenizer,
    ReferenceTokenizer,
    TokenizerBackend,
)
from reddit_assets.engines.embedding.tokenizer_proof import difference, prove
from reddit_assets.engines.embedding.tokens import Texts, TokenTable, as_texts

__all__ = ["Texts", "TokenTable", "Tokenizer", "as_texts"]

log = logging.getLogger(__name__)

BYTES_PER_TOKEN = 6
"""First guess of how much of a long text holds the tokens kept; English has 4.4 bytes each."""
SPARE_TOKENS = 8
"""Tokens that a cut text must have beyond those kept before the cut is believed."""
HARD_LIMIT = 1 << 20
"""Most bytes that are looked at of a text that gives fewer tokens than are kept."""
WORD_END = re.compile(rb"[^\x00-\x20\x7f-\xff][\t\n\r ]")

TOKENIZE_ROWS = 65_536
"""Rows that are Python strings at a time."""
FIRST_SAMPLE, LATER_SAMPLE = 512, 16
"""Rows, drawn at random, whose ids are compared with the reference's: of the first ones that a
tokenizer is given, and of each later call's."""


class Tokenizer:
    """The model's tokenizer with its ``max_tokens``, special tokens included.

    Long texts are cut before they are tokenized (10 MB are not tokenized to keep 256 tokens). The
    result is the same: a cut is made only at white space that follows a word, tokenizers split
    there before anything else, and the cut text must give more tokens than are kept; otherwise
    twice as much of the text is looked at. The one exception is a text whose first MiB holds
    fewer tokens than are kept (one endless word, megabytes of blanks): the rest is not looked at.

    Bytes that are not UTF-8 become U+FFFD, as Python's ``errors="replace"`` does it.

    A fast library does the work where it is installed, knows the model's kind of tokenizer, and
    gives the ids of the reference for all texts of the proof. Its ids are compared on: of 512 of
    the first rows, and of 16 of each later call's. At the first difference the reference takes
    over, and the call is tokenized again.
    """

    def __init__(self, spec: ModelSpec, *, parallel: bool = False) -> None:
        """Load it, and prove the fast library where there is one.

        Args:
            spec: the model.
            parallel: let the fast library use all cores.

        Raises:
            ModelNotFoundError: ``tokenizer.json`` is unreadable.
        """
        self.max_tokens = spec.max_tokens
        self.lowercase = spec.lowercase
        self.prompt = spec.prompt
        self.reference, fast, self._reason = _load(
            spec.tokenizer_file, _digest(spec.tokenizer_file), spec.max_tokens, parallel
        )
        self.pad_id = self.reference.pad_id
        self._backend: TokenizerBackend = fast or self.reference
        self._unsampled = FIRST_SAMPLE
        self._random = np.random.default_rng()
        self._lock = threading.Lock()

    def describe(self) -> str:
        """Which library splits texts, and what the proof says of it."""
        return f"{self._backend.name} ({self._reason})"

    def __call__(self, texts: Texts) -> TokenTable:
        """Token ids of every text, in order; see :class:`TokenTable`.

        Raises:
            TypeError: ``texts`` is an array of something else than text.
        """
        array = as_texts(texts)
        starts = range(0, len(array), TOKENIZE_ROWS)
        tables = [self._encode(self._prepare(array.slice(s, TOKENIZE_ROWS))) for s in starts]
        return TokenTable.concatenate(tables)

    def _encode(self, rows: list[str]) -> TokenTable:
        if self._backend is not self.reference and (problem := self._sampled(rows)):
            log.warning("%s takes over from now on: %s.", self.reference.name, problem)
            self._reason = problem
            self._backend = self.reference
        return self._backend.encode(rows, self.max_tokens)

    def _sampled(self, rows: list[str]) -> str | None:
        """Compare some of the rows; what differs."""
        with self._lock:
            count = min(len(rows), max(self._unsampled, LATER_SAMPLE))
            self._unsampled -= count
            chosen = self._random.choice(len(rows), count, replace=False)
        sample = [rows[row] for row in chosen]
        return difference(self._backend, self.reference, sample, self.max_tokens)

    def _prepare(self, array: pa.Array) -> list[str]:
        """The rows as strings, long ones cut, with prompt and lower case applied."""
        limit = max(BYTES_PER_TOKEN * self.max_tokens, self._backend.whole_bytes)
        sizes = pc.binary_length(array).to_numpy(zero_copy_only=False)
        long = np.flatnonzero(sizes > limit)
        if len(long):
            # Only the long rows leave Arrow as bytes, and of those only what may be needed.
            rows = _decode(pc.if_else(pa.array(sizes > limit), "", array))
            wholes = {int(row): memoryview(array[int(row)].as_buffer()) for row in long}
            for row, text in self._prefixes(wholes).items():
                rows[row] = text
        else:
            rows = _decode(array)
        if self.prompt:
            rows = [self.prompt + row for row in rows]
        if self.lowercase:
            rows = [row.lower() for row in rows]
        return rows

    def _prefixes(self, wholes: dict[int, memoryview]) -> dict[int, str]:
        """As much of each long text as decides its first ``max_tokens`` tokens."""
        found: dict[int, str] = {}
        size = BYTES_PER_TOKEN * self.max_tokens
        while wholes:
            for row, whole in wholes.items():
                if size >= min(len(whole), HARD_LIMIT):
                    found[row] = bytes(whole[:HARD_LIMIT]).decode("utf-8", "replace")
            cuts = {
                row: bytes(whole[: _last_word_end(bytes(whole[:size]))]).decode("utf-8", "replace")
                for row, whole in wholes.items()
                if row not in found
            }
            tried = [text.lower() if self.lowercase else text for text in cuts.values()]
            tokens = self._backend.encode(tried).lengths if tried else ()
            for (row, text), count in zip(cuts.items(), tokens, strict=True):
                if count >= self.max_tokens + SPARE_TOKENS:
                    found[row] = text
            wholes = {row: whole for row, whole in wholes.items() if row not in found}
            size *= 2
        return found


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


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError:
        return ""  # Loading it says what is wrong.


@lru_cache(maxsize=8)
def _load(
    path: Path, _digest: str, max_tokens: int, parallel: bool
) -> tuple[ReferenceTokenizer, TokenizerBackend | None, str]:
    """The reference, the fast library if it is proved, and why it is or is not used.

    Raises:
        ModelNotFoundError: the reference cannot be loaded.
    """
    reference = ReferenceTokenizer(path)
    try:
        fast = FastTokenizer(path, parallel=parallel)
    except ImportError:
        return reference, None, "nanotoken is not installed"
    except (OSError, ValueError) as error:
        return reference, None, f"nanotoken cannot be used: {error}"
    if (problem := prove(fast, reference, max_tokens)) is not None:
        log.warning("%s tokenizes: %s.", reference.name, problem)
        return reference, None, problem
    fast.forget()
    return reference, fast, f"proved equal to {reference.name}"
