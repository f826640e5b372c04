"""What a clustering gives, and how it is put together row by row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.sample import Assigned
from reddit_assets.engines.vectors import bad_rows
from reddit_assets.errors import ClusteringError

__all__ = ["Clustering", "Result", "Rows", "check_vectors"]


@dataclass(frozen=True)
class Clustering:
    """The result for n rows, in the order they were given.

    Attributes:
        labels: int32 (n,), −1 is noise; clusters are numbered from 0, largest first.
        probabilities: float32 (n,), 0 for noise.
        outlier_scores: float32 (n,), GLOSH, 0 (inside) to 1 (outlier).
        x, y: float32 (n,), place on the map.
        cluster_topics, cluster_themes: int32 (clusters,), topic and theme of each cluster;
            clusters of one topic have one theme.
        centroids: float32 (clusters, d), unit centroids.
        nearest: int32 (n,), for rows that are noise the cluster with the most similar centroid;
            −1 for the other rows, for rows without a direction or a text, and without clusters.
        similarities: float32 (n,), the cosine to that centroid; NaN where there is none.
        info: plain values for metadata: rows, clusters, noise share, how it was done.
    """

    labels: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    outlier_scores: NDArray[np.float32]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    cluster_topics: NDArray[np.int32]
    cluster_themes: NDArray[np.int32]
    centroids: NDArray[np.float32]
    nearest: NDArray[np.int32]
    similarities: NDArray[np.float32]
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def topics(self) -> NDArray[np.int32]:
        """The topic of each row's cluster, int32 (n,), −1 for noise."""
        return np.append(self.cluster_topics, np.int32(-1))[self.labels].astype(np.int32)

    @property
    def themes(self) -> NDArray[np.int32]:
        """The theme of each row's cluster, int32 (n,), −1 for noise."""
        return np.append(self.cluster_themes, np.int32(-1))[self.labels].astype(np.int32)


def check_vectors(vectors: NDArray[np.float32]) -> None:
    """Refuse what is not float32 (n, d), finite and of unit length or zero.

    Raises:
        ClusteringError: with what is wrong.
    """
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise ClusteringError(
            f"Vectors must be float32 (n, d), not {vectors.dtype} {vectors.shape}.",
            hint="Cast and stack them first.",
        )
    infinite, wrong = bad_rows(vectors)
    if infinite or wrong:
        raise ClusteringError(
            f"{infinite} of {len(vectors)} vectors hold NaN or infinity, "
            f"{wrong} are not of unit length.",
            hint="Embed these rows again.",
        )


@dataclass(frozen=True)
class Rows:
    """Which rows are clustered and which are noise from the start; int64, ascending."""

    total: int
    counted: NDArray[np.int64]
    excluded: NDArray[np.int64]
    zero: NDArray[np.int64]

    @classmethod
    def of(cls, vectors: NDArray[np.float32], excluded: NDArray[np.bool_] | None) -> Rows:
        """Rows that are not excluded and have a direction count."""
        out = np.zeros(len(vectors), dtype=bool) if excluded is None else excluded
        zero = ~out & ~vectors.any(axis=1)
        counted = np.flatnonzero(~out & ~zero)
        return cls(len(vectors), counted, np.flatnonzero(out), np.flatnonzero(zero))


@dataclass(frozen=True)
class Result:
    """Arrays of all rows, filled in bit by bit; a row is noise at the origin until then."""

    rows: Rows
    labels: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    outlier_scores: NDArray[np.float32]
    places: NDArray[np.float32]

    @classmethod
    def of(cls, rows: Rows) -> Result:
        """All noise."""
        flat = np.zeros((2, rows.total), dtype=np.float32)
        places = np.zeros((rows.total, 2), dtype=np.float32)
        labels = np.full(rows.total, -1, dtype=np.int32)
        return cls(rows, labels, flat[0], flat[1], places)

    def fill(self, rows: NDArray[np.int64], given: Assigned) -> None:
        """Take what was found of some rows."""
        self.labels[rows], self.probabilities[rows] = given.labels, given.probabilities
        self.outlier_scores[rows], self.places[rows] = given.outlier_scores, given.xy

    def rank(self, tie: NDArray[Any], count: int) -> NDArray[np.int32]:
        """Number the clusters by rows, largest first.

        Args:
            tie: (counted,), integers that do not depend on the order of the rows: of clusters of
                one size, that with the smallest goes first.
            count: of the clusters; each has a row.

        Returns:
            int32 (count + 1,), the new number of each; −1, the last, stays.
        """
        labels = self.labels[self.rows.counted]
        clustered = np.flatnonzero(labels >= 0)
        sizes = np.bincount(labels[clustered], minlength=count)
        first = np.full(count, np.iinfo(tie.dtype).max, dtype=tie.dtype)
        np.minimum.at(first, labels[clustered], tie[clustered])
        rank = np.empty(count + 1, dtype=np.int32)
        rank[np.lexsort((first, -sizes))] = np.arange(count, dtype=np.int32)
        rank[count] = -1
        self.labels[:] = rank[self.labels]
        return rank

    def clustering(
        self,
        vectors: NDArray[np.float32],
        levels: tuple[NDArray[np.int32], NDArray[np.int32]],
        middles: NDArray[np.float32],
        **info: Any,
    ) -> Clustering:
        """The whole, once the clusters have their ranks.

        Args:
            vectors: float32 (n, d).
            levels: topics and themes, int32 (clusters,) each.
            middles: float32 (clusters, d), unit centroids.
            info: how it was done.
        """
        topics, themes = levels
        counted = len(self.rows.counted)
        noise = self.rows.counted[self.labels[self.rows.counted] < 0]
        nearest, similarities = _nearest(vectors, noise, middles)
        return Clustering(
            labels=self.labels,
            probabilities=self.probabilities,
            outlier_scores=self.outlier_scores,
            x=np.ascontiguousarray(self.places[:, 0]),
            y=np.ascontiguousarray(self.places[:, 1]),
            cluster_topics=topics,
            cluster_themes=themes,
            centroids=middles,
            nearest=nearest,
            similarities=similarities,
            info={
                "rows": self.rows.total,
                "clusters": len(middles),
                "topics": int(topics.max(initial=-1)) + 1,
                "themes": int(themes.max(initial=-1)) + 1,
                "noise_share": len(noise) / counted if counted else 0.0,
                "noise_rows": {
                    "in no cluster": len(noise),
                    "placeholder": len(self.rows.excluded),
                    "zero vector": len(self.rows.zero),
                },
                **info,
            },
        )


def _nearest(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], middles: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The cluster whose centroid is the most similar to each of the rows, and its cosine."""
    number = np.full(len(vectors), -1, dtype=np.int32)
    cosine = np.full(len(vectors), np.nan, dtype=np.float32)
    if len(middles):
        step = max(256, 2**24 // len(middles))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            products = vectors[part] @ middles.T
            number[part] = products.argmax(axis=1)
            cosine[part] = np.clip(products.max(axis=1), -1, 1)
    return number, cosine
