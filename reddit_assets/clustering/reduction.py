"""Vectors to the few dimensions that HDBSCAN sees, and to the two of the map."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reddit_assets.clustering.blocks import worker_threads
from reddit_assets.clustering.params import ClusterParams

__all__ = ["MIN_REDUCED_ROWS", "compute_threads", "node_reduction", "plane", "umap_reduction"]

#: Fewer rows than this are clustered in the full space: there is nothing to reduce.
MIN_REDUCED_ROWS = 64
#: Fewer rows than this are not worth a second thread.
PARALLEL_ROWS = 4_000
#: Training epochs of the node embedding: 80 from 10,000 rows on (evoc's default is 50), up to 200
#: for fewer, where they cost nothing; and of the map.
EPOCHS, MOST_EPOCHS = 80, 200
MAP_EPOCHS = 50


def _busy(cores: int) -> bool:
    """Whether others want these cores as well: a thread that waits for one holds up all."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > 1.25 * cores


@contextmanager
def compute_threads(threads: int | None, rows: int = PARALLEL_ROWS) -> Iterator[None]:
    """Hold numba to the number of threads asked for; one where the rows are few."""
    # On a host with other work, OpenMP's busy waiting at barriers costs more than it saves; it is
    # read when the library is loaded, at the first parallel function.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import numba

    before = numba.get_num_threads()
    wanted = worker_threads(threads) if rows >= PARALLEL_ROWS else 1
    if threads is None and _busy(wanted):
        wanted = 1
    most = int(getattr(numba.config, "NUMBA_NUM_THREADS", before))
    numba.set_num_threads(max(1, min(wanted, most)))
    try:
        yield
    finally:
        numba.set_num_threads(before)


def node_reduction(
    vectors: NDArray[np.float32], fuzzy: Any, params: ClusterParams
) -> NDArray[np.float32]:
    """A node embedding of the neighbour graph, float32 (n, n_components).

    evoc's label-propagation start and its reproducible training (L. McInnes, evoc), whose result
    does not depend on the number of threads.

    Args:
        vectors: float32 (n, d), n ≥ :data:`MIN_REDUCED_ROWS`.
        fuzzy: the CSR array of :func:`~reddit_assets.clustering.graph.fuzzy_graph`.
        params: resolved parameters.
    """
    from evoc.label_propagation import label_propagation_init
    from evoc.node_embedding import node_embedding

    state = np.random.RandomState(params.seed)
    components = params.n_components or 6
    start = label_propagation_init(
        fuzzy,
        n_components=components,
        approx_n_parts=int(np.clip(int(8 * np.sqrt(len(vectors))), 256, 16_384)),
        random_scale=0.1,
        scaling=0.5,
        noise_level=params.noise_level,
        random_state=state,
        data=vectors,
    )
    embedding = node_embedding(
        fuzzy,
        n_components=components,
        n_epochs=min(MOST_EPOCHS, max(EPOCHS, EPOCHS * 10_000 // len(vectors))),
        initial_embedding=np.ascontiguousarray(start, dtype=np.float32),
        negative_sample_rate=1.0,
        noise_level=params.noise_level,
        random_state=state,
        reproducible_flag=True,
    )
    return np.ascontiguousarray(embedding, dtype=np.float32)


def umap_reduction(vectors: NDArray[np.float32], params: ClusterParams) -> NDArray[np.float32]:
    """The original system's reduction: UMAP with cosine distances, float32 (n, n_components)."""
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


def _principal_plane(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first two principal components, float32 (n, 2), signs fixed."""
    centred = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, :2]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1, 1)
    flat = centred @ axes
    if flat.shape[1] < 2:
        flat = np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    return flat.astype(np.float32)


def plane(
    space: NDArray[np.float32], fuzzy: Any | None, params: ClusterParams
) -> NDArray[np.float32]:
    """Coordinates for the map, float32 (n, 2).

    The principal plane of ``space`` (the reduced space, or the vectors), then, where there is a
    graph, the node embedding's training in two dimensions from there.
    """
    if len(space) < 2:
        return np.zeros((len(space), 2), dtype=np.float32)
    flat = _principal_plane(space)
    if fuzzy is None:
        return flat
    from evoc.node_embedding import node_embedding

    spread = float(flat.std()) or 1.0
    start = np.ascontiguousarray(flat / spread, dtype=np.float32)
    trained = node_embedding(
        fuzzy,
        n_components=2,
        n_epochs=MAP_EPOCHS,
        initial_embedding=start,
        initial_alpha=0.5,
        noise_level=params.noise_level,
        random_state=np.random.RandomState(params.seed),
        reproducible_flag=True,
    )
    return np.ascontiguousarray(trained, dtype=np.float32)
