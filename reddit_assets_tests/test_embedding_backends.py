"""Every backend and precision that runs here makes the committed vectors of the real model."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reddit_assets.engines.embedding import select
from reddit_assets.engines.embedding.backends.base import Backend, Batch
from reddit_assets.engines.embedding.conformance import BOUNDS, cosines
from reddit_assets.engines.embedding.engine import Embedder
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.engines.embedding.reference import golden
from reddit_assets.engines.embedding.select import Choice, make_backend, open_embedder
from reddit_assets.engines.host import cpu_has_bf16
from reddit_assets.errors import BackendUnavailableError, NonconformantError
from reddit_assets_tests.embedding_fakes import FakeBackend

PACKAGE = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}
CHOICES = [
    Choice("onnx", "cpu", "fp32"),
    Choice("openvino", "cpu", "fp32"),
    Choice("openvino", "cpu", "bf16"),
    Choice("torch", "cpu", "fp32"),
    Choice("torch", "cpu", "bf16"),
]


@pytest.fixture(scope="module")
def spec(minilm: ModelSpec) -> ModelSpec:
    return minilm


def skip_unless_possible(choice: Choice) -> None:
    if importlib.util.find_spec(PACKAGE[choice.backend]) is None:
        pytest.skip(f"{choice.backend} is not installed")
    if choice.precision == "bf16" and not cpu_has_bf16():
        pytest.skip("this processor has no bfloat16")


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_backend_makes_the_golden_vectors(spec: ModelSpec, choice: Choice) -> None:
    # Given the committed fp32 vectors of sentence-transformers
    skip_unless_possible(choice)
    reference = golden()
    assert reference.fingerprint == spec.fingerprint
    # If a backend embeds the same texts, two threads at once
    with Embedder(spec, make_backend(spec, choice, threads=2)) as embedder:
        encoded = embedder.encode_counted(reference.texts)
    # Then the vectors are within the precision's bound, of length one, and as many tokens
    assert encoded.vectors.dtype == np.float32
    assert encoded.vectors.shape == reference.vectors.shape
    assert cosines(encoded.vectors, reference.vectors).min() >= BOUNDS[choice.precision]
    assert np.allclose(np.linalg.norm(encoded.vectors, axis=1), 1.0, atol=1e-5)
    assert encoded.tokens.tolist() == reference.tokens.tolist()


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_vectors_do_not_depend_on_the_batch(spec: ModelSpec, choice: Choice) -> None:
    # Given texts of all lengths
    skip_unless_possible(choice)
    texts = golden().texts
    shuffled = np.random.default_rng(1).permutation(len(texts))
    with Embedder(spec, make_backend(spec, choice, threads=2)) as embedder:
        together = embedder.encode(texts)
        # If they come in another order, in other batches, in small windows, or alone
        embedder.max_batch_tokens = 100
        other_budget = embedder.encode(texts.take(shuffled))
        embedder.window_rows = 7
        small_windows = embedder.encode(texts)
        alone = np.concatenate([embedder.encode(texts.slice(i, 1)) for i in range(30, 50)])
    # Then they get the same vectors within the bound
    bound = BOUNDS[choice.precision]
    assert cosines(other_budget, together[shuffled]).min() >= bound
    assert cosines(small_windows, together).min() >= bound
    assert cosines(alone, together[30:50]).min() >= bound


def test_an_inexact_backend_is_refused_unless_allowed(spec: ModelSpec) -> None:
    # Given int8, whose vectors are far from fp32
    skip_unless_possible(Choice("onnx", "cpu", "int8"))
    # If a worker opens it, then it is refused with a number
    with pytest.raises(NonconformantError, match=r"smallest cosine .* is 0\.9"):
        open_embedder(spec, backend="onnx", precision="int8", threads=2)
    # unless that is allowed, and then it is marked
    with open_embedder(
        spec, backend="onnx", precision="int8", threads=2, allow_nonconformant=True
    ) as embedder:
        assert embedder.describe()["conformance"]["conformant"] is False


def test_auto_opens_a_conformant_backend_and_says_why(spec: ModelSpec) -> None:
    # Given this host, whatever it has
    # If auto chooses
    with open_embedder(spec, device="cpu", threads=1) as embedder:
        # Then it conforms, and the sentence names the choice
        assert embedder.conformance is not None
        assert embedder.conformance["conformant"] is True
        assert embedder.backend.name in embedder.reason
        assert embedder.backend.precision != "int8"


def test_impossible_wishes_are_refused_with_a_way_out(spec: ModelSpec) -> None:
    for wish in (
        {"backend": "onnx", "precision": "bf16"},
        {"backend": "onnx", "device": "cuda"},
        {"backend": "openvino", "precision": "fp16"},
    ):
        with pytest.raises(BackendUnavailableError) as caught:
            open_embedder(spec, **wish)
        assert caught.value.hint


def test_a_fully_onnx_host_needs_no_torch(spec: ModelSpec, tmp_path: Path) -> None:
    # Given a process that opens the onnx backend and embeds
    import subprocess
    import sys

    skip_unless_possible(Choice("onnx", "cpu", "fp32"))
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from reddit_assets.engines.embedding.model import find_model\n"
        "from reddit_assets.engines.embedding.select import open_embedder\n"
        f"spec = find_model({str(spec.path)!r}, Path({str(tmp_path)!r}))\n"
        "print(open_embedder(spec, backend='onnx', threads=1).encode(['a text']).shape)\n"
        "heavy = {'torch', 'dagster', 'transformers', 'sentence_transformers'} & set(sys.modules)\n"
        "print(sorted(heavy))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    # Then neither torch nor dagster was imported
    assert done.stdout.split("\n")[:2] == ["(1, 384)", "[]"]


class Faulty(FakeBackend):
    """A backend that loads and then, at its first batch, fails as drivers and kernels do."""

    name = "openvino"

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def forward(self, batch: Batch) -> np.ndarray:
        if self.fault == "raises":
            raise RuntimeError("could not create a primitive\nat kernel.cpp:41")
        if self.fault == "nan":
            return np.full((len(batch), 384), np.nan, np.float32)
        return np.ones((1, 384), np.float32)


@pytest.fixture(params=["raises", "nan", "shape"])
def beside_a_faulty_one(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real ONNX backend as second choice, after one that loads and cannot compute."""
    skip_unless_possible(Choice("onnx", "cpu", "fp32"))
    choices = [Choice("openvino", "cpu", "fp32"), Choice("onnx", "cpu", "fp32")]
    real = select.make_backend

    def make(spec: ModelSpec, choice: Choice, **options: Any) -> Backend:
        return Faulty(request.param) if choice == choices[0] else real(spec, choice, **options)

    def candidates(*_: Any, backend: str, **__: Any) -> list[Choice]:
        return [choice for choice in choices if backend in ("auto", choice.backend)]

    monkeypatch.setattr(select, "make_backend", make)
    monkeypatch.setattr(select, "candidates", candidates)
    monkeypatch.setattr(select, "ranked", lambda spec, choices, **_: choices)


@pytest.mark.usefixtures("beside_a_faulty_one")
@pytest.mark.parametrize("allow", [False, True])
def test_auto_passes_over_a_backend_that_loads_but_cannot_compute(
    spec: ModelSpec, allow: bool
) -> None:
    # Given that the first choice fails at its first batch
    # If auto chooses, even where inexact vectors are allowed
    with open_embedder(spec, threads=1, allow_nonconformant=allow) as embedder:
        # Then the next one works, and the reason says what was wrong with the first
        assert embedder.backend.name == "onnx"
        assert cosines(embedder.encode(golden().texts), golden().vectors).min() > 0.99999
        assert "not used: openvino" in embedder.reason
        assert "cannot compute" in embedder.reason or "NaN" in embedder.reason


@pytest.mark.usefixtures("beside_a_faulty_one")
def test_a_backend_asked_for_that_cannot_compute_is_an_error_of_ours(spec: ModelSpec) -> None:
    with pytest.raises(BackendUnavailableError, match="openvino") as caught:
        open_embedder(spec, backend="openvino", threads=1)
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_onnx_runtime_sends_nothing_to_its_maker(tmp_path: Path) -> None:
    # Given a home in which ONNX Runtime would keep a host's id and what it has to send
    pytest.importorskip("onnxruntime")
    bare = {k: v for k, v in os.environ.items() if k not in ("CI", "XDG_CACHE_HOME")}
    bare.pop("ORT_DISABLE_TELEMETRY", None)
    program = "import reddit_assets.engines.embedding, onnxruntime"
    # If it is loaded after ours, Then there is nothing
    subprocess.run([sys.executable, "-c", program], env={**bare, "HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.rglob("*")) == []
