"""Texts to vectors: models, tokenizer, batches, backends, and conformance.

May import ``engines.host``, ``engines.vectors``, ``settings`` and ``errors``; never clustering,
the ledger, the worker or Dagster.
Light: torch, onnxruntime and openvino load only where a backend is opened.
"""

from __future__ import annotations

__all__: list[str] = []
