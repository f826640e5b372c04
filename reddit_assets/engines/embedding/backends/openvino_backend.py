"""OpenVINO on the CPU: the fastest on processors that multiply bfloat16."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from reddit_assets.engines.embedding.backends.base import Backend, Batch
from reddit_assets.engines.embedding.export import pooled_model
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.engines.host import cpu_has_bf16
from reddit_assets.errors import BackendUnavailableError

__all__ = ["OpenVinoBackend"]


class OpenVinoBackend(Backend):
    """OpenVINO in fp32, or in bf16 where the processor has it: one stream per core."""

    name: ClassVar[str] = "openvino"

    def __init__(self, spec: ModelSpec, *, precision: str = "fp32", threads: int = 1) -> None:
        """Load the model.

        Raises:
            BackendUnavailableError: OpenVINO is missing, or the processor lacks the precision.
        """
        if precision not in ("fp32", "bf16"):
            raise BackendUnavailableError(
                f"The openvino backend computes in fp32 or bf16, not {precision}.",
                hint="Use --precision auto.",
            )
        if precision == "bf16" and not cpu_has_bf16():
            raise BackendUnavailableError(
                "This processor has no bfloat16 arithmetic.", hint="Use --precision fp32."
            )
        try:
            import openvino
        except ImportError as error:
            raise BackendUnavailableError(
                f"The openvino backend needs openvino and onnx ({error}).",
                hint="Install them: pip install 'reddit-assets[openvino]'.",
            ) from None
        core = openvino.Core()
        model = core.read_model(pooled_model(spec), b"")
        self._compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": threads,
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._inputs = {port.any_name for port in self._compiled.inputs}
        self._free: list[Any] = [self._compiled.create_infer_request() for _ in range(threads)]
        self.precision = precision
        self.device = "cpu"
        self.streams = threads
        self.max_batch_tokens = 1_024
        self._versions = {"openvino": openvino.__version__}

    def forward(self, batch: Batch) -> np.ndarray:
        """See :meth:`Backend.forward`."""
        ids, mask = batch.padded(np.int64)
        feeds = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._inputs:
            feeds["token_type_ids"] = np.zeros_like(ids)
        # list.pop and append are atomic: each caller holds a request of its own.
        request = self._free.pop() if self._free else self._compiled.create_infer_request()
        try:
            request.infer(feeds, share_inputs=True)
            return np.array(request.get_output_tensor(0).data, np.float32)
        finally:
            self._free.append(request)

    def describe(self) -> dict[str, Any]:
        """See :meth:`Backend.describe`."""
        return {
            "backend": self.name,
            "precision": self.precision,
            "device": self.device,
            "threads": self.streams,
            "versions": self._versions,
        }
