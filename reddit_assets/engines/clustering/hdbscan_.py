"""HDBSCAN on the reduced space by the ``hdbscan`` package, and its tree functions on our own trees.

The only module that knows the package's inner names; a contract test watches them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.params import ClusterParams

__all__ = ["Density", "density_clusters", "no_clusters", "tree_clusters"]


@dataclass(frozen=True)
class Density:
    """What HDBSCAN says of n rows.

    Attributes:
        labels: int32 (n,), −1 is noise; clusters are numbered from 0.
        probabilities: float32 (n,), 0 for noise.
        outlier_scores: float32 (n,), GLOSH, 0 (inside a cluster) to 1.
    """

    labels: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    outlier_scores: NDArray[np.float32]


def no_clusters(rows: int) -> Density:
    """All rows noise."""
    return Density(
        labels=np.full(rows, -1, dtype=np.int32),
        probabilities=np.zeros(rows, dtype=np.float32),
        outlier_scores=np.zeros(rows, dtype=np.float32),
    )


def _scores(scores: NDArray[Any]) -> NDArray[np.float32]:
    # Rows at distance 0 give 0/0 in GLOSH: they are as deep inside as can be.
    return np.clip(np.nan_to_num(scores, nan=0.0, posinf=1.0, neginf=0.0), 0, 1).astype(np.float32)


def density_clusters(space: NDArray[np.float32], params: ClusterParams) -> Density:
    """HDBSCAN of a low-dimensional space, float32 (n, c), Euclidean distances.

    Args:
        params: resolved parameters.
    """
    from hdbscan import HDBSCAN

    size = params.min_cluster_size or 5
    if len(space) < max(2 * size, 4):
        return no_clusters(len(space))
    model = HDBSCAN(
        min_cluster_size=size,
        min_samples=min(params.min_samples or 5, len(space) - 1),
        cluster_selection_method=params.selection or "eom",
        core_dist_n_jobs=1,
    ).fit(space.astype(np.float64))
    return Density(
        labels=model.labels_.astype(np.int32),
        probabilities=np.nan_to_num(model.probabilities_).astype(np.float32),
        outlier_scores=_scores(model.outlier_scores_),
    )


def tree_clusters(edges: NDArray[np.float64], rows: int, params: ClusterParams) -> Density:
    """HDBSCAN's clusters of a minimum spanning tree of mutual reachability distances.

    Args:
        edges: float64 (rows − 1, 3): from, to, distance; ascending by distance.
        rows: how many rows.
        params: resolved parameters.
    """
    from hdbscan._hdbscan_linkage import label
    from hdbscan._hdbscan_tree import outlier_scores
    from hdbscan.hdbscan_ import _tree_to_labels

    size = params.min_cluster_size or 5
    if rows < max(2 * size, 4):
        return no_clusters(rows)
    linkage = label(np.ascontiguousarray(edges))
    labels, probabilities, _, condensed, _ = _tree_to_labels(
        None, linkage, size, params.selection or "eom"
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = outlier_scores(condensed)
    return Density(
        labels=labels.astype(np.int32),
        probabilities=np.nan_to_num(probabilities).astype(np.float32),
        outlier_scores=_scores(scores),
    )
