"""A second night with 2 % new rows: how many cluster ids continue, how many rows move.

Night one clusters 98 % of the rows, night two all of them. A cluster of night one is *still there*
when some cluster of night two has at least half of its rows in common with it (Jaccard ≥ 0.5, on
the rows of both nights). Measures nothing that depends on the host's speed.

Example:
    python benchmarks/clustering_nights.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
from clustering_common import RESULTS, arguments, load, surroundings, write

from reddit_assets.engines.clustering.clusterer import cluster
from reddit_assets.engines.clustering.identity import Previous, keep_identities

NEW_SHARE = 0.02


def nights(name: str, vectors: np.ndarray, seed: int) -> dict[str, Any]:
    """Two nights of the same subreddit."""
    n = len(vectors)
    rng = np.random.default_rng(seed)
    old_rows = np.sort(rng.permutation(n)[: round(n * (1 - NEW_SHARE))])
    first = cluster(np.ascontiguousarray(vectors[old_rows]))
    second = cluster(vectors)
    clusters = len(first.centroids)
    previous = Previous(np.arange(clusters, dtype=np.int32), first.centroids, clusters)
    old, new = first.labels, second.labels[old_rows]
    changes = keep_identities(old, new, previous, second.centroids)
    count = len(second.centroids)
    both = (old >= 0) & (new >= 0)
    shared = np.zeros((clusters, count), dtype=np.int64)
    np.add.at(shared, (old[both], new[both]), 1)
    size_old = np.bincount(old[old >= 0], minlength=clusters)[:, None]
    size_new = np.bincount(new[new >= 0], minlength=count)[None, :]
    jaccard = shared / np.maximum(size_old + size_new - shared, 1)
    there = jaccard.max(axis=1, initial=0) >= 0.5
    kept = np.isin(np.arange(clusters), changes.ids)
    return {
        "data": name,
        "rows": n,
        "seed": seed,
        "clusters_before": clusters,
        "clusters_after": count,
        "still_there": int(there.sum()),
        "of_these_kept": int((there & kept).sum()),
        "kept_of_all": int(kept.sum()),
        "rows_moved_share": round(float(changes.moved_share or 0), 4),
        **changes.counts,
    }


def main() -> None:
    parser = arguments(__doc__ or "")
    args = parser.parse_args()
    vectors, names = load(args.root)
    here = surroundings()
    here.pop("load_before")
    rows = []
    for seed in range(2):
        pick = np.random.default_rng(seed).permutation(len(vectors))[:10_000]
        rows.append({**nights("pool", np.ascontiguousarray(vectors[pick]), seed), **here})
        print(rows[-1], flush=True)
    for name in np.unique(names):
        rows.append({**nights(str(name), vectors[names == name], 0), **here})
        print(rows[-1], flush=True)
    write(args.out or RESULTS / "clustering_nights.csv", rows)


if __name__ == "__main__":
    main()
