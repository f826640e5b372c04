"""Tokens: the same as the model's own tokenizer gives, for any text, of any length."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer as PlainTokenizer

from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.engines.embedding.reference import golden
from reddit_assets.engines.embedding.tokenizer import HARD_LIMIT, Tokenizer, TokenTable, as_texts
from reddit_assets.errors import ModelNotFoundError

LIMIT = 256

AROUND_THE_LIMIT = ["word " * count for count in (*range(250, 258), 300, 1_000, 10_000)] + [
    "",
    " " * 5_000,
    "😀 " * 253,
    "😀" * 260,
    "👩‍👩‍👧‍👦 family " * 200,
    "e\u0301a\u030ao\u0308 " * 600,
    "é" * 3_000,
    "שלום עולם " * 500,
    "مرحبا بالعالم " * 500,
    "\u200fright \u202eto left\u202c mark " * 400,
    "字" * 255 + " tail",
    "字" * 4_000,
    "a" * 5_000 + " b" * 400,
    "x" * 1_530 + " " + "y" * 1_530 + " z" * 300,
    "and\u0301 so on " * 700,  # an accent right after a word at every possible cut
    "word\u00a0word " * 700,
    "word\x00 word\x07 " * 700,
    "[SEP] [CLS] [MASK] " * 300,
    "don't can't won't " * 300,
    "a.b,c;d-e_f/g " * 300,
    "word\r\n\r\n\tword   " * 500,
    "\ufffd\ufffe " * 900,
    "Ⅷ½™ ﬁ " * 500,
]


@pytest.fixture(scope="module")
def spec(minilm: ModelSpec) -> ModelSpec:
    return minilm


@pytest.fixture(scope="module")
def tokenizer(spec: ModelSpec) -> Tokenizer:
    return Tokenizer(spec)


@pytest.fixture(scope="module")
def plain(spec: ModelSpec) -> PlainTokenizer:
    """The model's tokenizer as everybody uses it: the whole text, then truncation."""
    tokenizer = PlainTokenizer.from_file(str(spec.tokenizer_file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LIMIT)
    return tokenizer


def rows_of(table: TokenTable) -> list[list[int]]:
    bounds = table.cu_seqlens.tolist()
    return [table.ids[a:b].tolist() for a, b in itertools.pairwise(bounds)]


def test_long_texts_are_truncated_as_if_they_were_tokenized_whole(
    tokenizer: Tokenizer, plain: PlainTokenizer
) -> None:
    # Given texts around the limit, of many scripts
    # If they are tokenized, long ones being cut before
    table = tokenizer(AROUND_THE_LIMIT)
    # Then every text has the tokens that the whole text has
    for text, found in zip(AROUND_THE_LIMIT, rows_of(table), strict=True):
        assert found == plain.encode(text).ids, text[:40]
        assert len(found) <= LIMIT
    assert table.ids.dtype == np.int32
    assert int(table.lengths.max()) == LIMIT


def test_texts_whose_first_cut_gives_just_about_enough(
    tokenizer: Tokenizer, plain: PlainTokenizer
) -> None:
    # Given words of as many bytes per token as the first cut reckons with, shifted a little
    texts = [
        text
        for shift in range(30)
        for text in (
            "a " * shift + "house " * 400,
            "x" * shift + " " + "rivers " * 20 + "river " * 400,
        )
    ]
    # Then neither a word cut in two nor a token too few shows
    for text, found in zip(texts, rows_of(tokenizer(texts)), strict=True):
        assert found == plain.encode(text).ids


def test_random_long_texts_are_cut_without_a_trace(
    tokenizer: Tokenizer, plain: PlainTokenizer
) -> None:
    # Given long random mixtures of letters, marks, punctuation and white space
    random = np.random.default_rng(7)
    alphabet = list("abcdeée\u0301\u0308\u200d.,'-  \n\t😀字ß\x00")
    texts = ["".join(random.choice(alphabet, size)) for size in random.integers(1_000, 9_000, 60)]
    # Then cutting changes nothing
    for text, found in zip(texts, rows_of(tokenizer(texts)), strict=True):
        assert found == plain.encode(text).ids


def test_ten_megabytes_are_not_tokenized_to_keep_256_tokens(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a text of 10 MB, and a count of what reaches the tokenizer
    seen: list[int] = []
    encode = tokenizer._backend.encode

    def counting(rows: list[str], max_tokens: int | None = None) -> TokenTable:
        seen.extend(map(len, rows))
        return encode(rows, max_tokens)

    monkeypatch.setattr(tokenizer._backend, "encode", counting)
    # If it is tokenized
    table = tokenizer(["some words " * 950_000])
    # Then a few thousand characters decided, and a text without any end of a word is bounded
    assert table.lengths.tolist() == [LIMIT]
    assert max(seen) < 10_000
    assert tokenizer(["x" * 10_000_000]).lengths.tolist() == [3]
    assert max(seen) <= HARD_LIMIT


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
    ids=str,
)
def test_every_text_type_is_taken(tokenizer: Tokenizer, kind: pa.DataType) -> None:
    # Given the same texts, with nulls, in every Arrow type a parquet file can give
    texts = ["one two", None, "", "three", "one two"]
    array = pa.array(texts, pa.string()).cast(kind)
    # Then the tokens are the same, and a null is an empty text
    wanted = rows_of(tokenizer(["one two", "", "", "three", "one two"]))
    assert rows_of(tokenizer(array)) == wanted
    assert rows_of(tokenizer(pa.chunked_array([array, array]))) == wanted * 2
    assert rows_of(tokenizer(array.slice(1, 3))) == wanted[1:4]


def test_no_texts_at_all(tokenizer: Tokenizer) -> None:
    assert len(tokenizer([])) == 0
    assert len(tokenizer(pa.chunked_array([], pa.string()))) == 0
    assert rows_of(tokenizer(pa.nulls(2))) == rows_of(tokenizer(["", ""]))


def test_bytes_that_are_not_utf8_are_replaced(tokenizer: Tokenizer) -> None:
    # Given an Arrow column with broken UTF-8, which parquet readers do not check
    broken = [b"good", b"b\xc3d \xff bytes", b"\xed\xa0\x80 lone surrogate", b"x\xf0\x9f " * 900]
    offsets = pa.py_buffer(np.cumsum([0, *map(len, broken)]).astype(np.int32).tobytes())
    array = pa.StringArray.from_buffers(len(broken), offsets, pa.py_buffer(b"".join(broken)))
    # If it is tokenized
    table = tokenizer(array)
    # Then as Python's replacement of the same bytes
    replaced = [value.decode("utf-8", "replace") for value in broken]
    assert rows_of(table) == rows_of(tokenizer(replaced))
    # and a lone surrogate in a Python string is replaced too
    assert rows_of(tokenizer(["a \ud800 b"])) == rows_of(tokenizer(["a \ufffd b"]))


def test_other_types_than_text_are_refused() -> None:
    with pytest.raises(TypeError, match="int64"):
        as_texts(pa.array([1, 2]))


def test_token_tables_can_be_taken_and_joined(tokenizer: Tokenizer) -> None:
    # Given tables of the reference texts
    table = tokenizer(golden().texts)
    order = np.random.default_rng(3).permutation(len(table))
    # Then taking rows and joining tables keep every text's tokens
    rows = rows_of(table)
    assert rows_of(table.take(order)) == [rows[i] for i in order]
    assert rows_of(TokenTable.concatenate([table.take(order[:9]), table])) == [
        *(rows[i] for i in order[:9]),
        *rows,
    ]


def test_a_prompt_and_lower_case_reach_the_tokenizer(spec: ModelSpec, tmp_path: Path) -> None:
    from dataclasses import replace

    asked = Tokenizer(replace(spec, prompt="query: ", lowercase=True))
    plain = Tokenizer(spec)
    assert rows_of(asked(["A Text", None])) == rows_of(plain(["query: a text", "query: "]))


def test_a_missing_tokenizer_is_named(spec: ModelSpec, tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(ModelNotFoundError, match=r"nothing\.json"):
        Tokenizer(replace(spec, tokenizer_file=tmp_path / "nothing.json"))
