"""Any multiset of vectors clusters or is noise; what stands for no text has no influence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("hdbscan")
pytest.importorskip("evoc")

from reddit_assets.corpus.layout import Layout
from reddit_assets.engines.clustering.clusterer import cluster
from reddit_assets.engines.clustering.identity import keep_identities
from reddit_assets.engines.clustering.map import MapPosts, map_page, map_rows
from reddit_assets.engines.clustering.meaning import meaning_of
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.engines.clustering.results import Clustering
from reddit_assets.engines.embedding.reference import golden
from reddit_assets.tasks.report import clusters_report
from reddit_assets_tests.test_clustering_subreddit import embed, run, table, vectors_of


class NoPosts:
    """Rows of which nothing is known."""

    def texts(self, rows: np.ndarray) -> list[tuple[str, str]]:
        return [("", "")] * len(rows)

    def ids(self, rows: np.ndarray) -> list[str]:
        return [""] * len(rows)

    def scores(self) -> None:
        return None

    def dates(self) -> None:
        return None


def whole(found: Clustering, vectors: np.ndarray) -> None:
    """Everything that is made of a clustering can be made of this one, and it agrees."""
    n, clusters = len(vectors), len(found.centroids)
    labels = found.labels
    assert labels.shape == found.x.shape == found.probabilities.shape == found.themes.shape == (n,)
    assert set(labels.tolist()) - {-1} == set(range(clusters)), "no cluster is empty"
    assert np.isfinite(found.x).all()
    assert np.isfinite(found.y).all()
    assert ((found.outlier_scores >= 0) & (found.outlier_scores <= 1)).all()
    assert ((found.themes >= 0) == (labels >= 0)).all()
    levels = np.stack([found.cluster_topics, found.cluster_themes], axis=1)
    assert len(np.unique(levels, axis=0)) == len(np.unique(found.cluster_topics))
    sizes = np.bincount(labels[labels >= 0], minlength=clusters)
    assert (np.diff(sizes) <= 0).all(), "the largest is the first"
    assert found.info["clusters"] == clusters
    assert (
        found.info["noise_rows"]["in no cluster"]
        + sum(found.info["noise_rows"][why] for why in ("placeholder", "zero vector"))
        == (labels < 0).sum()
    )
    changes = keep_identities(labels[:0], labels[:0], None, found.centroids)
    meaning = meaning_of(NoPosts(), vectors, found, changes)
    rows = meaning.rows
    assert [row["size"] for row in rows] == sizes.tolist()
    chosen = map_rows(n, labels, 1)
    ids = np.append(changes.ids, -1)[labels][chosen].astype(np.int32)
    x, y = found.x[chosen], found.y[chosen]
    none: list[Any] = [None] * len(chosen)
    posts = MapPosts([""] * len(chosen), none, none, [""] * len(chosen))
    assert map_page("r", x, y, ids, posts, rows, meaning.themes, n).page
    json.dumps(found.info)


@st.composite
def multisets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Unit vectors with copies, some of length zero, in any order, and which are excluded."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dimensions = draw(st.sampled_from([2, 8, 48]))
    groups = []
    for _ in range(draw(st.integers(0, 6))):
        middle = rng.standard_normal(dimensions)
        size = draw(st.integers(1, 60))
        spread = draw(st.sampled_from([0.0, 0.0, 1e-7, 0.05, 0.5, 5.0]))
        groups.append(middle + spread * rng.standard_normal((size, dimensions)))
    rows = np.concatenate(groups)[:200] if groups else np.zeros((0, dimensions))
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    copies = draw(st.integers(1, 4))
    if len(rows) and copies > 1:
        rows = rows[rng.integers(0, max(1, len(rows) // copies), len(rows))]
    excluded = rng.random(len(rows)) < draw(st.sampled_from([0.0, 0.0, 0.2, 0.9, 1.0]))
    rows[rng.random(len(rows)) < draw(st.sampled_from([0.0, 0.0, 0.1, 1.0]))] = 0
    how = {
        "reduction": draw(st.sampled_from(["node", "node", "none"])),
        "min_cluster_size": draw(st.sampled_from([None, None, 2, 5, 30])),
        "min_samples": draw(st.sampled_from([None, None, 1, 10])),
        "selection": draw(st.sampled_from([None, "leaf", "eom"])),
        "max_rows": draw(st.sampled_from([50_000, 50_000, 40])),
    }
    return rows.astype(np.float32), excluded, how


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(multisets())
def test_any_multiset_of_vectors_clusters_or_is_noise(
    case: tuple[np.ndarray, np.ndarray, dict[str, Any]],
) -> None:
    vectors, excluded, how = case
    found = cluster(vectors, ClusterParams(**how), excluded=excluded)
    whole(found, vectors)
    assert (found.labels[excluded] == -1).all()
    # Equal rows that count have equal labels.
    counted = vectors[~excluded]
    _, same = np.unique(counted, axis=0, return_inverse=True)
    labels = found.labels[~excluded]
    for number in range(int(same.max(initial=-1)) + 1):
        assert len(set(labels[same.ravel() == number].tolist())) == 1


@pytest.mark.parametrize("share", [0.15, 0.22, 0.5, 0.9])
def test_copies_of_a_few_texts_do_not_break_clusters(share: float) -> None:
    # Given groups in which many rows have one of two texts, as in every dump
    rng = np.random.default_rng(int(share * 100))
    for seed in range(8):
        kinds = rng.integers(0, 5, 600)
        vectors = vectors_of(kinds, seed)
        few = vectors_of(np.array([0, 3]), 99)
        copies = rng.random(600) < share
        vectors[copies] = few[rng.integers(0, 2, int(copies.sum()))]
        # If they are clustered, then no cluster is empty
        whole(cluster(vectors), vectors)


def test_excluded_rows_have_no_influence_and_a_place() -> None:
    # Given groups, and the same with rows that stand for no text among them
    kinds = np.random.default_rng(0).integers(0, 5, 500)
    vectors = vectors_of(kinds, 1)
    extra = np.repeat(vectors_of(np.array([0, 1]), 5), 200, axis=0)
    both = np.concatenate([vectors, extra])
    order = np.random.default_rng(3).permutation(len(both))
    excluded = np.arange(len(both)) >= 500
    # If both are clustered
    alone = cluster(vectors)
    found = cluster(both[order], excluded=excluded[order])
    # Then the others are as they were without them
    back = np.argsort(order)[:500]
    for name in ("labels", "probabilities", "themes", "x", "y"):
        assert np.array_equal(getattr(found, name)[back], getattr(alone, name))
    assert np.array_equal(found.centroids, alone.centroids)
    # and they are noise with a reason, near what is like them
    assert found.info["noise_rows"]["placeholder"] == 400
    assert found.info["noise_share"] == alone.info["noise_share"]
    out = excluded[order]
    assert (found.labels[out] == -1).all()
    assert alone.x.min() <= found.x[out].min() <= found.x[out].max() <= alone.x.max()
    assert found.x[out].std() > 0


def test_placeholder_texts_are_no_topic(tmp_path: Path) -> None:
    # Given a subreddit in whose rows a third has no text any more
    layout = Layout.of(tmp_path)
    source = table(400)
    said = golden().texts.to_pylist()
    bodies, kinds = source["body"].to_pylist(), source["kind"].to_numpy()
    vectors = vectors_of(kinds, 5)
    gone = ["[deleted]", "[removed]", " [Removed] \n", "", "  ", None]
    assert "[deleted]" in said
    for at in range(0, 400, 3):
        bodies[at] = gone[at % len(gone)]
        vectors[at] = vectors_of(np.array([at % len(gone)]) % 5, 1)[0]
    source = source.set_column(1, "body", pa.array(bodies, pa.string()))
    embed(layout, "co/Cooking/a", source, vectors)
    # If it is clustered
    result = run(layout, ["co/Cooking/a"])
    # Then they are noise, counted apart, and no cluster is named after them
    made = pq.read_table(layout.cluster_path("co/Cooking"))
    labels = made["cluster_id"].to_numpy()
    assert (labels[::3] == -1).all()
    assert result.metadata["placeholder_rows"] == 134
    assert result.metadata["noise_share"] < 0.3
    assert result.metadata["clusters"] >= 4
    for row in clusters_report(layout.cluster_dir("co/Cooking"))["clusters"]:
        assert not {"deleted", "removed", "[deleted]"} & set(row["keywords"])
        assert not any("[" in text for text in row["representative_texts"])
    # and a setting names them, which is part of what is wanted
    kept = run(layout, ["co/Cooking/a"], placeholders=())
    assert kept.metadata["placeholder_rows"] == sum(not (body or "").strip() for body in bodies)
    assert ClusterParams(placeholders=()).fingerprint != ClusterParams().fingerprint


@pytest.mark.parametrize("rows", [1, 7, 120])
def test_nothing_but_placeholders_has_an_output(tmp_path: Path, rows: int) -> None:
    layout = Layout.of(tmp_path)
    source = table(rows).set_column(1, "body", pa.array(["[removed]"] * rows))
    embed(layout, "co/Cooking/a", source)
    result = run(layout, ["co/Cooking/a"])
    assert (result.metadata["clusters"], result.metadata["placeholder_rows"]) == (0, rows)
    made = pq.read_table(layout.cluster_path("co/Cooking"))
    assert made["cluster_id"].to_pylist() == [-1] * rows
