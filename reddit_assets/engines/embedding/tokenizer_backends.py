"""Libraries that split texts into token ids: the reference, and a faster one for WordPiece."""

from __future__ import annotations

import logging
import threading
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from reddit_assets.engines.embedding.tokens import TokenTable
from reddit_assets.errors import ModelNotFoundError, first_line

__all__ = ["CACHED_WORDS", "FastTokenizer", "ReferenceTokenizer", "TokenizerBackend"]

log = logging.getLogger(__name__)

CACHED_WORDS = 1 << 17
"""Words that nanotoken remembers per thread, in each of its two tables: about 16 MiB. With its own
million the 14,400 real posts are no more than a third faster."""
AT_ONCE = 1_024
"""Rows handed to the reference's threads at a time: enough to spread; each takes kilobytes."""


class TokenizerBackend(Protocol):
    """Texts to ids, with the special tokens that the model wants.

    Attributes:
        whole_bytes: up to this size a text is tokenized whole sooner than a part of it is found
            that decides the tokens kept.
    """

    whole_bytes: int

    @property
    def name(self) -> str:
        """Library and version."""
        ...

    def encode(self, rows: list[str], max_tokens: int | None = None) -> TokenTable:
        """Ids of every text, at most ``max_tokens`` of each, special tokens included.

        Raises:
            Exception: what the library raises.
        """
        ...


class ReferenceTokenizer:
    """The ``tokenizers`` library, which defines what a model's tokens are.

    Attributes:
        name: library and version.
        special: the texts of the model's own tokens, ``[CLS]`` and the like.
        pad_id: id of the padding token.
    """

    whole_bytes = 0

    def __init__(self, path: Path) -> None:
        """Load a ``tokenizer.json``.

        Raises:
            ModelNotFoundError: it is unreadable.
        """
        try:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # The library raises bare Exception for a malformed file.
            raise ModelNotFoundError(
                f"The tokenizer {path} cannot be loaded: {error}.",
                hint="Put the model's own tokenizer.json there; `pip install tokenizers` if "
                "missing.",
            ) from None
        self._tokenizer.no_padding()
        self._lock = threading.Lock()
        self.name = f"tokenizers {metadata.version('tokenizers')}"
        added = self._tokenizer.get_added_tokens_decoder()
        self.special = [added[number].content for number in sorted(added)]
        self.pad_id = self._pad_id()

    def encode(self, rows: list[str], max_tokens: int | None = None) -> TokenTable:
        """See :class:`TokenizerBackend`."""
        with self._lock:  # Truncation is a state of the library's object.
            if max_tokens is None:
                self._tokenizer.no_truncation()
            else:
                self._tokenizer.enable_truncation(max_tokens)
            tables = [
                TokenTable.of_lists(
                    [one.ids for one in self._encoded(rows[start : start + AT_ONCE])]
                )
                for start in range(0, len(rows), AT_ONCE)
            ]
        return TokenTable.concatenate(tables)

    def _encoded(self, rows: list[str]) -> list[Any]:
        return self._tokenizer.encode_batch_fast(rows, add_special_tokens=True)

    def words(self) -> list[str]:
        """The vocabulary, in the order of the ids."""
        vocabulary = self._tokenizer.get_vocab()
        return sorted(vocabulary, key=vocabulary.__getitem__)

    def _pad_id(self) -> int:
        for token in ("[PAD]", "<pad>"):
            found = self._tokenizer.token_to_id(token)
            if found is not None:
                return int(found)
        return 0


class FastTokenizer:
    """``nanotoken``: WordPiece alone, thirty times as fast on one thread. Not trusted by itself.

    Args:
        path: the ``tokenizer.json``.
        parallel: use all cores; on one thread, which is enough for a processor's workers, it
            needs the memory of one cache.

    Raises:
        ImportError: it is not installed.
        ValueError: it does not know this kind of tokenizer.
        OSError: the file cannot be read.
    """

    whole_bytes = 16_384

    def __init__(self, path: Path, *, parallel: bool = False) -> None:
        import nanotoken

        nanotoken.set_cache_entries(CACHED_WORDS)
        self._tokenizer: Any = nanotoken.WordPieceTokenizer.from_json(path.read_bytes())
        self._parallel = parallel
        self.name = f"nanotoken {metadata.version('nanotoken')}"

    def forget(self) -> None:
        """Empty the table of words: what is in it stays, and the proof's words are rare ones."""
        self._tokenizer.clear_cache()

    def encode(self, rows: list[str], max_tokens: int | None = None) -> TokenTable:
        """See :class:`TokenizerBackend`."""
        try:
            ids, cu_seqlens = self._tokenizer.encode_batch(
                rows, max_length=max_tokens, parallel=self._parallel
            )
        except BaseException as error:
            # A panic of its Rust code is no Exception, and would end the process.
            if isinstance(error, Exception) or type(error).__name__ != "PanicException":
                raise
            raise RuntimeError(f"{self.name} panicked: {first_line(error)}") from None
        return TokenTable(ids.view(np.int32), cu_seqlens)
