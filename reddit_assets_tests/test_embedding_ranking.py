"""Which backend auto takes is measured, once per host, processor, model and versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reddit_assets.engines import host
from reddit_assets.engines.embedding import ranking
from reddit_assets.engines.embedding.choice import Choice
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.engines.embedding.ranking import measured_rate, ranked
from reddit_assets.errors import StartupError

OPENVINO, ONNX, TORCH = (Choice(name, "cpu", "fp32") for name in ("openvino", "onnx", "torch"))


class Stopwatch:
    """Rates by backend, and what was asked."""

    def __init__(self, **rates: float | None) -> None:
        self.rates = rates
        self.asked: list[Choice] = []

    def __call__(self, spec: ModelSpec, choice: Choice, threads: int) -> float | None:
        self.asked.append(choice)
        return self.rates[choice.backend if choice.precision == "fp32" else choice.precision]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(ranking, "_known", {})
    return tmp_path


def order(spec: ModelSpec, watch: Stopwatch, *choices: Choice, threads: int = 2) -> list[Choice]:
    return ranked(spec, choices, threads=threads, measure=watch)


def test_the_fastest_is_first_and_is_measured_once(
    minilm: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a processor on which the usually fastest backend is the slowest
    watch = Stopwatch(openvino=100.0, onnx=300.0, torch=200.0)
    choices = (OPENVINO, ONNX, TORCH)
    # If the choices are ranked, and again by a later process
    assert order(minilm, watch, *choices) == [ONNX, TORCH, OPENVINO]
    monkeypatch.setattr(ranking, "_known", {})
    assert order(minilm, watch, *choices) == [ONNX, TORCH, OPENVINO]
    # Then each was measured once
    assert watch.asked == [OPENVINO, ONNX, TORCH]
    # but with other versions, another processor or other cores it is measured again
    monkeypatch.setattr(ranking, "_version", lambda _: "999")
    order(minilm, watch, *choices)
    monkeypatch.setattr(ranking, "cpu_name", lambda: "another")
    order(minilm, watch, *choices)
    order(minilm, watch, *choices, threads=1)
    assert len(watch.asked) == 12


def test_what_fails_comes_last_and_is_looked_at_again(minilm: ModelSpec) -> None:
    watch = Stopwatch(openvino=None, onnx=300.0, torch=400.0)
    assert order(minilm, watch, OPENVINO, ONNX, TORCH) == [TORCH, ONNX, OPENVINO]
    watch.rates["openvino"] = 500.0
    assert order(minilm, watch, OPENVINO, ONNX, TORCH) == [OPENVINO, TORCH, ONNX]


def test_precisions_are_measured_as_well(minilm: ModelSpec) -> None:
    # Given a processor that multiplies bfloat16 more slowly than float32, and one that does not
    bf16 = Choice("openvino", "cpu", "bf16")
    slow, fast = Stopwatch(bf16=1.0, openvino=2.0), Stopwatch(bf16=2.0, openvino=1.0)
    assert order(minilm, slow, bf16, OPENVINO) == [OPENVINO, bf16]
    assert order(minilm, fast, bf16, OPENVINO, threads=1) == [bf16, OPENVINO]


def test_beside_a_gpu_and_without_a_choice_nothing_is_measured(minilm: ModelSpec) -> None:
    watch = Stopwatch()
    gpu = Choice("torch", "cuda", "fp16")
    assert order(minilm, watch, gpu, OPENVINO, ONNX) == [gpu, OPENVINO, ONNX]
    assert order(minilm, watch, ONNX) == [ONNX]
    assert order(minilm, watch) == []
    assert not watch.asked


@pytest.mark.parametrize("fault", ["nowhere", "torn"])
def test_without_a_cache_it_is_measured_per_process(
    minilm: ModelSpec, monkeypatch: pytest.MonkeyPatch, own_cache: Path, fault: str
) -> None:
    # Given a host on which nothing can be kept, or a file that is torn
    if fault == "nowhere":

        def refuse(name: str) -> Path:
            raise StartupError("No folder can be written.")

        monkeypatch.setattr(ranking, "private_folder", refuse)
    watch = Stopwatch(openvino=100.0, onnx=300.0)
    for _ in range(2):
        assert order(minilm, watch, OPENVINO, ONNX) == [ONNX, OPENVINO]
    # Then this process knows, and the next one measures again
    assert len(watch.asked) == 2
    monkeypatch.setattr(ranking, "_known", {})
    for path in own_cache.rglob("*.json"):
        path.write_text("[1")
    order(minilm, watch, OPENVINO, ONNX)
    assert len(watch.asked) == 4


def test_a_real_backend_is_measured_in_a_process_of_its_own(
    minilm: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    # Given the real backend, and one that does not exist
    rate = measured_rate(minilm, ONNX, 1)
    # Then there is a rate, and none for what fails
    assert rate is not None
    assert rate > 0
    assert measured_rate(minilm, Choice("nothing", "cpu", "fp32"), 1) is None


def test_a_processor_without_bfloat16_measures_no_bfloat16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from reddit_assets.engines.embedding import peak

    flags: Any = frozenset({"avx2"})
    monkeypatch.setattr(host, "cpu_flags", lambda: flags)
    monkeypatch.setattr(peak, "SECONDS", 0.01)
    monkeypatch.setattr(peak, "SHAPES", ((8, 4, 6),))

    # Given such a processor, and a library that fails in a thread
    def broken(precision: str, shape: tuple[int, int, int]) -> peak.Product:
        raise RuntimeError("no primitive")

    monkeypatch.setitem(peak.LIBRARIES, "torch", broken)
    # If the yardstick is wanted, then there is one of fp32, by the fastest library, and no other
    assert peak.matmul_peak("bf16", 2) is None
    found = peak.matmul_peak("fp32", 2)
    assert found is not None
    assert found.library in ("numpy", "onnxruntime", "openvino")
    assert found.gflops > 0
    assert "8 × 4 × 6" in str(found)
