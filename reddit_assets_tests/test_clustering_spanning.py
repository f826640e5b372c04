"""The full-space tree and the package's inner functions against the ``hdbscan`` package itself."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("hdbscan")

from reddit_assets.engines.clustering.graph import build_graph
from reddit_assets.engines.clustering.hdbscan_ import tree_clusters
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.engines.clustering.spanning import spanning_tree


@pytest.mark.parametrize(("selection", "size", "samples"), [("leaf", 5, 3), ("eom", 10, 5)])
def test_full_space_is_hdbscans_own_result(selection: str, size: int, samples: int) -> None:
    from hdbscan import HDBSCAN

    # Given rows in loose groups with background, near-duplicates among them
    rng = np.random.default_rng(5)
    middles = rng.standard_normal((12, 96))
    vectors = middles[rng.integers(0, 12, 900)] + rng.standard_normal((900, 96)) * 0.7
    vectors = np.concatenate([vectors, rng.standard_normal((300, 96))])
    vectors[40:52] = vectors[40] + rng.standard_normal((12, 96)) * 1e-2
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    params = ClusterParams(
        reduction="none",
        min_cluster_size=size,
        min_samples=samples,
        selection=selection,  # type: ignore[arg-type]
    ).resolve(len(vectors))
    # If they are clustered by our tree and by the package
    graph = build_graph(vectors, 15, seed=1)
    edges = spanning_tree(vectors, graph, samples)
    ours = tree_clusters(edges, len(vectors), params)
    theirs = HDBSCAN(
        min_cluster_size=size,
        min_samples=samples,
        cluster_selection_method=selection,
        gen_min_span_tree=True,
        core_dist_n_jobs=1,
    ).fit(vectors.astype(np.float64))
    # Then tree, labels, probabilities and outlier scores agree
    assert edges[:, 2].sum() == pytest.approx(theirs._min_spanning_tree[:, 2].sum())
    assert ours.labels.max() >= 3
    assert np.array_equal(ours.labels, theirs.labels_)
    assert np.allclose(ours.probabilities, theirs.probabilities_, atol=1e-6)
    assert np.allclose(ours.outlier_scores, np.nan_to_num(theirs.outlier_scores_), atol=1e-6)
