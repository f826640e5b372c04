"""Vectors to the few dimensions that HDBSCAN sees, and to the two of the map."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.compiled import numba
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.engines.clustering.training import train
from reddit_assets.engines.host import available_cores

__all__ = ["MIN_REDUCED_ROWS", "compute_threads", "node_reduction", "plane", "umap_reduction"]

#: Fewer rows than this are clustered in the full space: there is nothing to reduce.
MIN_REDUCED_ROWS = 64
#: Fewer rows than this are not worth a second thread.
PARALLEL_ROWS = 4_000
#: Training epochs of the node embedding: 80 from 10,000 rows on (evoc's default is 50), up to 200
#: for fewer, where they cost nothing; and of the map.
EPOCHS, MOST_EPOCHS = 80, 200
MAP_EPOCHS = 50
#: Standard deviation of the starting layout: wide enough for clusters to pass each other.
START_SPREAD = 1.0
#: Rows that the principal components are computed from.
PRINCIPAL_ROWS = 65_536


def _busy(cores: int) -> bool:
    """Whether others want these cores as well: a thread that waits for one holds up all."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > 1.25 * cores


@contextmanager
def compute_threads(threads: int | None, rows: int = PARALLEL_ROWS) -> Iterator[None]:
    """Hold numba to the number of threads asked for; one where the rows are few."""
    before = numba.get_num_threads()
    wanted = (threads or available_cores()) if rows >= PARALLEL_ROWS else 1
    if threads is None and _busy(wanted):
        wanted = 1
    most = int(getattr(numba.config, "NUMBA_NUM_THREADS", before))
    numba.set_num_threads(max(1, min(wanted, most)))
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _principal(points: NDArray[np.float32], components: int) -> NDArray[np.float32]:
    """The first principal components, float32 (n, components), from a sample of the rows.

    Not scikit-learn's PCA: that copies the rows to float64 and gives other last bits for another
    number of threads; here sums go by blocks, and the vectors are held once.
    """
    n, dimensions = points.shape
    mean = points[:PRINCIPAL_ROWS].mean(axis=0, dtype=np.float64)
    scatter = np.zeros((dimensions, dimensions))
    for at in range(0, min(n, PRINCIPAL_ROWS), 8_192):
        part = points[at : min(at + 8_192, PRINCIPAL_ROWS)] - mean.astype(np.float32)
        scatter += part.T @ part
    _, vectors = np.linalg.eigh(scatter)
    axes = vectors[:, ::-1][:, :components].astype(np.float32)
    result = np.zeros((n, components), dtype=np.float32)
    for at in range(0, n, 8_192):
        part = points[at : at + 8_192] - mean.astype(np.float32)
        result[at : at + 8_192, : axes.shape[1]] = part @ axes
    # Signs are arbitrary; training does not care, but the map should not flip from night to night.
    return result * np.where((result.astype(np.float64) ** 3).sum(axis=0) < 0, -1, 1).astype("f4")


def _spread(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """A starting layout: the points at a standard deviation of :data:`START_SPREAD`."""
    return (points * (START_SPREAD / (float(points.std()) or 1.0))).astype(np.float32)


def node_reduction(
    vectors: NDArray[np.float32], fuzzy: Any, hashes: NDArray[np.uint64], params: ClusterParams
) -> NDArray[np.float32]:
    """A node embedding of the neighbour graph, float32 (n, n_components).

    Starts from the principal components and trains as :mod:`.training` says.

    Args:
        vectors: float32 (n, d), n ≥ :data:`MIN_REDUCED_ROWS`, in canonical order.
        fuzzy: the CSR array of :func:`~reddit_assets.engines.clustering.graph.fuzzy_graph`.
        hashes: uint64 (n,), of the rows, ascending.
        params: resolved parameters.
    """
    return train(
        fuzzy,
        _spread(_principal(vectors, params.n_components or 6)),
        hashes,
        epochs=min(MOST_EPOCHS, max(EPOCHS, EPOCHS * 10_000 // len(vectors))),
        noise_level=params.noise_level,
        seed=params.seed,
    )


def umap_reduction(vectors: NDArray[np.float32], params: ClusterParams) -> NDArray[np.float32]:
    """The earlier system's reduction: UMAP with cosine distances, float32 (n, n_components)."""
    import warnings

    from umap import UMAP

    reducer = UMAP(
        n_components=params.n_components or 15,
        n_neighbors=min(params.n_neighbors, len(vectors) - 1),
        metric="cosine",
        random_state=params.seed,
    )
    with warnings.catch_warnings():
        # It says that a seed means one thread, which is wanted.
        warnings.filterwarnings("ignore", message="n_jobs value")
        return np.ascontiguousarray(reducer.fit_transform(vectors), dtype=np.float32)


def plane(
    space: NDArray[np.float32],
    fuzzy: Any | None,
    hashes: NDArray[np.uint64],
    params: ClusterParams,
) -> NDArray[np.float32]:
    """Coordinates for the map, float32 (n, 2).

    The principal plane of ``space`` (the reduced space, or the vectors), then, where there is a
    graph, the node embedding's training in two dimensions from there.
    """
    if len(space) < 2:
        return np.zeros((len(space), 2), dtype=np.float32)
    flat = _spread(_principal(space, 2))
    if fuzzy is None:
        return flat
    return train(
        fuzzy,
        flat,
        hashes,
        epochs=MAP_EPOCHS,
        noise_level=params.noise_level,
        seed=params.seed,
    )
