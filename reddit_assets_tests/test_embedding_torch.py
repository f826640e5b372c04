"""The torch backend's other ways: any model through sentence-transformers, and a GPU's paths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reddit_assets.engines.embedding.backends.base import Batch
from reddit_assets.engines.embedding.conformance import cosines
from reddit_assets.engines.embedding.engine import Embedder
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.engines.embedding.reference import golden
from reddit_assets.engines.embedding.tokenizer import Tokenizer
from reddit_assets.engines.embedding.weights import load_bert
from reddit_assets.errors import BackendUnavailableError

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def spec(minilm: ModelSpec) -> ModelSpec:
    return minilm


def test_any_model_goes_through_sentence_transformers(spec: ModelSpec) -> None:
    pytest.importorskip("sentence_transformers")
    from reddit_assets.engines.embedding.backends.torch_backend import TorchBackend

    # Given the backend as it is for models of other families
    backend = TorchBackend(spec, device="cpu", threads=2, unpadded=False)
    assert backend.padded
    texts = golden().texts.slice(0, 60)
    # Then its vectors are the reference's
    with Embedder(spec, backend, max_batch_tokens=512) as embedder:
        assert cosines(embedder.encode(texts), golden().vectors[:60]).min() > 0.99999


@pytest.mark.parametrize("attention", ["groups", "nested"])
def test_every_attention_gives_the_same_vectors(spec: ModelSpec, attention: str) -> None:
    from reddit_assets.engines.embedding.backends.torch_bert import FlatBert, Lengths

    # Given a GPU's fallback paths, on the CPU
    cpu = torch.device("cpu")
    model = FlatBert(
        load_bert(spec),
        device=cpu,
        dtype=torch.float32,
        pooling=spec.pooling,
        normalize=True,
        attention=attention,
    )
    # If texts of many lengths, in no order, make one unpadded batch
    rows = np.random.default_rng(0).permutation(60)
    tokens = Tokenizer(spec)(golden().texts).take(rows)
    with torch.inference_mode():
        vectors = model(torch.from_numpy(tokens.ids), Lengths.of(tokens.lengths, cpu)).numpy()
    # Then they are the reference's
    assert cosines(vectors, golden().vectors[rows]).min() > 0.99999


def test_a_batch_too_large_for_the_memory_is_halved(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reddit_assets.engines.embedding.backends.torch_backend import TorchBackend

    # Given a device that has memory for two texts
    backend = TorchBackend(spec, device="cpu", threads=1)
    compute = backend._compute
    sizes: list[int] = []

    def small(batch: Batch) -> object:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return compute(batch)

    monkeypatch.setattr(backend, "_compute", small)
    tokens = Tokenizer(spec)(golden().texts.slice(10, 7))
    # Then all seven are computed, in order
    vectors = backend.forward(Batch(tokens))
    assert cosines(vectors, golden().vectors[10:17]).min() > 0.99999
    assert max(sizes) == 7
    # and one that fits nowhere is an error with a way out
    monkeypatch.setattr(backend, "_compute", lambda batch: small(Batch(tokens)))
    with pytest.raises(BackendUnavailableError, match="single text"):
        backend.forward(Batch(tokens.take(np.array([0]))))


def test_a_device_that_is_not_here_is_refused(tmp_path: Path) -> None:
    from reddit_assets.engines.embedding.backends.torch_devices import choose_devices

    assert choose_devices("cpu") == ["cpu"]
    missing = "cuda" if not torch.cuda.is_available() else "mps"
    with pytest.raises(BackendUnavailableError, match=missing):
        choose_devices(missing)
