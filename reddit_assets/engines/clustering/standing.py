"""A clustering that stands: what it says of each vector, and how much has changed since.

A full clustering moves rows at the soft edges of density clusters, whatever it starts from. So it
is repeated only when enough has changed; in between, :mod:`.placing` adds the new rows.

Everything a clustering says of a row depends on its vector, so rows are known by the hashes of
their vectors, rounded to float16: to keep vectors in another format changes nothing. A post whose
text was edited is a new row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.canonical import canonical_order, row_hashes
from reddit_assets.engines.clustering.results import Clustering, Rows

__all__ = ["Standing", "vector_keys"]


@dataclass(frozen=True)
class Standing:
    """What a clustering says of m distinct vectors.

    Attributes:
        hashes: uint64 (m,), of the vectors, ascending.
        ids: int32 (m,), persistent cluster ids, −1 is noise.
        probabilities, outlier_scores: float32 (m,).
        xy: float32 (m, 2), places on the map.
        recent: bool (m,), placed since the full clustering.
        cluster_ids: int32 (c,), ascending.
        cluster_topics, cluster_themes: int32 (c,), their persistent ids.
        clustered: distinct vectors that the full clustering saw.
        gone: how many of these have vanished since.
    """

    hashes: NDArray[np.uint64]
    ids: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    outlier_scores: NDArray[np.float32]
    xy: NDArray[np.float32]
    recent: NDArray[np.bool_]
    cluster_ids: NDArray[np.int32]
    cluster_topics: NDArray[np.int32]
    cluster_themes: NDArray[np.int32]
    clustered: int
    gone: int

    @classmethod
    def of(
        cls,
        vectors: NDArray[np.float32],
        clustering: Clustering,
        ids: NDArray[np.int32],
        *,
        excluded: NDArray[np.bool_] | None = None,
        before: Standing | None = None,
    ) -> Standing:
        """What stands after a clustering.

        Args:
            vectors: float32 (n, d), that were clustered.
            clustering: of these.
            ids: int32 (clusters,), the persistent id of each cluster number.
            excluded: bool (n,), as it was given to the clustering.
            before: what the vectors were placed into; ``None`` after a full clustering.
        """
        rows = canonical_order(vectors, 1, Rows.of(vectors, excluded).counted).kept
        hashes, first = np.unique(vector_keys(vectors[rows]), return_index=True)
        rows = rows[first]
        recent, gone, clustered = np.zeros(len(rows), dtype=bool), 0, len(rows)
        if before is not None:
            at, known = before.find(hashes)
            recent = ~known | before.recent[at] if len(before.hashes) else ~known
            gone, clustered = before.gone + before.vanished(hashes), before.clustered
        order = np.argsort(ids, kind="stable")
        return cls(
            hashes=hashes,
            ids=np.append(ids, np.int32(-1))[clustering.labels[rows]].astype(np.int32),
            probabilities=clustering.probabilities[rows],
            outlier_scores=clustering.outlier_scores[rows],
            xy=np.stack([clustering.x[rows], clustering.y[rows]], axis=1),
            recent=recent,
            cluster_ids=ids[order].astype(np.int32),
            cluster_topics=clustering.cluster_topics[order],
            cluster_themes=clustering.cluster_themes[order],
            clustered=clustered,
            gone=gone,
        )

    def find(self, hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Where each of the hashes stands, and whether it stands here at all."""
        at = np.minimum(np.searchsorted(self.hashes, hashes), max(len(self.hashes) - 1, 0))
        known = np.zeros(len(hashes), dtype=bool)
        if len(self.hashes):
            known = self.hashes[at] == hashes
        return at.astype(np.int64), known

    def vanished(self, hashes: NDArray[np.uint64]) -> int:
        """How many vectors of the full clustering are not among these."""
        settled = self.hashes[~self.recent]
        return len(settled) - int(np.isin(settled, hashes, assume_unique=False).sum())

    def changed_share(
        self, vectors: NDArray[np.float32], excluded: NDArray[np.bool_] | None = None
    ) -> float:
        """Vectors that came or went since the full clustering, per vector that it saw.

        Args:
            vectors, excluded: tonight's.
        """
        hashes = np.unique(vector_keys(vectors[Rows.of(vectors, excluded).counted]))
        at, known = self.find(hashes)
        came = int((~known).sum()) + int(self.recent[at[known]].sum())
        return (came + self.gone + self.vanished(hashes)) / max(self.clustered, 1)

    def also_known_as(
        self, old: NDArray[np.uint64], new: NDArray[np.uint64], tonight: NDArray[np.uint64]
    ) -> Standing:
        """The same, with rows whose vectors have been computed again under their new hashes.

        Args:
            old, new: uint64 (r,), hashes of the same rows, before and now.
            tonight: hashes of all of tonight's rows; old ones that are not among them go.
        """
        at, known = self.find(old)
        at, names = at[known], new[known]
        stays = ~np.isin(np.arange(len(self.hashes)), at) | np.isin(self.hashes, tonight)
        rows = np.concatenate([np.flatnonzero(stays), at])
        hashes, first = np.unique(np.concatenate([self.hashes[stays], names]), return_index=True)
        rows = rows[first]
        return replace(
            self,
            hashes=hashes,
            ids=self.ids[rows],
            probabilities=self.probabilities[rows],
            outlier_scores=self.outlier_scores[rows],
            xy=self.xy[rows],
            recent=self.recent[rows],
        )


def vector_keys(vectors: NDArray[np.float32]) -> NDArray[np.uint64]:
    """What vectors are known by: hashes of their float16 rounding, uint64 (n,)."""
    keys = np.empty(len(vectors), dtype=np.uint64)
    for start in range(0, len(vectors), 65_536):
        part = vectors[start : start + 65_536]
        keys[start : start + 65_536] = row_hashes(part.astype(np.float16).astype(np.float32))
    return keys
