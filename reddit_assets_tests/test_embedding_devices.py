"""Several devices in one worker: all work, one that fails is left out, a bad batch fails alone."""

from __future__ import annotations

import logging
import threading
import time

import numpy as np
import pytest

from reddit_assets.engines.embedding.backends.base import Batch
from reddit_assets.engines.embedding.backends.devices import SeveralDevices
from reddit_assets.engines.embedding.engine import Embedder
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.engines.embedding.reference import golden
from reddit_assets.engines.embedding.select import open_embedder
from reddit_assets.errors import BackendUnavailableError, SettingsError
from reddit_assets.settings import load_settings
from reddit_assets_tests.embedding_fakes import FakeBackend, fake_spec


class Device(FakeBackend):
    """A device that takes its time, and may break."""

    def __init__(self, name: str, seconds: float = 0.0) -> None:
        super().__init__(streams=2)
        self.device, self.seconds = name, seconds
        self.broken = False
        self.together = self.most = 0
        self.here = threading.Lock()

    def forward(self, batch: Batch) -> np.ndarray:
        with self.here:
            self.together += 1
            self.most = max(self.most, self.together)
        try:
            time.sleep(self.seconds)
            if self.broken:
                raise RuntimeError("an illegal memory access was encountered\nmore of it")
            return super().forward(batch)
        finally:
            with self.here:
                self.together -= 1


@pytest.fixture(scope="module")
def spec(minilm: ModelSpec) -> ModelSpec:
    return fake_spec(minilm)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [f"{text} {number}" for text in golden().texts.to_pylist() for number in range(4)]


def test_all_devices_share_the_batches_of_one_reader(spec: ModelSpec, texts: list[str]) -> None:
    # Given a slow and a fast device
    slow, fast = Device("cuda:0", 0.02), Device("cuda:1", 0.002)
    several = SeveralDevices([slow, fast])
    assert (several.device, several.streams) == ("cuda:0,cuda:1", 4)
    # If they embed
    with Embedder(spec, several, max_batch_tokens=256) as embedder:
        vectors = embedder.encode(texts)
    with Embedder(spec, FakeBackend()) as one:
        wanted = one.encode(texts)
    # Then the vectors are a single device's, in their order; both computed, the fast one more,
    # and none more at a time than it has streams
    assert np.allclose(vectors, wanted, atol=1e-3)
    assert 0 < len(slow.batches) < len(fast.batches)
    assert max(slow.most, fast.most) <= 2


def test_a_device_that_fails_is_used_no_more(
    spec: ModelSpec, texts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    # Given a device that breaks while it works
    good, bad = Device("cuda:0", 0.001), Device("cuda:1", 0.001)
    several = SeveralDevices([bad, good])
    with Embedder(spec, several) as embedder:
        embedder.encode(texts)
        bad.broken = True
        # If the worker goes on
        with caplog.at_level(logging.ERROR):
            vectors = embedder.encode(texts)
        before = len(bad.batches)
        embedder.encode(texts)
        # Then every vector is there, the log and the provenance say what was lost
        assert np.isfinite(vectors).all()
        assert len(bad.batches) == before
        assert "cuda:1 is used no more" in caplog.text
        assert "illegal memory access" in embedder.describe()["lost_devices"]["cuda:1"]
        # and when the last one breaks too, its error is raised, and nothing waits without end
        good.broken = True
        with pytest.raises(RuntimeError, match="illegal memory"):
            embedder.encode(texts)


def test_a_batch_that_fails_everywhere_costs_no_device(spec: ModelSpec, texts: list[str]) -> None:
    # Given one text at which any device fails
    devices = [Device("cuda:0"), Device("cuda:1")]
    several = SeveralDevices(devices)
    with Embedder(spec, several) as embedder:
        poison = int(embedder.tokenizer(["quetzal"]).ids[1])
        for device in devices:
            device.poison = poison
        # Then the text's batch fails, and both devices go on
        with pytest.raises(RuntimeError, match="the device failed"):
            embedder.encode([*texts, "quetzal"])
        assert "lost_devices" not in embedder.describe()
        assert embedder.encode(texts).shape == (len(texts), spec.dimension)


def test_two_processors_as_devices_make_the_reference_vectors(minilm: ModelSpec) -> None:
    pytest.importorskip("torch")
    # Given two devices of the real backend
    with open_embedder(minilm, device="cpu,cpu", precision="fp32", threads=2) as embedder:
        # Then each passed the check, and together they conform
        assert isinstance(embedder.backend, SeveralDevices)
        assert embedder.describe()["device"] == "cpu,cpu"
        assert (embedder.conformance or {})["conformant"]
        assert embedder.encode(golden().texts).shape == golden().vectors.shape


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:3", "cuda:0,cuda:1"])
def test_devices_can_be_named(device: str) -> None:
    assert load_settings(device=device).device == device


def test_devices_that_are_not_here_or_do_not_exist_are_refused(minilm: ModelSpec) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(SettingsError, match="'gpu:0' is not auto"):
        load_settings(device="gpu:0")
    if not torch.cuda.is_available():
        with pytest.raises(BackendUnavailableError, match="finds no cuda:5 device"):
            open_embedder(minilm, device="cpu,cuda:5")
