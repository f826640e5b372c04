"""14 nights with 2 % new rows each, or with 2 % new and 2 % removed: what moves, what it costs.

Each night is clustered as the product does it (placed into the standing clustering, in full when
a fifth of the rows has changed) and, as the peer in the same run, anew in full with ids kept by
matching, as it was before there were standing clusterings. A row *moves* when its persistent id
differs from the night before, noise counted as an id. Figures of the engine alone: files, keywords
and the map's page cost the same both ways.

Example:
    python benchmarks/clustering_nights.py
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from clustering_common import RESULTS, arguments, load, surroundings, timed, write
from sklearn.metrics import v_measure_score

from reddit_assets.engines.clustering.clusterer import cluster
from reddit_assets.engines.clustering.identity import Changes, Previous, keep_identities
from reddit_assets.engines.clustering.placing import place
from reddit_assets.engines.clustering.results import Clustering
from reddit_assets.engines.clustering.standing import Standing

NIGHTS = 14
SHARE = 0.02
FULL_AT = 0.2


@dataclass
class Series:
    """One way of clustering night after night."""

    stand: bool
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    previous: Previous | None = None
    standing: Standing | None = None

    def night(self, pool: np.ndarray, rows: np.ndarray) -> tuple[Clustering, Changes, float, bool]:
        """Cluster these rows; the clustering, the changes, the seconds, whether it was in full."""
        vectors = np.ascontiguousarray(pool[rows])

        def work() -> tuple[Clustering, bool]:
            stood = self.standing
            if self.stand and stood is not None and stood.changed_share(vectors) <= FULL_AT:
                return place(vectors, stood), False
            return cluster(vectors), True

        (found, full), seconds = timed(work)
        _, old, new = np.intersect1d(self.rows, rows, return_indices=True)
        changes = keep_identities(self.ids[old], found.labels[new], self.previous, found.centroids)
        self.standing = Standing.of(
            vectors, found, changes.ids, before=None if full else self.standing
        )
        self.rows = rows
        self.ids = np.append(changes.ids, np.int32(-1))[found.labels].astype(np.int32)
        self.previous = Previous(changes.ids, found.centroids, changes.next_id)
        return found, changes, seconds, full


def nights(pool: np.ndarray, names: np.ndarray, *, remove: bool, seed: int) -> list[dict[str, Any]]:
    """The rows of the table of one series."""
    step = round(len(pool) * SHARE)
    first = len(pool) - NIGHTS * step
    ways = {"standing": Series(stand=True), "anew": Series(stand=False)}
    result = []
    for night in range(NIGHTS + 1):
        rows = np.arange(night * step if remove else 0, first + night * step)
        for way, series in ways.items():
            found, changes, seconds, full = series.night(pool, rows)
            result.append(
                {
                    "series": "2 % new, 2 % removed" if remove else "2 % new",
                    "seed": seed,
                    "night": night,
                    "way": way,
                    "full": int(full),
                    "rows": len(rows),
                    "clusters": len(found.centroids),
                    "moved_share": round(changes.moved_share or 0.0, 4),
                    "ids_kept_share": round(
                        1.0 if changes.kept_share is None else changes.kept_share, 4
                    ),
                    **changes.counts,
                    "v_measure": round(float(v_measure_score(names[rows], found.labels)), 4),
                    "noise": round(found.info["noise_share"], 4),
                    "seconds": round(seconds, 3),
                }
            )
        print(result[-2], result[-1], sep="\n", flush=True)
    return result


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A series in one row: medians over its nights, the first left out."""
    mine = {
        way: [row for row in rows if row["way"] == way and row["night"]]
        for way in ("standing", "anew")
    }

    def middle(way: str, name: str) -> float:
        return round(median(row[name] for row in mine[way]), 4)

    return {
        "series": rows[0]["series"],
        "seed": rows[0]["seed"],
        "night": "median",
        "moved_share": middle("standing", "moved_share"),
        "moved_share_most": max(row["moved_share"] for row in mine["standing"]),
        "moved_share_anew": middle("anew", "moved_share"),
        "ids_kept_share": middle("standing", "ids_kept_share"),
        "ids_kept_share_anew": middle("anew", "ids_kept_share"),
        "full": sum(row["full"] for row in mine["standing"]),
        "v_measure": middle("standing", "v_measure"),
        "v_measure_anew": middle("anew", "v_measure"),
        "noise": middle("standing", "noise"),
        "noise_anew": middle("anew", "noise"),
        "cost_share": round(middle("standing", "seconds") / middle("anew", "seconds"), 3),
    }


def main() -> None:
    parser = arguments(__doc__ or "")
    args = parser.parse_args()
    vectors, names = load(args.root)
    here = surroundings()
    cluster(np.ascontiguousarray(vectors[:2_000]))  # compiled code is warm
    table = []
    for seed in range(2):
        pick = np.random.default_rng(seed).permutation(len(vectors))[:10_000]
        pool = np.ascontiguousarray(vectors[pick])
        for remove in (False, True):
            rows = nights(pool, names[pick], remove=remove, seed=seed)
            table += [{**row, **here} for row in (summary(rows), *rows)]
    write(args.out or RESULTS / "clustering_nights.csv", table)


if __name__ == "__main__":
    main()
