"""A backend without a model, for tests of what happens around the backend."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np

from reddit_assets.engines.embedding.backends.base import Backend, Batch
from reddit_assets.engines.embedding.model import ModelSpec

__all__ = ["FakeBackend", "UnitBackend", "fake_spec"]

DIMENSION = 8


def fake_spec(spec: ModelSpec) -> ModelSpec:
    """A real model's tokenizer with the fake backend's dimension."""
    return replace(spec, dimension=DIMENSION, fingerprint="fake", normalize=False)


class FakeBackend(Backend):
    """Vectors that depend on a text's tokens alone: sums of a fixed random row per token.

    Attributes:
        batches: (texts, tokens of the longest) of every batch so far.
        poison: a token id at which ``forward`` raises.
    """

    name = "fake"

    def __init__(self, streams: int = 2, poison: int | None = None) -> None:
        self.precision, self.device = "fp32", "cpu"
        self.streams, self.max_batch_tokens = streams, 256
        self.poison = poison
        self.batches: list[tuple[int, int]] = []
        self._lock = threading.Lock()
        self._table = np.random.default_rng(0).normal(size=(40_000, DIMENSION)).astype(np.float32)

    def forward(self, batch: Batch) -> np.ndarray:
        ids, mask = batch.padded()
        with self._lock:
            self.batches.append(ids.shape)
        if self.poison is not None and (ids == self.poison).any():
            raise RuntimeError("the device failed")
        return (self._table[ids] * mask[:, :, None]).sum(axis=1)

    def describe(self) -> dict[str, Any]:
        return {"backend": self.name, "precision": self.precision, "device": self.device}


class UnitBackend(FakeBackend):
    """The same with vectors of unit length, as checks and clustering want them."""

    def forward(self, batch: Batch) -> np.ndarray:
        vectors = super().forward(batch)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
