"""What a backend is: token ids in, pooled and normalised vectors out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from reddit_assets.engines.embedding.tokenizer import TokenTable

__all__ = ["Backend", "Batch"]


@dataclass(frozen=True)
class Batch:
    """Texts that are computed together, longest first.

    Attributes:
        tokens: their token ids, end to end.
        pad_id: id of the padding token.
    """

    tokens: TokenTable
    pad_id: int = 0

    def __len__(self) -> int:
        return len(self.tokens)

    def padded(self, dtype: Any = np.int64, *, multiple: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Ids and attention mask, each of ``dtype`` and shape (n, longest text).

        Args:
            dtype: integer type of both.
            multiple: round the width up to a multiple of this.
        """
        lengths = self.tokens.lengths
        width = int(lengths.max(initial=1))
        width = -(-width // multiple) * multiple
        mask = np.arange(width) < lengths[:, None]
        ids = np.full(mask.shape, self.pad_id, dtype)
        first, last = self.tokens.cu_seqlens[0], self.tokens.cu_seqlens[-1]
        ids[mask] = self.tokens.ids[first:last]
        return ids, mask.astype(dtype)


class Backend(ABC):
    """Computes batches. ``forward`` may be called from as many threads as ``streams`` says.

    Attributes:
        name: ``torch``, ``onnx`` or ``openvino``.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        device: ``cpu``, ``mps`` or ``cuda:0``; several with commas between them.
        padded: whether a batch costs its number of texts times its longest one.
        streams: batches to have in flight for the best rate.
        max_batch_tokens: the best measured number of tokens in a batch.
        window_rows: rows to sort by length together: enough to keep the device busy.
    """

    name: ClassVar[str]
    precision: str
    device: str
    padded: bool = True
    streams: int = 1
    max_batch_tokens: int = 512
    window_rows: int = 20_000

    @abstractmethod
    def forward(self, batch: Batch) -> np.ndarray:
        """Vectors of a batch: float32, shape (n, dimension), pooled, normalised as the model is.

        Raises:
            RedditAssetsError: the device failed; the message says what to do.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Backend, precision, device, threads and versions: what an output records."""

    def close(self) -> None:  # noqa: B027 - most have nothing to give back
        """Give back threads and memory. The backend cannot be used afterwards."""
