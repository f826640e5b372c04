"""The clustering in memory: what it finds, its invariances and its edge cases."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from reddit_assets.engines.clustering.clusterer import cluster
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.engines.clustering.results import Clustering
from reddit_assets.errors import ClusteringError

sklearn_metrics = pytest.importorskip("sklearn.metrics")
pytest.importorskip("hdbscan")
pytest.importorskip("evoc")


def blobs(
    sizes: list[int], *, seed: int = 0, spread: float = 0.03, dimensions: int = 384
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit vectors around random directions and which direction each is around."""
    rng = np.random.default_rng(seed)
    parts, labels = [], []
    for number, size in enumerate(sizes):
        middle = rng.standard_normal(dimensions)
        middle /= np.linalg.norm(middle)
        parts.append(middle + rng.standard_normal((size, dimensions)) * spread)
        labels += [number] * size
    vectors = np.concatenate(parts)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), np.array(labels)


def same(left: Clustering, right: Clustering, order: NDArray[np.int64]) -> bool:
    return all(
        np.array_equal(getattr(left, name)[order], getattr(right, name))
        for name in ("labels", "probabilities", "outlier_scores", "themes", "x", "y")
    )


@pytest.mark.parametrize(
    "reduction", ["node", pytest.param("umap", marks=pytest.mark.slow), "none"]
)
def test_finds_the_groups_that_are_there(reduction: str) -> None:
    # Given five groups of different sizes
    vectors, truth = blobs([120, 90, 60, 40, 30])
    # If they are clustered in any space
    params = ClusterParams(reduction=reduction, min_cluster_size=15, selection="eom")  # type: ignore[arg-type]
    found = cluster(vectors, params)
    # Then no cluster mixes two groups, and cluster 0 is the largest
    assert sklearn_metrics.homogeneity_score(truth, found.labels) > 0.95
    assert found.info["noise_share"] < 0.3
    assert np.array_equal(np.bincount(found.labels[found.labels >= 0]).argsort()[::-1][:1], [0])
    assert found.labels.dtype == np.int32
    assert found.probabilities.dtype == np.float32
    assert len(found.x) == len(vectors)


@pytest.mark.parametrize("reduction", ["node", "none"])
def test_labels_do_not_depend_on_row_order_or_threads(reduction: str) -> None:
    # Given more rows than one thread's worth, some of them equal
    vectors, _ = blobs([900, 700, 1500, 400, 1000], spread=0.06)
    vectors[100:130] = vectors[0]
    order = np.random.default_rng(1).permutation(len(vectors))
    # If they are clustered in two orders with one and two threads
    one = cluster(vectors, ClusterParams(reduction=reduction, threads=1))  # type: ignore[arg-type]
    two = cluster(vectors[order], ClusterParams(reduction=reduction, threads=2))  # type: ignore[arg-type]
    # Then every value is the same to the last bit
    assert one.info["clusters"] >= 2
    assert same(one, two, order)


@pytest.mark.parametrize("rows", [0, 1, 4, 5])
def test_few_rows_are_all_noise(rows: int) -> None:
    # Given next to no rows
    vectors, _ = blobs([rows]) if rows else (np.zeros((0, 384), dtype=np.float32), None)
    # If they are clustered
    found = cluster(vectors)
    # Then there is an output of the same length, all −1
    assert found.labels.tolist() == [-1] * rows
    assert found.x.shape == found.y.shape == found.themes.shape == (rows,)
    assert found.info["clusters"] == 0


def test_equal_rows_are_one_lump_of_noise() -> None:
    # Given one vector many times
    vectors = np.repeat(blobs([1])[0], 5_000, axis=0)
    # If it is clustered
    found = cluster(vectors)
    # Then it is quick and there is nothing to tell apart, as HDBSCAN has it
    assert set(found.labels) == {-1}
    assert found.info["clustered_rows"] < 100


def test_half_the_rows_duplicates() -> None:
    # Given groups, and one text repeated as often as all the others together
    vectors, truth = blobs([300, 300, 300])
    repeated = blobs([1], seed=9)[0]
    both = np.concatenate([vectors, np.repeat(repeated, 900, axis=0)])
    # If they are clustered
    found = cluster(both)
    # Then the copies are one cluster of their own, the largest, and only a few were computed with
    copies = found.labels[900:]
    assert set(copies) == {0}
    assert not (found.labels[:900] == 0).any()
    assert found.info["clustered_rows"] < 1_000
    assert sklearn_metrics.homogeneity_score(truth, found.labels[:900]) > 0.9


def test_distinct_noise_has_an_output() -> None:
    # Given rows without any group
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((500, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # If they are clustered in the full space
    found = cluster(vectors, ClusterParams(reduction="none"))
    # Then nearly all of it is noise
    assert found.info["noise_share"] > 0.8


@pytest.mark.parametrize("fault", ["nan", "norm", "dtype"])
def test_bad_vectors_are_refused(fault: str) -> None:
    # Given vectors of which some cannot be right
    vectors, _ = blobs([50])
    if fault == "nan":
        vectors[3, 5] = np.nan
    elif fault == "norm":
        vectors[7] *= 2
    bad = vectors.astype(np.float64) if fault == "dtype" else vectors
    # If they are clustered, then they are refused with what is wrong
    with pytest.raises(ClusteringError, match={"nan": "NaN", "norm": "unit", "dtype": "32"}[fault]):
        cluster(bad)  # type: ignore[arg-type]


def test_beyond_the_memory_a_sample_is_clustered(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given groups, and memory that lets only some of the rows be clustered
    vectors, truth = blobs([600, 600, 600], spread=0.05)
    monkeypatch.setattr("reddit_assets.engines.clustering.sample.MIN_SAMPLE", 600)
    # If they are clustered
    found = cluster(vectors, ClusterParams(min_cluster_size=60, memory_mb=100))
    # Then the rest is assigned, said so, and as right as the sample
    assert found.info["clustered_rows"] == 600
    assert found.info["min_cluster_size"] == 20
    assert found.info["assigned_share"] == pytest.approx(2 / 3)
    assert sklearn_metrics.v_measure_score(truth, found.labels) > 0.6
    assert sklearn_metrics.homogeneity_score(truth, found.labels) > 0.9
