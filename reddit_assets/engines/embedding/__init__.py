"""Texts to vectors: models, tokenizer, batches, backends, and conformance.

May import ``engines.host``, ``engines.vectors``, ``settings`` and ``errors``; never clustering,
the ledger, the worker or Dagster.
Light: torch, onnxruntime and openvino load only where a backend is opened.
"""

from __future__ import annotations

import os

# ONNX Runtime's own builds send to their maker, from its import on, unless this is set before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__: list[str] = []
