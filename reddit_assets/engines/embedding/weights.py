"""BERT-family weights as numpy arrays, whatever names their files use."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reddit_assets.engines.embedding.hub import weight_files
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.errors import BackendUnavailableError

__all__ = ["BertLayer", "BertWeights", "is_bert_family", "load_bert"]

FAMILY = ("bert", "roberta", "xlm-roberta", "camembert")
"""Architectures with BERT's layers and tensor names; all but BERT itself offset the positions."""


@dataclass(frozen=True)
class BertLayer:
    """One encoder layer; float32. Matrices are (out, in), as torch keeps them."""

    qkv_weight: np.ndarray
    """(3 * hidden, hidden): query, key and value, one below the other."""
    qkv_bias: np.ndarray
    out_weight: np.ndarray
    out_bias: np.ndarray
    attention_norm: tuple[np.ndarray, np.ndarray]
    """Scale and shift, each (hidden,)."""
    up_weight: np.ndarray
    up_bias: np.ndarray
    down_weight: np.ndarray
    down_bias: np.ndarray
    output_norm: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class BertWeights:
    """A BERT-family encoder; float32.

    Attributes:
        words: (vocabulary, hidden).
        positions: (positions, hidden); row ``i`` is for the ``i``-th token, offsets removed.
        types: (token types, hidden).
    """

    words: np.ndarray
    positions: np.ndarray
    types: np.ndarray
    embedding_norm: tuple[np.ndarray, np.ndarray]
    layers: list[BertLayer]
    heads: int
    epsilon: float

    @property
    def hidden(self) -> int:
        """Width of a token's vector."""
        return int(self.words.shape[1])

    def dense_flops_per_token(self) -> int:
        """Floating-point operations per token in the matrix products with weights."""
        return sum(
            2 * (x.qkv_weight.size + x.out_weight.size + x.up_weight.size + x.down_weight.size)
            for x in self.layers
        )


def is_bert_family(spec: ModelSpec) -> bool:
    """Whether this project can compute the model itself, without sentence-transformers."""
    if spec.architecture not in FAMILY or not spec.plain or spec.weights_dir is None:
        return False
    if spec.pooling not in ("mean", "cls"):
        return False
    config = _config(spec.weights_dir)
    return (
        config.get("hidden_act", "gelu") == "gelu"
        and config.get("position_embedding_type", "absolute") == "absolute"
        and bool(weight_files(spec.weights_dir))
        and all(file.suffix == ".safetensors" for file in weight_files(spec.weights_dir))
    )


def load_bert(spec: ModelSpec) -> BertWeights:
    """Read the weights of a model of which :func:`is_bert_family` is true.

    Raises:
        BackendUnavailableError: it is of another family, or a tensor is missing.
    """
    if spec.weights_dir is None or not is_bert_family(spec):
        raise BackendUnavailableError(
            f"The model {spec.name} ({spec.architecture or 'unknown architecture'}) has no "
            "BERT-family safetensors weights here.",
            hint="Use the torch backend, which runs any sentence-transformers model.",
        )
    config = _config(spec.weights_dir)
    tensors = _Tensors(spec.weights_dir)
    positions = tensors.get("embeddings.position_embeddings.weight")
    if spec.architecture != "bert":  # RoBERTa counts positions from the padding id on.
        positions = positions[int(config.get("pad_token_id", 1)) + 1 :]
    return BertWeights(
        words=tensors.get("embeddings.word_embeddings.weight"),
        positions=positions,
        types=tensors.get("embeddings.token_type_embeddings.weight"),
        embedding_norm=tensors.norm("embeddings.LayerNorm"),
        layers=[_layer(tensors, index) for index in range(int(config["num_hidden_layers"]))],
        heads=int(config["num_attention_heads"]),
        epsilon=float(config.get("layer_norm_eps", 1e-12)),
    )


def _layer(tensors: _Tensors, index: int) -> BertLayer:
    base = f"encoder.layer.{index}"
    parts = [f"{base}.attention.self.{part}" for part in ("query", "key", "value")]
    return BertLayer(
        qkv_weight=np.concatenate([tensors.get(f"{part}.weight") for part in parts]),
        qkv_bias=np.concatenate([tensors.get(f"{part}.bias") for part in parts]),
        out_weight=tensors.get(f"{base}.attention.output.dense.weight"),
        out_bias=tensors.get(f"{base}.attention.output.dense.bias"),
        attention_norm=tensors.norm(f"{base}.attention.output.LayerNorm"),
        up_weight=tensors.get(f"{base}.intermediate.dense.weight"),
        up_bias=tensors.get(f"{base}.intermediate.dense.bias"),
        down_weight=tensors.get(f"{base}.output.dense.weight"),
        down_bias=tensors.get(f"{base}.output.dense.bias"),
        output_norm=tensors.norm(f"{base}.output.LayerNorm"),
    )


class _Tensors:
    """Tensors by name, from one or several files, with or without the model's prefix."""

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        self._folder = folder
        self._files: dict[str, Any] = {}
        for path in weight_files(folder):
            if path.parent != folder:
                continue
            file = safe_open(str(path), framework="numpy")
            for key in file.keys():  # noqa: SIM118 - the handle is not a mapping
                for prefix in ("bert.", "roberta.", "model."):
                    if key.startswith(prefix):
                        self._files[key.removeprefix(prefix)] = (file, key)
                self._files[key] = (file, key)

    def get(self, name: str) -> np.ndarray:
        legacy = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        legacy = legacy.replace("LayerNorm.bias", "LayerNorm.beta")
        for candidate in (name, legacy):
            if candidate in self._files:
                file, key = self._files[candidate]
                return np.ascontiguousarray(file.get_tensor(key), dtype=np.float32)
        raise BackendUnavailableError(
            f"The weights in {self._folder} have no tensor {name}.",
            hint="Use the torch backend, which runs any sentence-transformers model.",
        )

    def norm(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return self.get(f"{name}.weight"), self.get(f"{name}.bias")


def _config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))
