"""ONNX export: ``model.onnx``, ``tokenizer.json`` and the sidecar, from safetensors, no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reddit_assets.engines.embedding.digests import file_digest, tokenizer_digest
from reddit_assets.engines.embedding.graph import append_pooling, build_encoder
from reddit_assets.engines.embedding.model import SIDECAR, ModelSpec
from reddit_assets.engines.embedding.weights import load_bert
from reddit_assets.errors import BackendUnavailableError, WriteError

__all__ = ["export_onnx", "export_quantized", "pooled_model"]

PROTOBUF_LIMIT = 2**31 - 2**20
"""Protocol buffers end at 2 GiB, and so does a model kept in one file."""


def export_onnx(
    spec: ModelSpec, output: Path, *, progress: Callable[[str], None] | None = None
) -> Path:
    """Write a BERT-family model as ONNX, with the input and output names of the earlier system.

    ``output`` gets ``model.onnx`` (standard operators, opset 17), ``tokenizer.json`` (with the
    model's own truncation) and ``reddit_assets.json``, which carries the fingerprint of the
    weights: a worker on the export and one on the weights make the same tree. Each file appears
    whole; until the last one is there the folder is refused as incomplete. The same weights give
    the same bytes.

    Args:
        spec: a model with weights on this host.
        output: folder, made if need be.
        progress: called with a sentence before each step.

    Returns:
        ``output``.

    Raises:
        BackendUnavailableError: the model is not of the BERT family, or larger than 2 GiB.
        WriteError: the folder cannot be written.
    """
    say = progress or (lambda sentence: None)
    say(f"Reading the weights of {spec.name}")
    weights = load_bert(spec)
    say(f"Building the graph: {len(weights.layers)} layers of {weights.hidden}")
    serialized = _serialize(build_encoder(weights), spec)
    tokenizer = json.loads(spec.tokenizer_file.read_text(encoding="utf-8"))
    tokenizer["padding"] = None
    tokenizer["truncation"] = {
        "direction": "Right",
        "max_length": spec.max_tokens,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    output = Path(output)
    say(f"Writing {output}")
    try:
        output.mkdir(parents=True, exist_ok=True)
        model_tmp = _write_tmp(output / "model.onnx", serialized)
        tokenizer_tmp = _write_tmp(
            output / "tokenizer.json", json.dumps(tokenizer, ensure_ascii=False).encode()
        )
        sidecar = {
            **spec.describe(),
            "onnx_sha256": file_digest(model_tmp),
            "tokenizer_sha256": tokenizer_digest(tokenizer_tmp),
        }
        sidecar_tmp = _write_tmp(output / SIDECAR, json.dumps(sidecar, indent=2).encode())
        # The sidecar first: from now on readers refuse the folder until the rest agrees with it.
        for temporary in (sidecar_tmp, tokenizer_tmp, model_tmp):
            os.replace(temporary, temporary.with_suffix(""))
    except OSError as error:
        raise WriteError(
            f"The export to {output} could not be written: {error}.",
            hint="Choose a folder with space and write permission.",
        ) from None
    return output


def export_quantized(folder: Path) -> Path:
    """Write ``model_quantized.onnx`` (dynamic int8) beside the export, and return its path.

    For other programs: its vectors are not those of ``model.onnx``, and our workers never use it.

    Raises:
        BackendUnavailableError: onnxruntime is missing.
        WriteError: the folder cannot be written.
    """
    from reddit_assets.engines.embedding.backends.onnx_backend import quantized

    path = folder / "model_quantized.onnx"
    try:
        os.replace(_write_tmp(path, quantized((folder / "model.onnx").read_bytes())), path)
    except ImportError as error:
        raise BackendUnavailableError(
            f"Quantizing needs onnxruntime ({error}).",
            hint="Install it: pip install 'reddit-assets[onnx]'.",
        ) from None
    except OSError as error:
        raise WriteError(
            f"{path} could not be written: {error}.",
            hint="Choose a folder with space and write permission.",
        ) from None
    return path


def pooled_model(spec: ModelSpec) -> bytes:
    """The model as serialized ONNX with pooling and normalisation inside: what backends load.

    Taken from ``model.onnx`` where there is one, and else built from the weights in memory.

    Raises:
        BackendUnavailableError: there is neither, or its pooling is not mean or cls.
    """
    if spec.pooling not in ("mean", "cls"):
        raise BackendUnavailableError(
            f"The pooling {spec.pooling!r} of {spec.name} is only known to the torch backend.",
            hint="Use --backend torch.",
        )
    if spec.onnx_file is not None:
        import onnx

        model = onnx.load(str(spec.onnx_file))
    else:
        model = build_encoder(load_bert(spec))
    return _serialize(append_pooling(model, pooling=spec.pooling, normalize=spec.normalize), spec)


def _serialize(model: Any, spec: ModelSpec) -> bytes:
    size = model.ByteSize()
    if not 0 <= size < PROTOBUF_LIMIT:
        raise BackendUnavailableError(
            f"{spec.name} takes {size / 2**30:.1f} GiB, more than one ONNX file can hold.",
            hint="Use --backend torch.",
        )
    return model.SerializeToString(deterministic=True)


def _write_tmp(path: Path, content: bytes) -> Path:
    temporary = path.with_suffix(path.suffix + ".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return temporary
