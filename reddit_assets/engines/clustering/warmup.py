"""Compiled code loaded, or compiled once, before the first real subreddit.

numba keeps machine code in its cache (:mod:`.compiled`). UMAP's parts are not cached by their
packages and compile once per process.
"""

from __future__ import annotations

import time

import numpy as np

from reddit_assets.engines.clustering.params import ClusterParams

__all__ = ["warm_up"]


def warm_up(params: ClusterParams | None = None) -> float:
    """Run everything once on a few random rows; the seconds it took.

    Args:
        params: what will be asked for; decides which reduction is warmed.
    """
    from reddit_assets.engines.clustering.clusterer import cluster
    from reddit_assets.engines.clustering.neighbors import knn

    start = time.monotonic()
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((8, 32)).repeat(40, axis=0)
    vectors = middles + rng.standard_normal(middles.shape) * 0.3
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    asked = params or ClusterParams()
    cluster(unit, ClusterParams(reduction=asked.reduction, threads=asked.threads))
    # What only larger subreddits need.
    knn(unit, 5, exact_rows=0, threads=asked.threads)
    return time.monotonic() - start
