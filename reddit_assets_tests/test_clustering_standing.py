"""A clustering that stands: rows stay, topics are born and die; its file is used if it fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

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
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.engines.clustering.placing import place
from reddit_assets.engines.clustering.results import Clustering
from reddit_assets.engines.clustering.standing import Standing
from reddit_assets_tests.test_clustering_properties import whole
from reddit_assets_tests.test_clustering_subreddit import embed, run, table, vectors_of

TOPICS = 8
DIMENSION = 24


def posts(topic: int, count: int, seed: int, spread: float = 0.12) -> np.ndarray:
    """Unit vectors around a topic's own direction."""
    middle = np.random.default_rng(1_000 + topic).standard_normal(DIMENSION)
    rng = np.random.default_rng(seed)
    found = middle / np.linalg.norm(middle) + spread * rng.standard_normal((count, DIMENSION))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def corpus() -> np.ndarray:
    return np.concatenate([posts(topic, 100, topic) for topic in range(TOPICS)])


def stands(vectors: np.ndarray) -> tuple[Clustering, Standing]:
    found = cluster(vectors)
    ids = np.arange(len(found.centroids), dtype=np.int32) + 40
    return found, Standing.of(vectors, found, ids)


def test_rows_stay_where_they_are_whatever_comes() -> None:
    # Given a clustering, and rows like its rows
    vectors = corpus()
    found, standing = stands(vectors)
    more = np.concatenate([posts(topic, 4, 100 + topic) for topic in range(TOPICS)])
    # If they are placed, some before and some behind the old rows
    mixed = np.concatenate([more[:10], vectors, more[10:]])
    placed = place(mixed, standing)
    whole(placed, mixed)
    # Then the old rows are together as before, at their old places,
    old = placed.labels[10 : 10 + len(vectors)]
    pairs = set(zip(found.labels.tolist(), old.tolist(), strict=True))
    assert len(pairs) == len({left for left, _ in pairs}) == len({right for _, right in pairs})
    assert np.array_equal(placed.x[10 : 10 + len(vectors)], found.x)
    # and the new ones are with the rows of their topics.
    new = np.concatenate([placed.labels[:10], placed.labels[10 + len(vectors) :]])
    theirs = np.repeat([np.bincount(old[at * 100 :][:100] + 1).argmax() - 1 for at in range(8)], 4)
    assert (new == theirs).mean() > 0.9
    assert placed.info["placed_rows"] == len(more)
    assert standing.changed_share(mixed) == pytest.approx(len(more) / len(vectors))


def test_the_order_of_the_rows_and_the_threads_do_not_matter() -> None:
    vectors = corpus()
    _, standing = stands(vectors)
    rows = np.concatenate([vectors, posts(3, 9, 7), posts(90, 60, 7)])
    order = np.random.default_rng(0).permutation(len(rows))
    one = place(rows, standing, ClusterParams(threads=1))
    two = place(np.ascontiguousarray(rows[order]), standing, ClusterParams(threads=2))
    for name in ("labels", "probabilities", "outlier_scores", "x", "y", "themes", "nearest"):
        assert np.array_equal(getattr(one, name)[order], getattr(two, name)), name
    assert np.array_equal(one.centroids, two.centroids)


@pytest.mark.parametrize("nights", [1, 6])
def test_a_topic_is_born_when_enough_of_it_is_there(nights: int) -> None:
    # Given a clustering, and a topic of 60 posts that arrives in one night or in six
    vectors = corpus()
    found, standing = stands(vectors)
    ids = standing.cluster_ids
    topic = posts(90, 60, 5)
    born = []
    for night in range(nights):
        rows = np.concatenate([vectors, topic[: 60 * (night + 1) // nights]])
        placed = place(rows, standing)
        clusters = len(placed.centroids)
        born.append(clusters - len(found.centroids))
        numbers = np.arange(clusters, dtype=np.int32) + 100
        standing = Standing.of(rows, placed, numbers, before=standing)
    # Then it has a cluster of its own at the end, and only one was born.
    assert born[-1] == 1
    mine = placed.labels[len(vectors) :]
    assert (mine == np.bincount(mine + 1).argmax() - 1).mean() > 0.9
    assert not np.isin(placed.labels[: len(vectors)], mine[mine >= 0]).any()
    assert len(ids) == len(found.centroids)


def test_a_topic_that_was_born_stays_as_it_is_while_it_grows() -> None:
    # Given a topic that goes on arriving for four nights after it was born,
    vectors = corpus()
    found, standing = stands(vectors)
    rows = vectors
    seen: tuple[np.ndarray, np.ndarray] | None = None
    for night in range(6):
        rows = np.concatenate([rows, posts(90, 18, 60 + night, 0.06 if night % 2 else 0.12)])
        placed = place(rows, standing)
        born = placed.labels[len(vectors) :]
        # Then there is one new cluster, and what is in it keeps its place on the map.
        assert len(placed.centroids) == len(found.centroids) + 1
        assert len(set(born[born >= 0].tolist())) == 1
        if seen is not None:
            assert np.array_equal(placed.x[: len(seen[0])][seen[1] >= 0], seen[0][seen[1] >= 0])
        seen = placed.x, placed.labels
        ids = np.arange(len(placed.centroids), dtype=np.int32)
        standing = Standing.of(rows, placed, ids, before=standing)


def test_a_topic_that_grows_is_no_new_one() -> None:
    vectors = corpus()
    found, standing = stands(vectors)
    placed = place(np.concatenate([vectors, posts(2, 120, 50)]), standing)
    assert len(placed.centroids) == len(found.centroids)


def test_a_topic_without_posts_dies_and_what_is_left_of_it_is_noise() -> None:
    vectors = corpus()
    found, standing = stands(vectors)
    left = np.delete(vectors, np.arange(201, 300), axis=0)
    assert standing.changed_share(left) == pytest.approx(99 / 800)
    placed = place(left, standing)
    whole(placed, left)
    assert len(placed.centroids) == len(found.centroids) - 1
    assert placed.labels[200] == -1
    assert placed.nearest[200] >= 0
    # Vectors that are gone are counted on later nights as well.
    after = Standing.of(
        left, placed, np.arange(len(placed.centroids), dtype=np.int32), before=standing
    )
    assert after.changed_share(left) == pytest.approx(99 / 800)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kept=st.lists(st.integers(0, 799), min_size=1, max_size=300),
    new=st.lists(st.tuples(st.integers(0, TOPICS + 3), st.integers(0, 5)), max_size=80),
    out=st.floats(0, 0.3),
    seed=st.integers(0, 9),
)
def test_any_rows_can_be_placed(
    kept: list[int], new: list[tuple[int, int]], out: float, seed: int
) -> None:
    """Copies, rows that vanish, rows without direction, excluded rows: all agrees with itself."""
    vectors = corpus()
    _, standing = stands_once()
    more = [posts(topic, 1, number, 0.3) for topic, number in new]
    rows = np.concatenate([vectors[kept], *more, np.zeros((1, DIMENSION), np.float32)])
    excluded = np.random.default_rng(seed).random(len(rows)) < out
    if excluded[: len(kept)].all():
        excluded[0] = False
    placed = place(rows, standing, excluded=excluded)
    whole(placed, rows)
    assert (placed.labels[excluded] == -1).all()
    _, inverse = np.unique(rows, axis=0, return_inverse=True)
    for number in range(inverse.max() + 1):
        copies = placed.labels[(inverse.ravel() == number) & ~excluded]
        assert len(set(copies.tolist())) <= 1, "equal vectors have one label"


_ONCE: list[tuple[Clustering, Standing]] = []


def stands_once() -> tuple[Clustering, Standing]:
    if not _ONCE:
        _ONCE.append(stands(corpus()))
    return _ONCE[0]


# --- the file ------------------------------------------------------------------------------
@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.of(tmp_path)


def two_nights(layout: Layout, *, rows: int = 12, seed: int = 8, **params: float) -> dict:
    """Clusters again with some new rows; the second night's metadata."""
    embed(layout, "co/Cooking/b", table(rows, first=400, seed=seed))
    return run(layout, ["co/Cooking/a", "co/Cooking/b"], **params).metadata


def first_night(layout: Layout) -> Path:
    embed(layout, "co/Cooking/a", table(400))
    run(layout, ["co/Cooking/a"])
    return layout.cluster_dir("co/Cooking") / "clusters.standing"


def changes_of(layout: Layout) -> list[str]:
    return pq.read_table(layout.cluster_path("co/Cooking"))["cluster_change"].to_pylist()


def test_what_became_of_each_row_is_recorded(layout: Layout) -> None:
    first_night(layout)
    assert set(changes_of(layout)) == {"clustered"}
    assert two_nights(layout)["placed_rows"] == 12
    assert changes_of(layout) == ["kept"] * 400 + ["placed"] * 12
    # Noise knows the cluster that it is nearest to, and other rows do not.
    made = pq.read_table(layout.cluster_path("co/Cooking")).to_pandas()
    noise = made["cluster_id"] < 0
    assert made["nearest_cluster"].notna().equals(noise)
    assert made["nearest_similarity"].notna().equals(noise)
    assert set(made["nearest_cluster"].dropna()) <= set(made["cluster_id"])
    # Where the texts of a file have changed, their rows are new, though their ids are not.
    assert two_nights(layout, seed=9)["placed_rows"] > 0
    assert changes_of(layout)[:400] == ["kept"] * 400


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("change", ["rounding", "backend", "float16"])
def test_a_vector_that_is_computed_again_is_no_new_row(
    layout: Layout, change: str, *, ids: bool
) -> None:
    # Given a night after which a file was embedded again, or kept in another format
    source = table(400) if ids else table(400).drop_columns(["id"])
    vectors = vectors_of(source["kind"].to_numpy(), 3)
    embed(layout, "co/Cooking/a", source, vectors)
    run(layout, ["co/Cooking/a"])
    before = pq.read_table(layout.cluster_path("co/Cooking"), columns=["cluster_id", "x"])
    noise = np.random.default_rng(5).standard_normal(vectors.shape)
    if change == "float16":
        again = vectors.astype(np.float16).astype(np.float32)
    else:
        again = (vectors + noise * (3e-8 if change == "rounding" else 5e-4)).astype(np.float32)
        again /= np.linalg.norm(again, axis=1, keepdims=True)
    embed(layout, "co/Cooking/a", source, again)
    # If it is clustered again, Then no row is new (by their ids; without ids, by the rounding).
    found = run(layout, ["co/Cooking/a"]).metadata
    after = pq.read_table(layout.cluster_path("co/Cooking"), columns=["cluster_id", "x"])
    if ids or change == "float16":
        assert found["placed_rows"] == 0
        assert after.equals(before)
        assert set(changes_of(layout)) == {"kept"}
    elif change == "rounding":
        assert found["placed_rows"] < 100


def test_ids_that_stand_twice_are_no_ids(layout: Layout) -> None:
    # Given two files in which the same post ids stand for other posts
    for key, seed in (("co/Cooking/a", 1), ("co/Cooking/b", 2)):
        source = table(200, seed=seed)
        embed(layout, key, source, vectors_of(source["kind"].to_numpy(), seed))
    keys = ["co/Cooking/a", "co/Cooking/b"]
    run(layout, keys)
    # If nothing changes, Then nothing has moved.
    assert run(layout, keys).metadata["rows_moved_share"] == 0
    assert set(changes_of(layout)) == {"kept"}


@pytest.mark.parametrize("reason", ["missing", "damaged", "stranger", "settings", "share", "many"])
def test_all_rows_are_clustered_where_nothing_stands(layout: Layout, reason: str) -> None:
    # Given a standing clustering that cannot be used
    file = first_night(layout)
    params: dict[str, float] = {}
    if reason == "missing":
        file.unlink()
    elif reason == "damaged":
        file.write_bytes(file.read_bytes()[:-9])
    elif reason == "stranger":
        said = file.read_bytes()
        run(layout, ["co/Cooking/a"])
        file.write_bytes(said)
    elif reason == "settings":
        params = {"n_neighbors": 12}
    elif reason == "share":
        params = {"recluster_share": 0.0}
    # If the next night comes, Then all is clustered, and a clustering stands again.
    found = two_nights(layout, rows=90 if reason == "many" else 12, **params)
    assert found["placed_rows"] == 0
    if reason not in ("share", "many"):
        assert two_nights(layout, rows=13, **params)["placed_rows"] == 13


def test_a_version_that_is_not_known_is_not_used(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("reddit_assets.tasks.standing.VERSION", 7)
        first_night(layout)
    assert two_nights(layout)["placed_rows"] == 0


def test_ids_that_are_given_later_fit_the_labels() -> None:
    # The ids of a standing clustering need no order.
    vectors = corpus()
    found = cluster(vectors)
    ids = np.random.default_rng(3).permutation(len(found.centroids)).astype(np.int32) * 7
    standing = Standing.of(vectors, found, ids)
    placed = place(vectors, standing)
    assert np.array_equal(placed.labels, found.labels)
    assert np.array_equal(placed.cluster_topics, found.cluster_topics)
    assert np.array_equal(placed.cluster_themes, found.cluster_themes)
    assert placed.info["placed_rows"] == 0
    empty = replace(standing, ids=np.full_like(standing.ids, -1), cluster_ids=ids[:0])
    alone = place(vectors, replace(empty, cluster_topics=ids[:0], cluster_themes=ids[:0]))
    assert (alone.labels == -1).all()
    assert pa.array(alone.nearest).to_pylist() == [-1] * len(vectors)
