"""The fast tokenizer: equal to the reference, refused when it is not, and not needed at all."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from reddit_assets.engines.embedding import tokenizer as tokenizers
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.engines.embedding.reference import golden
from reddit_assets.engines.embedding.tokenizer import Tokenizer
from reddit_assets.engines.embedding.tokenizer_backends import FastTokenizer, ReferenceTokenizer
from reddit_assets.engines.embedding.tokenizer_proof import difference, prove, random_texts
from reddit_assets.engines.embedding.tokens import TokenTable

Encode = Callable[[FastTokenizer, list[str], int | None], TokenTable]

right: Encode = FastTokenizer.encode


@pytest.fixture(autouse=True)
def _no_memory_of_proofs() -> Iterator[None]:
    tokenizers._load.cache_clear()
    yield
    tokenizers._load.cache_clear()


def changed(encode: Encode, change: Callable[[list[int], str], list[int]]) -> Encode:
    """A tokenizer that gives other ids for some texts."""

    def encoded(self: FastTokenizer, rows: list[str], max_tokens: int | None = None) -> TokenTable:
        table = encode(self, rows, max_tokens)
        return TokenTable.of_lists(
            [change(table.row(i).tolist(), text) for i, text in enumerate(rows)]
        )

    return encoded


def without_final_sigma(self: FastTokenizer, rows: list[str], max_tokens: int | None) -> TokenTable:
    return right(self, [row.replace("ς", "σ") for row in rows], max_tokens)


def without_accents_kept(
    self: FastTokenizer, rows: list[str], max_tokens: int | None
) -> TokenTable:
    return right(self, [row.replace("ꓽ", "") for row in rows], max_tokens)  # Of one script alone.


def one_more(self: FastTokenizer, rows: list[str], max_tokens: int | None) -> TokenTable:
    return right(self, rows, max_tokens and max_tokens + 1)


def dead(self: FastTokenizer, rows: list[str], max_tokens: int | None) -> TokenTable:
    raise RuntimeError("index out of bounds")


class PanicException(BaseException):
    """As pyo3 raises it."""


class Panicking:
    def encode_batch(self, rows: list[str], **_: object) -> None:
        raise PanicException("called `Option::unwrap()` on a `None` value")


BROKEN: dict[str, Encode] = {
    "a rare character is lost": without_accents_kept,
    "a word of the vocabulary is not known": changed(
        right, lambda ids, text: [100 if i == 29_000 else i for i in ids]
    ),
    "a form of a letter": without_final_sigma,
    "a token too many is kept": one_more,
    "it fails": dead,
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_the_proof_at_the_start_refuses_a_broken_tokenizer(
    minilm: ModelSpec,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: Encode,
) -> None:
    # Given a fast tokenizer with a fault
    monkeypatch.setattr(FastTokenizer, "encode", broken)
    # If a worker starts
    with caplog.at_level(logging.WARNING):
        tokenizer = Tokenizer(minilm)
    # Then the reference tokenizes, which is told in the log and in the metadata
    assert tokenizer._backend is tokenizer.reference
    assert tokenizer.describe().startswith("tokenizers ")
    assert "nanotoken" in tokenizer.describe()
    assert "nanotoken" in caplog.text
    assert tokenizer(golden().texts).lengths.tolist() == golden().tokens.tolist()


def test_a_panic_of_the_library_does_not_end_the_worker(minilm: ModelSpec) -> None:
    fast = FastTokenizer(minilm.tokenizer_file)
    fast._tokenizer = Panicking()
    problem = prove(fast, ReferenceTokenizer(minilm.tokenizer_file), 256)
    assert problem is not None
    assert "panicked" in problem


def test_a_fault_that_only_real_texts_show_is_seen_in_the_first_window(
    minilm: ModelSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a fault that no text of the proof shows, in one text of twenty
    monkeypatch.setattr(
        FastTokenizer,
        "encode",
        changed(right, lambda ids, text: ids[::-1] if "quetzal" in text else ids),
    )
    tokenizer = Tokenizer(minilm)
    assert tokenizer.describe().startswith("nanotoken ")
    texts = [f"a {'quetzal' if i % 20 == 7 else 'bird'} number {i}" for i in range(2_000)]
    # If they are the first window
    with caplog.at_level(logging.WARNING):
        table = tokenizer(texts)
    # Then all of it has the reference's ids, and so has what comes later
    wanted = tokenizer.reference.encode(texts, minilm.max_tokens)
    assert np.array_equal(table.ids, wanted.ids)
    assert tokenizer.describe().startswith("tokenizers ")
    assert "takes over" in caplog.text
    assert np.array_equal(tokenizer(texts).ids, wanted.ids)


def test_without_the_fast_library_everything_works(
    minilm: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nanotoken", None)
    tokenizer = Tokenizer(minilm)
    assert "nanotoken is not installed" in tokenizer.describe()
    assert tokenizer(golden().texts).lengths.tolist() == golden().tokens.tolist()


def test_another_kind_of_tokenizer_is_left_to_the_reference(
    minilm: ModelSpec, tmp_path: Path
) -> None:
    # Given a model that splits bytes into pairs
    from tokenizers import Tokenizer as Library
    from tokenizers.models import BPE

    library = Library(BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    library.save(str(tmp_path / "tokenizer.json"))
    from dataclasses import replace

    tokenizer = Tokenizer(replace(minilm, tokenizer_file=tmp_path / "tokenizer.json"))
    # Then it is the reference's, and says why
    assert tokenizer.describe().startswith("tokenizers ")
    assert tokenizer(["abab"]).ids.tolist() == [2, 2]


def test_generated_strings_of_all_scripts_have_equal_ids(minilm: ModelSpec) -> None:
    # Given strings of all scripts (benchmarks/tokenizer.py takes 100,000 and more)
    reference, fast = (
        ReferenceTokenizer(minilm.tokenizer_file),
        FastTokenizer(minilm.tokenizer_file),
    )
    texts = list(random_texts(reference, 4_000, seed=11))
    # Then whole and cut, on one thread and on many, the ids are equal
    assert difference(fast, reference, texts, None) is None
    assert difference(fast, reference, texts, 32) is None
    assert (
        difference(FastTokenizer(minilm.tokenizer_file, parallel=True), reference, texts, None)
        is None
    )
