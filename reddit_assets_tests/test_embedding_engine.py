"""The engine around a backend: batches, windows, order; threads; conformance's verdicts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reddit_assets.engines.embedding import conformance
from reddit_assets.engines.embedding.backends.base import Batch
from reddit_assets.engines.embedding.batching import plan_batches
from reddit_assets.engines.embedding.conformance import Conformance, cosines, demand
from reddit_assets.engines.embedding.engine import Embedder
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.engines.embedding.reference import golden
from reddit_assets.engines.embedding.tokenizer import TokenTable
from reddit_assets.errors import NonconformantError
from reddit_assets_tests.embedding_fakes import FakeBackend, fake_spec


@pytest.fixture
def embedder(minilm: ModelSpec) -> Embedder:
    return Embedder(fake_spec(minilm), FakeBackend())


def padding_share(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    """Share of the computed tokens that are padding when each batch is padded to its longest."""
    computed = sum(len(rows) * int(lengths[rows].max(initial=1)) for rows in batches)
    return 1.0 - float(np.sum(lengths)) / computed


@pytest.mark.parametrize("padded", [True, False])
def test_batches_hold_every_text_once_within_the_budget(padded: bool) -> None:
    # Given lengths from nothing to more than the budget
    random = np.random.default_rng(0)
    lengths = np.concatenate([random.integers(0, 257, 2_000), [600, 3, 0]])
    # If they are planned
    batches = plan_batches(lengths, 512, padded=padded)
    # Then each is in one batch, no batch of several costs more than the budget, long ones first
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for rows in batches:
        kept = np.maximum(lengths[rows], 1)
        cost = len(rows) * kept.max() if padded else kept.sum()
        assert len(rows) == 1 or cost <= 512
    firsts = [lengths[rows].max() for rows in batches]
    assert firsts == sorted(firsts, reverse=True)
    # and batches are full and nearly unpadded
    assert len(batches) < 1.2 * lengths.sum() / 512 + 10
    assert padding_share(lengths, batches) < 0.02


def test_no_texts_make_no_batches() -> None:
    assert plan_batches(np.array([], np.int64), 512) == []


def test_padding_and_mask() -> None:
    tokens = TokenTable(np.array([9, 8, 7, 6, 5], np.int32), np.array([0, 3, 3, 5]))
    ids, mask = Batch(tokens, pad_id=1).padded(multiple=4)
    assert ids.tolist() == [[9, 8, 7, 1], [1, 1, 1, 1], [6, 5, 1, 1]]
    assert mask.tolist() == [[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]]


def test_equal_texts_are_computed_once_and_order_is_kept(embedder: Embedder) -> None:
    # Given a thousand rows of only fifty texts, with nulls, in chunks
    random = np.random.default_rng(1)
    pool = [f"text number {i} " * int(random.integers(1, 9)) for i in range(49)] + [None]
    chosen = [pool[i] for i in random.integers(0, 50, 1_000)]
    column = pa.chunked_array([pa.array(chosen[:300]), pa.array(chosen[300:])])
    # If they are embedded in one window
    encoded = embedder.encode_counted(column)
    # Then only fifty were computed, and every row has its own text's vector and tokens
    assert encoded.computed_rows == 50
    assert isinstance(embedder.backend, FakeBackend)
    assert sum(rows for rows, _ in embedder.backend.batches) == 50
    alone = {text: embedder.encode([text])[0] for text in pool}
    np.testing.assert_allclose(
        encoded.vectors, np.stack([alone[text] for text in chosen]), rtol=1e-5, atol=1e-5
    )
    assert encoded.tokens.tolist() == [
        int(embedder.tokenizer([text]).lengths[0]) for text in chosen
    ]


def test_texts_of_the_same_tokens_share_a_computation_and_no_others_do(embedder: Embedder) -> None:
    # Given texts that differ in white space, case and behind the last token, and others that do in
    # accents, joints and marks
    long = "word " * 400
    texts = ["A cat sat", "a  CAT\tsat ", "a cat sat\n", "acat sat", "a cat, sat", "a cät sat"]
    texts += [long + "end", long + "other end", "", " \n", "a cat sat."]
    # If they are tokenized as a window
    window = embedder.window(texts)
    # Then two rows have the same number if, and only if, their own ids are equal, ids in order
    alone = [embedder.tokenizer([text]).ids.tolist() for text in texts]
    for one, ids in zip(window.rows, alone, strict=True):
        assert window.tokens.row(int(one)).tolist() == ids
    assert len(window.tokens) == len({tuple(ids) for ids in alone}) == 6
    assert window.row_tokens.tolist() == [len(ids) for ids in alone]


@given(st.lists(st.lists(st.sampled_from([0, 1, 256, 65_536, -1]), max_size=3), max_size=12))
def test_sequences_are_the_same_only_as_a_whole(rows: list[list[int]]) -> None:
    found, numbers = TokenTable.of_lists(rows).distinct()
    assert [found.row(number).tolist() for number in numbers] == rows
    first = list(dict.fromkeys(map(tuple, rows)))
    assert [tuple(found.row(at)) for at in range(len(found))] == first


def test_windows_bound_what_is_looked_at_together(embedder: Embedder) -> None:
    # Given twenty equal texts and windows of six rows
    embedder.window_rows = 6
    done: list[int] = []
    encoded = embedder.encode_counted(["same"] * 20, progress=done.append)
    # Then each window computes it once, and says its rows
    assert encoded.computed_rows == 4
    assert done == [6, 6, 6, 2]
    assert embedder.encode([]).shape == (0, 8)


def test_a_failure_of_the_backend_is_the_callers(embedder: Embedder) -> None:
    assert isinstance(embedder.backend, FakeBackend)
    embedder.backend.poison = int(embedder.tokenizer(["zebra"]).ids[1])
    with pytest.raises(RuntimeError, match="device failed"):
        embedder.encode(["a"] * 3 + ["zebra"])
    embedder.backend.poison = None
    assert len(embedder.encode(["zebra"])) == 1


def test_cosines_see_wrong_and_broken_rows() -> None:
    a = np.array([[1, 0], [0, 2], [np.nan, 1], [0, 0]], np.float32)
    b = np.array([[1, 0], [1, 0], [1, 1], [1, 0]], np.float32)
    np.testing.assert_allclose(cosines(a, b), [1, 0, -1, -1], atol=1e-7)


@pytest.mark.parametrize(
    ("turn", "precision", "conformant"),
    [
        (0.0, "fp32", True),
        (0.01, "fp32", False),
        (0.01, "bf16", True),
        (0.03, "bf16", False),
        (0.03, "fp16", False),
    ],
)
def test_conformance_has_the_bounds_of_its_precision(
    embedder: Embedder,
    monkeypatch: pytest.MonkeyPatch,
    turn: float,
    precision: str,
    conformant: bool,
) -> None:
    # Given a backend whose vectors are turned by a small angle from the exact one's
    class Turned(FakeBackend):
        def forward(self, batch: Batch) -> np.ndarray:
            vectors = super().forward(batch)
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            unit = vectors / lengths
            across = np.zeros_like(unit)
            across[:, 0], across[:, 1] = -unit[:, 1], unit[:, 0]
            across += 1e-9
            across /= np.linalg.norm(across, axis=1, keepdims=True)
            return lengths * (np.cos(turn) * unit + np.sin(turn) * across)

    backend = Turned()
    backend.precision = precision
    checked = Embedder(embedder.spec, backend)
    monkeypatch.setattr(conformance, "computed_reference", lambda spec: None)
    # If it is checked, then the bound of its precision decides
    found = conformance.check(checked, FakeBackend())
    assert found.reference == "computed"
    assert found.conformant is conformant
    if conformant:
        demand(checked, found)
    else:
        with pytest.raises(NonconformantError, match="smallest cosine"):
            demand(checked, found)


def test_another_tokenizer_is_not_conformant(embedder: Embedder) -> None:
    found = Conformance(False, 1.0, 1.0, 0.99999, False, "golden", len(golden().texts))
    with pytest.raises(NonconformantError, match="tokenizer"):
        demand(embedder, found)


def test_the_budget_keeps_its_variable_and_its_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    from reddit_assets.settings import load_settings

    # Given the variable of earlier versions, the field's own, or an argument
    monkeypatch.setenv("REDDIT_BATCH_TOKENS", "300")
    assert load_settings().max_batch_tokens == 300
    assert load_settings().environment()["REDDIT_BATCH_TOKENS"] == "300"
    assert load_settings(max_batch_tokens=400).max_batch_tokens == 400
    monkeypatch.delenv("REDDIT_BATCH_TOKENS")
    monkeypatch.setenv("REDDIT_MAX_BATCH_TOKENS", "500")
    # Then all mean the same
    assert load_settings().max_batch_tokens == 500
