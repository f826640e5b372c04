"""BERT-family encoder in torch without padding: all tokens of a batch end to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import torch
import torch.nn.functional as functional

from reddit_assets.engines.embedding.weights import BertWeights

__all__ = ["FlatBert", "Lengths"]

Tensor = torch.Tensor


@dataclass(frozen=True)
class Lengths:
    """Where each text of a batch lies among its tokens.

    Attributes:
        on_host: int, shape (n,), on the host.
        cu_seqlens: int32 on the device, shape (n + 1,).
        lengths: int64 on the device, shape (n,).
        longest: tokens of the longest text.
    """

    on_host: np.ndarray
    cu_seqlens: Tensor
    lengths: Tensor
    longest: int

    @staticmethod
    def of(lengths: np.ndarray, device: torch.device) -> Lengths:
        """From int lengths, shape (n,), of texts in the order of their tokens."""
        cu_seqlens = np.zeros(len(lengths) + 1, np.int32)
        np.cumsum(lengths, out=cu_seqlens[1:])
        moved = _moved(torch.from_numpy(cu_seqlens), device)
        return Lengths(lengths, moved, moved.diff().long(), int(lengths.max(initial=0)))

    @cached_property
    def groups(self) -> list[tuple[int, int, int]]:
        """(First token, texts, tokens per text) of each run of equally long texts."""
        ends = np.cumsum(self.on_host)
        starts = np.flatnonzero(np.diff(self.on_host, prepend=-1))
        counts = np.diff(np.append(starts, len(self.on_host)))
        return [
            (int(ends[start] - self.on_host[start]), int(count), int(self.on_host[start]))
            for start, count in zip(starts, counts, strict=True)
        ]


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class FlatBert:
    """The encoder's weights on a device, and its forward pass over unpadded tokens.

    Attention is computed by the first of these that works on the device: ``varlen`` (variable
    length flash attention), ``nested`` (jagged nested tensors), and ``groups``: one scaled dot
    product attention per run of equally long texts, which needs nothing special. Batches are
    sorted by length, so on a CPU the runs are few and ``groups`` wastes nothing.
    """

    def __init__(
        self,
        weights: BertWeights,
        *,
        device: torch.device,
        dtype: torch.dtype,
        pooling: str,
        normalize: bool,
        attention: str | None = None,
    ) -> None:
        """Move the weights to the device.

        Args:
            weights: of the model.
            device: where to compute.
            dtype: of weights and activations; sums inside a norm are float32 in any case.
            pooling: ``mean`` or ``cls``.
            normalize: scale vectors to length one.
            attention: ``varlen``, ``nested`` or ``groups``; ``None`` takes the first that works.
        """

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(device=device, dtype=dtype)

        def pair(arrays: tuple[np.ndarray, np.ndarray]) -> tuple[Tensor, Tensor]:
            return tensor(arrays[0]), tensor(arrays[1])

        self.device, self.dtype = device, dtype
        self.pooling, self.normalize = pooling, normalize
        self.heads, self.hidden, self.epsilon = weights.heads, weights.hidden, weights.epsilon
        self._words = tensor(weights.words)
        # All tokens have type 0 here: its row is added to the positions once and for all.
        self._positions = tensor(weights.positions + weights.types[0])
        self._norm = pair(weights.embedding_norm)
        self._layers = [
            (
                (tensor(layer.qkv_weight), tensor(layer.qkv_bias)),
                (tensor(layer.out_weight), tensor(layer.out_bias)),
                pair(layer.attention_norm),
                (tensor(layer.up_weight), tensor(layer.up_bias)),
                (tensor(layer.down_weight), tensor(layer.down_bias)),
                pair(layer.output_norm),
            )
            for layer in weights.layers
        ]
        self.attention, self._attend = self._choose_attention(attention)

    def __call__(self, ids: Tensor, lengths: Lengths) -> Tensor:
        """Vectors of a batch: float32 on the device, shape (n, hidden).

        Args:
            ids: token ids end to end, integer on the device, shape (tokens,).
            lengths: of the texts.
        """
        starts = torch.repeat_interleave(
            lengths.cu_seqlens[:-1], lengths.lengths, output_size=len(ids)
        )
        within = torch.arange(len(ids), device=self.device, dtype=starts.dtype) - starts
        x = self._words.index_select(0, ids) + self._positions.index_select(0, within)
        x = self._layer_norm(x, self._norm)
        for qkv, out, attention_norm, up, down, output_norm in self._layers:
            y = self._attend(functional.linear(x, *qkv), lengths)
            x = self._layer_norm(functional.linear(y, *out).add_(x), attention_norm)
            y = functional.gelu(functional.linear(x, *up))
            x = self._layer_norm(functional.linear(y, *down).add_(x), output_norm)
        pooled = self._pool(x, lengths)
        return functional.normalize(pooled, dim=1) if self.normalize else pooled

    def _layer_norm(self, x: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
        return functional.layer_norm(x, (self.hidden,), norm[0], norm[1], self.epsilon)

    def _pool(self, x: Tensor, lengths: Lengths) -> Tensor:
        if self.pooling == "cls":
            return x.index_select(0, lengths.cu_seqlens[:-1]).float()
        if self.attention == "groups":
            means = [
                x[start : start + count * length].view(count, length, -1).float().mean(1)
                for start, count, length in lengths.groups
            ]
            return torch.cat(means)
        return torch.segment_reduce(x.float(), "mean", lengths=lengths.lengths, axis=0)

    def _choose_attention(self, wanted: str | None) -> tuple[str, Callable]:
        ways: dict[str, Callable] = {
            "varlen": self._varlen,
            "nested": self._nested,
            "groups": self._groups,
        }
        if wanted is not None:
            return wanted, ways[wanted]
        if self.device.type == "cuda":
            trial = Lengths.of(np.array([5, 3]), self.device)
            qkv = torch.zeros(8, 3 * self.hidden, device=self.device, dtype=self.dtype)
            for name in ("varlen", "nested"):
                try:
                    ways[name](qkv, trial)
                    torch.cuda.synchronize(self.device)
                except (RuntimeError, ImportError, NotImplementedError, TypeError, ValueError):
                    continue  # Not on this GPU, in this precision, or in this torch.
                return name, ways[name]
        return "groups", self._groups

    def _groups(self, qkv: Tensor, lengths: Lengths) -> Tensor:
        width = self.hidden // self.heads
        result = torch.empty(len(qkv), self.hidden, device=qkv.device, dtype=qkv.dtype)
        for start, count, length in lengths.groups:
            stop = start + count * length
            parts = qkv[start:stop].view(count, length, 3, self.heads, width)
            query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
            y = functional.scaled_dot_product_attention(query, key, value)
            result[start:stop].view(count, length, self.heads, width).copy_(y.transpose(1, 2))
        return result

    def _varlen(self, qkv: Tensor, lengths: Lengths) -> Tensor:
        from torch.nn.attention.varlen import varlen_attn

        parts = qkv.view(len(qkv), 3, self.heads, -1)
        query, key, value = parts.unbind(1)  # Strided views: the kernel reads them in place.
        y = varlen_attn(
            query,
            key,
            value,
            lengths.cu_seqlens,
            lengths.cu_seqlens,
            lengths.longest,
            lengths.longest,
        )
        return cast(Tensor, y).reshape(len(qkv), self.hidden)

    def _nested(self, qkv: Tensor, lengths: Lengths) -> Tensor:
        parts = qkv.view(len(qkv), 3, self.heads, -1)
        cu_seqlens = lengths.cu_seqlens.long()
        query, key, value = (
            torch.nested.nested_tensor_from_jagged(
                part.contiguous(), cu_seqlens, min_seqlen=1, max_seqlen=lengths.longest
            ).transpose(1, 2)
            for part in parts.unbind(1)
        )
        y = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        return y.values().reshape(len(qkv), self.hidden)
