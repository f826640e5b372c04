"""What the clustering benchmarks share: real vectors, the host's description, CSV rows."""

from __future__ import annotations

import argparse
import csv
import os
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from embedding_common import MODEL, REPOSITORY, RESULTS, chain_files, posts
from numpy.typing import NDArray

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.provenance import cluster_inputs
from reddit_assets.engines.host import available_cores, cpu_name
from reddit_assets.tasks.inputs import open_inputs

__all__ = ["RESULTS", "arguments", "jittered", "load", "planted", "surroundings", "timed", "write"]


def arguments(description: str) -> argparse.ArgumentParser:
    """The flags of every clustering benchmark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--root",
        type=Path,
        help="Folder that holds embeddings/; without it the chain files of embedding_common are "
        "embedded (fp32) and kept in the temporary folder.",
    )
    parser.add_argument("--out", type=Path, help="CSV to write (default: benchmarks/results/).")
    return parser


def load(root: Path | None) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """The vectors of all files and the subreddit of each row, files in key order."""
    if root is None:
        return _embedded()
    layout = Layout.of(root)
    paths = sorted(layout.embeddings.glob("**/*.parquet"))
    keys = sorted(layout.key_of(path) for path in paths)
    files = open_inputs(cluster_inputs(layout, keys), keys)
    names = np.repeat([key.rsplit("/", 2)[-2] for key in files.keys], files.rows)
    return files.vectors(), names


def _embedded() -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """The chain files' posts, embedded once."""
    from reddit_assets.engines.embedding.model import find_model
    from reddit_assets.engines.embedding.select import open_embedder

    paths = chain_files()
    names = np.concatenate(
        [np.repeat([path.parent.name], pq.read_metadata(path).num_rows) for path in paths]
    )
    store = Path(tempfile.gettempdir()) / f"reddit_assets_vectors_{len(names)}.npy"
    if not store.exists():
        spec = find_model(MODEL, REPOSITORY / "models")
        with open_embedder(spec, device="cpu", precision="fp32") as embedder:
            np.save(store, embedder.encode(posts()))
    return np.load(store), names


def jittered(
    vectors: NDArray[np.float32], rows: int, *, spread: float = 0.02, seed: int = 0
) -> NDArray[np.float32]:
    """Real vectors drawn with repetition, each with Gaussian noise, back to unit length."""
    rng = np.random.default_rng(seed)
    result = np.empty((rows, vectors.shape[1]), dtype=np.float32)
    for start in range(0, rows, 50_000):
        part = vectors[rng.integers(0, len(vectors), min(50_000, rows - start))]
        part = part + rng.standard_normal(part.shape, dtype=np.float32) * spread
        result[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return result


def planted(
    vectors: NDArray[np.float32],
    rows: int,
    *,
    size: int = 500,
    share: float = 0.2,
    spread: float = 0.05,
    tight: float = 0.03,
    seed: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Jittered rows, of which a share are groups of ``size`` around one real vector each.

    Args:
        spread, tight: standard deviation of the jitter per dimension, of other rows and of those
            in groups.

    Returns:
        float32 (rows, d), and the group of each row, int64, −1 for none; in random order.
    """
    rng = np.random.default_rng(seed)
    groups = min(int(rows * share / size), len(vectors))
    middles = rng.choice(len(vectors), groups, replace=False)
    others = rows - groups * size
    source = np.concatenate([np.repeat(middles, size), rng.integers(0, len(vectors), others)])
    group = np.concatenate([np.repeat(np.arange(groups), size), np.full(others, -1)])
    order = rng.permutation(rows)
    source, group = source[order], group[order]
    result = np.empty((rows, vectors.shape[1]), dtype=np.float32)
    for start in range(0, rows, 50_000):
        part = vectors[source[start : start + 50_000]]
        width = np.where(group[start : start + 50_000] >= 0, tight, spread).astype(np.float32)
        part = part + rng.standard_normal(part.shape, dtype=np.float32) * width[:, None]
        result[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return result, group


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result and the seconds it took."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def surroundings() -> dict[str, str]:
    """Columns that every row carries: when, on what, with which versions, how busy."""
    packages = ("numpy", "hdbscan", "evoc", "umap-learn", "numba")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": cpu_name(),
        "cores": str(available_cores()),
        "python": platform.python_version(),
        "versions": " ".join(f"{name}={version(name)}" for name in packages),
        "load_before": f"{os.getloadavg()[0]:.2f}",
    }


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV (columns of all rows, in order of appearance) and print them."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    print(path.read_text())
