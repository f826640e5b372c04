"""Every backend and precision that runs here against sentence-transformers fp32, on all posts.

    python benchmarks/embedding_conformance.py [--posts N] [--data FOLDER] [--keep FOLDER]

Cosines: minimum, mean and first percentile; and the same for results in another order, in other
batches and alone, which must not matter. Writes ``results/embedding_conformance.csv``. No time
is measured. With ``--keep``, what was computed is kept, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from embedding_common import MODEL, data_name, host_facts, posts, show, write_csv

from reddit_assets.engines.embedding.conformance import BOUNDS, cosines
from reddit_assets.engines.embedding.engine import Embedder
from reddit_assets.engines.embedding.model import find_model
from reddit_assets.engines.embedding.select import Choice, make_backend
from reddit_assets.engines.host import available_cores, cpu_has_bf16

CHOICES = (
    ("onnx", "fp32"),
    ("openvino", "fp32"),
    ("torch", "fp32"),
    ("openvino", "bf16"),
    ("torch", "bf16"),
    ("onnx", "int8"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    texts = posts(options.data, options.posts)
    spec = find_model(MODEL, Path("models"))
    facts = {**host_facts(), "data": data_name(options.data)}
    facts.pop("load_before")
    reference = exact(spec, texts, options.keep)
    rows = []
    for backend, precision in CHOICES:
        if precision == "bf16" and not cpu_has_bf16():
            continue
        kept = options.keep and options.keep / f"{backend}-{precision}.json"
        if kept and kept.exists():
            rows.append(json.loads(kept.read_text()))
            continue
        opened = make_backend(spec, Choice(backend, "cpu", precision), threads=available_cores())
        with Embedder(spec, opened) as embedder:
            rows.append(measure(embedder, texts, reference))
        if kept:
            kept.write_text(json.dumps(rows[-1]))
        print(rows[-1], flush=True)
    show(rows, "Cosine to sentence-transformers fp32")
    print(write_csv("embedding_conformance", rows, facts))


def exact(spec: Any, texts: pa.Array, keep: Path | None) -> np.ndarray:
    """Vectors of sentence-transformers, in parts of 400 posts that can be kept."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(available_cores())
    model = SentenceTransformer(str(spec.weights_dir), device="cpu")
    parts = []
    for start in range(0, len(texts), 400):
        kept = keep and keep / f"reference-{start}.npy"
        if kept and kept.exists():
            parts.append(np.load(kept))
            continue
        part = texts.slice(start, 400).to_pylist()
        parts.append(model.encode(part, batch_size=32, show_progress_bar=False))
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, parts[-1])
    return np.concatenate(parts)


def measure(embedder: Embedder, texts: pa.Array, reference: np.ndarray) -> dict[str, Any]:
    vectors = embedder.encode(texts)
    similar = cosines(vectors, reference)
    some = np.random.default_rng(0).permutation(len(texts))[:600]
    embedder.max_batch_tokens = 300
    shuffled = cosines(embedder.encode(texts.take(pa.array(some))), vectors[some])
    alone = [embedder.encode(texts.slice(int(i), 1))[0] for i in some[:100]]
    bound = BOUNDS[embedder.backend.precision]
    return {
        "backend": embedder.backend.name,
        "precision": embedder.backend.precision,
        "posts": len(texts),
        "min_cosine": f"{similar.min():.7f}",
        "percentile_1": f"{np.percentile(similar, 1):.7f}",
        "mean_cosine": f"{similar.mean():.7f}",
        "bound": bound,
        "conformant": bool(similar.min() >= bound),
        "max_length_error": f"{np.abs(np.linalg.norm(vectors, axis=1) - 1).max():.1e}",
        "min_cosine_other_batches": f"{shuffled.min():.7f}",
        "min_cosine_alone": f"{cosines(np.stack(alone), vectors[some[:100]]).min():.7f}",
    }


if __name__ == "__main__":
    main()
