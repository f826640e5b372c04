"""New rows placed into a clustering that stands; the other rows stay where they are.

A new row gets the label that its nearest rows vote for, as the rows outside a sample do. Only where
new rows lie among new rows, a cluster is born: there, density arose that the full clustering could
not see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits

from reddit_assets.engines.clustering.canonical import Canonical, canonical_order
from reddit_assets.engines.clustering.levels import centroids, join_levels
from reddit_assets.engines.clustering.neighbors import nearest
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.engines.clustering.reduction import MIN_REDUCED_ROWS, compute_threads
from reddit_assets.engines.clustering.results import Clustering, Result, Rows, check_vectors
from reddit_assets.engines.clustering.sample import Assigned, assign
from reddit_assets.engines.clustering.standing import Standing, vector_keys

__all__ = ["place"]

#: Share of a row's nearest rows that must be recent for it to lie in new density.
RECENT_SHARE = 0.5
#: Clustered rows of the full clustering among its nearest, per recent one, at the most.
SETTLED_PER_RECENT = 0.125


def place(
    vectors: NDArray[np.float32],
    standing: Standing,
    params: ClusterParams | None = None,
    progress: Callable[[str], None] | None = None,
    *,
    excluded: NDArray[np.bool_] | None = None,
) -> Clustering:
    """Place unit vectors into a standing clustering.

    Rows that it knows keep label, probability and place, unless their cluster dies (it lost rows,
    and less than half of a smallest cluster is left) or a new one is born around them. A new row
    takes the label that its nearest known rows vote for. The result depends on what stands and on
    the set of rows, not on their order or on threads.

    Args:
        vectors: float32 (n, d), unit rows.
        standing: what stands; it knows at least one of the vectors.
        params, progress, excluded: as of :func:`~.clusterer.cluster`.

    Raises:
        ClusteringError: the vectors are not float32, not finite or not of unit length.
    """
    check_vectors(vectors)
    asked = params or ClusterParams()
    say = progress or (lambda stage: None)
    with compute_threads(asked.threads, len(vectors)), threadpool_limits(1, user_api="blas"):
        rows = Rows.of(vectors, excluded)
        distinct = canonical_order(vectors, 1, rows.counted)
        placing = _Placing.of(vectors, distinct, standing, asked)
        say("births")
        placing.open_clusters()
        say("placing")
        placing.vote()
        say("levels")
        return placing.result(vectors, rows, distinct, standing, asked.fingerprint)


@dataclass
class _Placing:
    """Distinct vectors on their way to labels.

    Attributes:
        vectors: float32 (m, d), in the order of their hashes.
        copies: int64 (m,), rows of each.
        new: bool (m,), unknown so far.
        recent: bool (m,), came after the full clustering.
        found: labels (cluster numbers), probabilities, scores and places; of rows that are new
            they hold nothing before :meth:`vote`.
        clusters: how many numbers are taken.
        params: resolved parameters.
        core: bool (m,), what clusters were opened with.
    """

    vectors: NDArray[np.float32]
    copies: NDArray[np.int64]
    new: NDArray[np.bool_]
    recent: NDArray[np.bool_]
    found: Assigned
    clusters: int
    params: ClusterParams
    core: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        vectors: NDArray[np.float32],
        distinct: Canonical,
        standing: Standing,
        asked: ClusterParams,
    ) -> _Placing:
        """Known vectors as they stand, new ones without anything."""
        chosen = vectors[distinct.kept]
        at, known = standing.find(vector_keys(chosen))
        ids = standing.ids[at]
        number = np.searchsorted(standing.cluster_ids, ids)
        found = Assigned(
            np.where(known & (ids >= 0), number, -1).astype(np.int32),
            np.where(known, standing.probabilities[at], 0).astype(np.float32),
            np.where(known, standing.outlier_scores[at], 0).astype(np.float32),
            np.where(known[:, None], standing.xy[at], 0).astype(np.float32),
        )
        return cls(
            vectors=chosen,
            copies=np.bincount(distinct.group, minlength=distinct.distinct),
            new=~known,
            recent=~known | standing.recent[at],
            found=found,
            clusters=len(standing.cluster_ids),
            params=asked.resolve(len(distinct.group)),
            core=np.zeros(len(known), dtype=bool),
        )

    @property
    def size(self) -> int:
        """Rows of the smallest cluster."""
        return self.params.min_cluster_size or 5

    def open_clusters(self) -> None:
        """Open a cluster wherever enough recent rows lie among recent rows.

        Rows of a cluster that was born since the full clustering count as settled: it stands.
        """
        loose = self.recent & ~self._in_born()
        recent = np.flatnonzero(loose)
        k = min(self.params.n_neighbors, len(self.vectors) - 1)
        if len(recent) < self.size or k < 1:
            return
        around = self._around(recent, k)
        there = around >= 0
        near = np.where(there, around, 0)
        fresh = (there & loose[near]).sum(axis=1)
        settled = (there & ~loose[near] & (self.found.labels[near] >= 0)).sum(axis=1)
        dense = (fresh >= RECENT_SHARE * k) & (settled <= SETTLED_PER_RECENT * fresh)
        found = _components(recent, around, dense, self.copies, self.size)
        if not found:
            return
        middles = centroids(self.vectors, self.found.labels, self.clusters)
        near_enough = self._likeness(middles)
        for members in found:
            # As like a cluster as its own rows are: that cluster grows, and the vote says so.
            if not (middles @ self.vectors[members].mean(axis=0) >= near_enough).any():
                self._open(members)

    def _likeness(self, middles: NDArray[np.float32]) -> NDArray[np.float64]:
        """Mean cosine of each cluster's rows to its centroid, float64 (clusters,)."""
        inside = np.flatnonzero(self.found.labels >= 0)
        labels = self.found.labels[inside]
        sums = np.zeros(self.clusters)
        for start in range(0, len(inside), 65_536):
            part, label = inside[start : start + 65_536], labels[start : start + 65_536]
            cosines = np.einsum("nd,nd->n", self.vectors[part], middles[label])
            sums += np.bincount(label, cosines, minlength=self.clusters)
        return sums / np.maximum(np.bincount(labels, minlength=self.clusters), 1)

    def _in_born(self) -> NDArray[np.bool_]:
        """Which rows are in clusters that hold recent rows alone, bool (m,)."""
        labels = self.found.labels
        old = np.zeros(self.clusters + 1, dtype=bool)
        old[labels[~self.recent]] = True
        old[-1] = True  # noise is no cluster
        return ~old[labels]

    def _around(self, rows: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """The k nearest other rows of some rows, int64 (rows, k), −1 where there is none."""
        found, _ = nearest(
            self.vectors[rows],
            self.vectors,
            min(k + 1, len(self.vectors)),
            seed=self.params.seed,
            threads=self.params.threads,
        )
        # A row finds itself first, but for rounding: it goes to the end, and is cut off there.
        order = np.argsort(found == rows[:, None], axis=1, kind="stable")
        return np.take_along_axis(found, order, axis=1)[:, :k].astype(np.int64)

    def _open(self, members: NDArray[np.int64]) -> None:
        """A new cluster of these rows, laid out around where the older rows like them lie."""
        older = np.flatnonzero(~self.recent)
        middle = np.zeros(2, dtype=np.float32)
        if len(older):
            middle = np.median(self._say(members, older).xy, axis=0)
        self.found.labels[members] = self.clusters
        self.found.probabilities[members] = 1
        self.found.outlier_scores[members] = 0
        self.found.xy[members] = middle + self._spread(members)
        self.core[members] = True
        self.clusters += 1

    def _spread(self, members: NDArray[np.int64]) -> NDArray[np.float32]:
        """The members' principal plane, as wide as clusters usually are, float32 (members, 2)."""
        offsets = self.vectors[members] - self.vectors[members].mean(axis=0)
        _, _, axes = np.linalg.svd(offsets, full_matrices=False)
        flat = offsets @ axes[:2].T
        if flat.shape[1] < 2:
            return np.zeros((len(members), 2), dtype=np.float32)
        labels, xy = self.found.labels, self.found.xy
        inside = (labels >= 0) & ~self.new & ~self.core
        count = np.maximum(np.bincount(labels[inside], minlength=self.clusters), 1)
        sums = [
            np.bincount(labels[inside], xy[inside, axis] ** power, minlength=self.clusters) / count
            for axis in (0, 1)
            for power in (1, 2)
        ]
        variance = (sums[1] - sums[0] ** 2 + sums[3] - sums[2] ** 2)[count > 1]
        width = float(np.sqrt(max(np.median(variance), 0) / 2)) if len(variance) else 1.0
        return (flat * (width / (float(flat.std()) or 1.0))).astype(np.float32)

    def vote(self) -> None:
        """Label the new rows, and what was noise beside a cluster that was born."""
        asking = self.new & ~self.core
        if self.core.any():
            asking |= self.recent & (self.found.labels < 0)
        rows, base = np.flatnonzero(asking), np.flatnonzero(~asking)
        if not len(rows) or not len(base):
            return
        said = self._say(rows, base)
        self.found.labels[rows] = said.labels
        self.found.probabilities[rows] = said.probabilities
        self.found.outlier_scores[rows] = said.outlier_scores
        self.found.xy[rows] = said.xy

    def _say(self, rows: NDArray[np.int64], base: NDArray[np.int64]) -> Assigned:
        """What some rows say of others."""
        return assign(
            self.vectors[rows],
            self.vectors[base],
            self.found.labels[base],
            self.found.probabilities[base],
            self.found.outlier_scores[base],
            self.found.xy[base],
            seed=self.params.seed,
            threads=self.params.threads,
        )

    def bury(self, standing: Standing) -> NDArray[np.int64]:
        """Make noise of clusters of which too little is left; the numbers of the others."""
        labels = self.found.labels
        inside = labels >= 0
        sizes = np.bincount(labels[inside], self.copies[inside], minlength=self.clusters)
        distinct = np.bincount(labels[inside], minlength=self.clusters)
        before = np.zeros(self.clusters, dtype=np.int64)
        kept = standing.ids[standing.ids >= 0]
        before[: len(standing.cluster_ids)] = np.bincount(
            np.searchsorted(standing.cluster_ids, kept), minlength=len(standing.cluster_ids)
        )
        dead = (distinct == 0) | ((distinct < before) & (2 * sizes < self.size))
        out = np.append(dead, False)[labels]
        labels[out], self.found.probabilities[out] = -1, 0
        return np.flatnonzero(~dead)

    def result(
        self,
        vectors: NDArray[np.float32],
        rows: Rows,
        distinct: Canonical,
        standing: Standing,
        fingerprint: str,
    ) -> Clustering:
        """The clustering of all rows."""
        alive = self.bury(standing)
        number = np.full(self.clusters + 1, -1, dtype=np.int32)
        number[alive] = np.arange(len(alive), dtype=np.int32)
        found = replace(self.found, labels=number[self.found.labels])
        result = Result.of(rows)
        result.fill(rows.counted, _taken(found, distinct.group))
        if len(rows.excluded) and len(self.vectors):
            places = self._say_of(vectors[rows.excluded], found)
            result.places[rows.excluded] = places
        rank = result.rank(distinct.group, len(alive))
        middles = centroids(self.vectors, rank[found.labels], len(alive))
        levels = self._levels(standing, alive, rank, middles, result.labels)
        recent = self.recent[distinct.group]
        return result.clustering(
            vectors,
            levels,
            middles,
            distinct_vectors=distinct.distinct,
            clustered_rows=len(recent) - int(recent.sum()),
            assigned_share=float(recent.sum()) / rows.total if rows.total else 0.0,
            placed_rows=int(self.new[distinct.group].sum()),
            reduction="none" if standing.clustered < MIN_REDUCED_ROWS else self.params.reduction,
            min_cluster_size=self.size,
            min_samples=self.params.min_samples,
            selection=self.params.selection,
            fingerprint=fingerprint,
        )

    def _say_of(self, queries: NDArray[np.float32], found: Assigned) -> NDArray[np.float32]:
        """Where on the map what is like the queries lies, float32 (queries, 2)."""
        return assign(
            queries,
            self.vectors,
            found.labels,
            found.probabilities,
            found.outlier_scores,
            found.xy,
            seed=self.params.seed,
            threads=self.params.threads,
            exact_rows=len(self.vectors),
        ).xy

    def _levels(
        self,
        standing: Standing,
        alive: NDArray[np.int64],
        rank: NDArray[np.int32],
        middles: NDArray[np.float32],
        labels: NDArray[np.int32],
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Topics and themes by rank: those that stand; a new cluster joins the most similar one."""
        older = alive < len(standing.cluster_ids)
        topics, themes = np.full((2, len(alive)), -1, dtype=np.int32)
        at = rank[np.flatnonzero(older)]
        topics[at] = standing.cluster_topics[alive[older]]
        themes[at] = standing.cluster_themes[alive[older]]
        sizes = np.bincount(labels[labels >= 0], minlength=len(alive))
        return join_levels(np.flatnonzero(topics < 0), topics, themes, middles, sizes)


def _taken(found: Assigned, rows: NDArray[np.int64]) -> Assigned:
    return Assigned(
        found.labels[rows],
        found.probabilities[rows],
        found.outlier_scores[rows],
        found.xy[rows],
    )


def _components(
    rows: NDArray[np.int64],
    around: NDArray[np.int64],
    dense: NDArray[np.bool_],
    copies: NDArray[np.int64],
    size: int,
) -> list[NDArray[np.int64]]:
    """Groups of dense rows that are each other's neighbours and have ``size`` rows or more.

    Args:
        rows: int64 (r,), ascending row numbers.
        around: int64 (r, k), the neighbours of each.
        dense: bool (r,).
        copies: of every row.
    """
    at = np.minimum(np.searchsorted(rows, around), len(rows) - 1)
    linked = dense[:, None] & (rows[at] == around) & dense[at]
    left, slot = np.nonzero(linked)
    ones = np.ones(len(left), dtype=bool)
    edges = csr_array((ones, (left, at[left, slot])), shape=(len(rows), len(rows)))
    both = edges.multiply(edges.T)
    count, group = connected_components(csr_array(both), directed=False)
    weight = np.bincount(group[dense], copies[rows[dense]], minlength=count)
    return [rows[dense & (group == number)] for number in np.flatnonzero(weight >= size)]
