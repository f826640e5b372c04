"""What a clustering is asked to do: one frozen object, its adaptive defaults, its fingerprint."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Literal

from reddit_assets.settings import Settings

__all__ = ["FORMAT", "ClusterParams"]

#: Raised by hand when the same parameters would give other labels or other columns.
FORMAT = 3

Reduction = Literal["node", "umap", "none"]
Selection = Literal["eom", "leaf"]


@dataclass(frozen=True)
class ClusterParams:
    """Parameters of a clustering. ``None`` means: adapt to the rows, see :meth:`resolve`.

    Attributes:
        reduction: space that HDBSCAN sees: ``node`` (graph embedding of the cosine neighbour
            graph), ``umap`` (the earlier system's) or ``none`` (all dimensions).
        n_components: dimensions after the reduction.
        n_neighbors: neighbours per row in the graph.
        min_cluster_size: smallest cluster, rows.
        min_samples: HDBSCAN's min_samples.
        selection: HDBSCAN's cluster selection.
        noise_level: evoc's node-embedding noise level, 0 (cluster more) to 1 (drop more).
        seed: seed of everything random.
        max_rows: rows clustered together at most; more are cut into regions.
        placeholders: texts in lower case that stand for no text: their rows are noise.
        recluster_share: share of the rows that must have come or gone since the last full
            clustering for the next one; not part of the fingerprint, since it decides when, not
            how.
        memory_mb: memory a clustering may use before it works on a sample, MiB.
        threads: compute threads; not part of the fingerprint, since labels do not depend on it.
    """

    reduction: Reduction = "node"
    n_components: int | None = None
    n_neighbors: int = 15
    min_cluster_size: int | None = None
    min_samples: int | None = None
    selection: Selection | None = None
    noise_level: float = 0.1
    seed: int = 42
    max_rows: int = 50_000
    placeholders: tuple[str, ...] = ("[deleted]", "[removed]")
    recluster_share: float = 0.2
    memory_mb: int = 6_000
    threads: int | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> ClusterParams:
        """The parameters that the settings ask for."""
        return cls(
            reduction=settings.reduction,
            n_components=settings.n_components,
            n_neighbors=settings.n_neighbors,
            min_cluster_size=settings.min_cluster_size,
            min_samples=settings.min_samples,
            selection=settings.selection_method,
            seed=settings.seed,
            max_rows=settings.cluster_rows,
            placeholders=_words(settings.placeholders),
            recluster_share=settings.recluster_share,
            memory_mb=settings.cluster_memory_mb,
            threads=settings.threads,
        )

    def resolve(self, rows: int) -> ClusterParams:
        """The same with every ``None`` filled in for a subreddit of ``rows`` rows.

        ``umap`` takes the earlier system's numbers: 15 dimensions, 5 / 3 / leaf. ``none`` takes
        5 / 3 / leaf as well, whose meaning in the full space is known. ``node`` takes 6 dimensions,
        eom, a smallest cluster of √rows / 4 between 5 and 250 (6 at 600 rows, 25 at 10,000, 250
        at a million), and ``min_samples`` of 0.4 times that between 3 and 10.
        """
        if self.reduction == "node":
            size = min(250, max(5, round(math.sqrt(max(rows, 0)) / 4)))
            size = self.min_cluster_size or size
            components, samples, selection = 6, min(10, max(3, round(0.4 * size))), "eom"
        else:
            size, components, samples, selection = 5, 15, 3, "leaf"
        chosen: Selection = "eom" if (self.selection or selection) == "eom" else "leaf"
        return replace(
            self,
            n_components=self.n_components or components,
            min_cluster_size=self.min_cluster_size or size,
            min_samples=self.min_samples or samples,
            selection=chosen,
        )

    def for_sample(self, rows: int, sampled: int) -> ClusterParams:
        """Resolved parameters for ``sampled`` of ``rows`` rows.

        A smallest cluster that was asked for is meant in rows of the whole: the sample holds its
        share of them.
        """
        if self.min_cluster_size is None or sampled >= rows:
            return self.resolve(sampled)
        size = max(5, round(self.min_cluster_size * sampled / rows))
        return replace(self, min_cluster_size=size).resolve(sampled)

    @property
    def fingerprint(self) -> str:
        """32 hex digits over everything that is wanted of the labels and columns.

        ``threads`` changes nothing, and ``memory_mb`` is a property of the host, like its device:
        it decides above which size a sample is clustered, which the metadata say.
        ``recluster_share`` decides when the next full clustering is due.
        """
        fields = asdict(self)
        del fields["threads"], fields["memory_mb"], fields["recluster_share"]
        text = json.dumps({"format": FORMAT, **fields}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _words(listed: str) -> tuple[str, ...]:
    """A comma-separated list, as texts are compared: trimmed, in lower case, in order."""
    return tuple(sorted({word.strip().casefold() for word in listed.split(",")} - {""}))
