"""References of models without a committed one: made on the spot, in fp32, and kept.

What sentence-transformers makes of the reference texts, with the model's own prompt, is what a
backend must make. It is computed once per host and account, in a process of its own, so that a
worker without torch stays one; where sentence-transformers is not installed, there is no such
reference, and a backend is compared with itself in fp32.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.engines.embedding.reference import Reference, golden
from reddit_assets.engines.host import private_folder
from reddit_assets.errors import RedditAssetsError, first_line

__all__ = ["computed_reference"]

log = logging.getLogger(__name__)

PATIENCE = 600.0
"""Seconds after which sentence-transformers is given up."""


def computed_reference(spec: ModelSpec) -> Reference | None:
    """The kept reference of a model, else a new one; ``None`` where none can be made."""
    try:
        path = private_folder("references") / f"{spec.fingerprint}.parquet"
    except RedditAssetsError:
        return None
    return _read(path, spec) or (_read(path, spec) if _made(path, spec) else None)


def _read(path: Path, spec: ModelSpec) -> Reference | None:
    texts = golden().texts
    try:
        table = pq.read_table(path)
        vectors = np.stack(table["vector"].to_numpy()).astype(np.float32)
        kept = table["text"].combine_chunks().cast(pa.large_string())
        if not kept.equals(texts) or vectors.shape != (len(texts), spec.dimension):
            return None  # Of another version's texts.
        return Reference(spec.fingerprint, texts, table["tokens"].to_numpy(), vectors)
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return None


def _made(path: Path, spec: ModelSpec) -> bool:
    if spec.weights_dir is None or find_spec("sentence_transformers") is None:
        return False
    log.info("Making the fp32 reference of %s with sentence-transformers, once.", spec.name)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        subprocess.run(
            [sys.executable, "-m", __name__],
            input=pickle.dumps((spec, temporary)),
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
        os.replace(temporary, path)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or b""
        last = said.decode(errors="replace").strip().splitlines()[-1:]
        log.warning("No reference of %s: %s %s", spec.name, first_line(error), *last or [""])
        temporary.unlink(missing_ok=True)
        return False
    return True


def _compute(spec: ModelSpec, path: Path) -> None:
    """With sentence-transformers alone: tokens, vectors, truncation."""
    from sentence_transformers import SentenceTransformer

    texts = golden().texts.to_pylist()
    model = SentenceTransformer(str(spec.weights_dir), device="cpu").float()
    vectors = model.encode(
        texts,
        batch_size=1,
        show_progress_bar=False,
        truncate_dim=spec.dimension if spec.truncated else None,
        normalize_embeddings=spec.truncated and spec.normalize,
    )
    tokens = [int(model.tokenize([spec.prompt + t])["attention_mask"].sum()) for t in texts]
    rows = list(np.asarray(vectors, np.float32))
    kinds = pa.list_(pa.float32())
    table = pa.table({"text": texts, "tokens": tokens, "vector": pa.array(rows, kinds)})
    pq.write_table(table, path, compression="zstd")


if __name__ == "__main__":
    _compute(*pickle.loads(sys.stdin.buffer.read()))
