"""Texts to vectors: models, tokenizer, batches, backends, and conformance.

May import ``settings`` and ``errors``; never ``clustering``, ``ledger``, ``worker`` or Dagster.
Light: torch, onnxruntime and openvino load only where a backend is opened.
"""

from __future__ import annotations

__all__: list[str] = []
