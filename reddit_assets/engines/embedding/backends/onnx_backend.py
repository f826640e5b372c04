"""onnxruntime on the CPU: the worker that needs no torch."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from reddit_assets.engines.embedding.backends.base import Backend, Batch
from reddit_assets.engines.embedding.export import pooled_model
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.errors import BackendUnavailableError

__all__ = ["OnnxBackend"]


class OnnxBackend(Backend):
    """onnxruntime, fp32, or int8 where it is asked for by name.

    One session with one thread per operator, called from as many threads as there are cores:
    whole batches side by side need no synchronisation inside a layer.
    """

    name: ClassVar[str] = "onnx"

    def __init__(self, spec: ModelSpec, *, precision: str = "fp32", threads: int = 1) -> None:
        """Load the model.

        Raises:
            BackendUnavailableError: onnxruntime is missing, or the precision is not its own.
        """
        if precision not in ("fp32", "int8"):
            raise BackendUnavailableError(
                f"The onnx backend computes in fp32 or int8, not {precision}.",
                hint="Use --precision fp32, or --backend openvino or torch for bf16.",
            )
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            raise BackendUnavailableError(
                f"The onnx backend needs onnx and onnxruntime ({error}).",
                hint="Install them: pip install 'reddit-assets[onnx]'.",
            ) from None
        model = pooled_model(spec)
        if precision == "int8":
            model = quantized(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        # Every batch has another shape: remembering the memory plan of each only grows.
        options.enable_mem_pattern = False
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self._inputs = {entry.name for entry in self._session.get_inputs()}
        self.precision = precision
        self.device = "cpu"
        self.streams = threads
        self.max_batch_tokens = 512
        self._versions = {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__}

    def forward(self, batch: Batch) -> np.ndarray:
        """See :meth:`Backend.forward`."""
        ids, mask = batch.padded(np.int64)
        feeds = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._inputs:
            feeds["token_type_ids"] = np.zeros_like(ids)
        return self._session.run(None, feeds)[0]

    def describe(self) -> dict[str, Any]:
        """See :meth:`Backend.describe`."""
        return {
            "backend": self.name,
            "precision": self.precision,
            "device": self.device,
            "threads": self.streams,
            "versions": self._versions,
        }


def quantized(model: bytes) -> bytes:
    """Dynamic int8: weights quantized per channel, activations at run time."""
    import logging
    import tempfile
    from pathlib import Path

    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(model)
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # The quantizer says a line per tensor on the root logger.
        try:
            quantize_dynamic(
                source,
                target,
                weight_type=QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=["MatMul"],
            )
        finally:
            root.setLevel(level)
        return target.read_bytes()
