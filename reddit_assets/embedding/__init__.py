"""Texts to vectors: models, tokenizer, batches, backends, conformance and the file pipeline.

May import ``catalog``, ``settings`` and ``errors``; never ``clustering``, ``jobqueue``, ``worker``
or Dagster. Light: torch, onnxruntime and openvino load only where a backend is opened.
"""

from __future__ import annotations

__all__: list[str] = []
