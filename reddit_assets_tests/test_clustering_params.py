"""Parameters: adaptive defaults and the fingerprint."""

from __future__ import annotations

from dataclasses import replace

from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.settings import Settings


def test_defaults_adapt_to_the_rows() -> None:
    # Given no wishes
    params = ClusterParams()
    # If they are resolved for small and large subreddits
    sizes = [params.resolve(rows).min_cluster_size for rows in (0, 100, 600, 10_000, 10**6, 10**8)]
    # Then the smallest cluster grows with the root of the rows, within bounds
    assert sizes == [5, 5, 6, 25, 250, 250]


def test_umap_is_the_originals_recipe() -> None:
    # Given the earlier system's reduction
    params = ClusterParams(reduction="umap").resolve(10_000)
    # Then its numbers are taken: 15 dimensions, 15 neighbours, 5 / 3 / leaf
    assert (params.n_components, params.n_neighbors) == (15, 15)
    assert (params.min_cluster_size, params.min_samples, params.selection) == (5, 3, "leaf")


def test_a_wish_is_kept() -> None:
    # Given settings with wishes
    settings = Settings(min_cluster_size=40, min_samples=2, selection_method="leaf", seed=7)
    # If parameters are made from them
    params = ClusterParams.from_settings(settings).resolve(10_000)
    # Then they stand
    assert (params.min_cluster_size, params.min_samples) == (40, 2)
    assert (params.selection, params.seed) == ("leaf", 7)


def test_the_fingerprint_is_of_the_result() -> None:
    # Given parameters
    params = ClusterParams()
    # If something changes that changes labels, then so does the fingerprint
    for change in ({"seed": 1}, {"n_neighbors": 30}, {"reduction": "umap"}, {"noise_level": 0.5}):
        assert replace(params, **change).fingerprint != params.fingerprint  # type: ignore[arg-type]
    # and the number of threads does not
    assert replace(params, threads=1).fingerprint == params.fingerprint
