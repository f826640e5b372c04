"""The committed reference: texts of all kinds with the fp32 vectors of the real model.

``all-MiniLM-L6-v2.parquet`` has the columns ``text``, ``tokens`` and ``vector``; its metadata
names the model's fingerprint and the versions that made it (``make.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["Reference", "golden"]

GOLDEN = "all-MiniLM-L6-v2.parquet"


@dataclass(frozen=True)
class Reference:
    """Texts with what an exact backend makes of them.

    Attributes:
        fingerprint: of the model.
        texts: large_string array, n texts.
        tokens: tokens of each as the model sees it, int64, shape (n,).
        vectors: float32, shape (n, dimension).
    """

    fingerprint: str
    texts: pa.Array
    tokens: np.ndarray
    vectors: np.ndarray


@lru_cache(maxsize=1)
def golden() -> Reference:
    """The committed reference of all-MiniLM-L6-v2, made by sentence-transformers in fp32."""
    with resources.as_file(resources.files(__name__) / GOLDEN) as path:
        table = pq.read_table(path)
    vectors = table["vector"].combine_chunks()
    return Reference(
        fingerprint=table.schema.metadata[b"fingerprint"].decode(),
        texts=table["text"].combine_chunks().cast(pa.large_string()),
        tokens=table["tokens"].to_numpy(),
        vectors=vectors.flatten().to_numpy().reshape(len(table), -1),
    )
