"""10,000 pooled real rows: speed, V-measure and noise, beside the earlier system's recipe.

Each method is warm (run once before on fewer rows) and timed several times; the fastest run counts.

Example:
    python benchmarks/clustering_quality.py
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
from clustering_common import RESULTS, arguments, load, surroundings, timed, write
from sklearn.metrics import adjusted_rand_score, v_measure_score

from reddit_assets.engines.clustering.canonical import canonical_order
from reddit_assets.engines.clustering.clusterer import cluster
from reddit_assets.engines.clustering.graph import build_graph
from reddit_assets.engines.clustering.hdbscan_ import tree_clusters
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.engines.clustering.spanning import spanning_tree

ROWS = 10_000


def original(vectors: np.ndarray, seed: int | None) -> Any:
    from hdbscan import HDBSCAN
    from umap import UMAP

    space = UMAP(n_components=15, metric="cosine", n_neighbors=15, random_state=seed)
    model = HDBSCAN(min_cluster_size=5, min_samples=3, cluster_selection_method="leaf")
    flat = space.fit_transform(vectors)
    return flat, model.fit_predict(flat)


def selected(flat: np.ndarray, params: ClusterParams) -> Any:
    from hdbscan import HDBSCAN

    return HDBSCAN(
        min_cluster_size=params.min_cluster_size,
        min_samples=params.min_samples,
        cluster_selection_method=params.selection,
    ).fit_predict(flat)


def staged(vectors: np.ndarray) -> tuple[Any, float]:
    """The clustering, and the seconds of it that only the map's coordinates take."""
    marks: list[tuple[str, float]] = []
    found = cluster(vectors, None, lambda stage: marks.append((stage, time.perf_counter())))
    at = [stage for stage, _ in marks].index("map")
    return found, marks[at + 1][1] - marks[at][1]


def full_space(vectors: np.ndarray) -> Any:
    params = ClusterParams(reduction="none").resolve(len(vectors))
    graph = build_graph(vectors, 15, seed=42)
    edges = spanning_tree(vectors, graph, params.min_samples or 3)
    return tree_clusters(edges, len(vectors), params).labels


def hdbscan_full(vectors: np.ndarray) -> Any:
    from hdbscan import HDBSCAN

    model = HDBSCAN(min_cluster_size=5, min_samples=3, cluster_selection_method="leaf")
    return model.fit_predict(vectors.astype(np.float64))


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--subsets", type=int, default=3, help="Random subsets to average over.")
    parser.add_argument("--quick", action="store_true", help="Leave out hdbscan in full space.")
    args = parser.parse_args()
    vectors, names = load(args.root)
    rows: list[dict[str, Any]] = []
    warm = vectors[:600]
    original(warm, 42), original(warm, None), cluster(warm)
    cluster(vectors[:5_000]), full_space(warm)

    def add(method: str, subset: int, y: Any, labels: Any, seconds: float, **more: Any) -> None:
        rows.append(
            {
                "method": method,
                "rows": len(y),
                "subset": subset,
                "seconds": round(seconds, 3),
                "v_measure": round(v_measure_score(y, labels), 4),
                "noise_share": round(float((labels < 0).mean()), 4),
                "clusters": int(labels.max()) + 1,
                **more,
                **here,
            }
        )
        print(rows[-1], flush=True)

    for subset in range(args.subsets):
        here = surroundings()
        pick = np.random.default_rng(subset).permutation(len(vectors))[:ROWS]
        x, y = np.ascontiguousarray(vectors[pick]), names[pick]
        params = ClusterParams().resolve(ROWS)
        ours = [timed(lambda x=x: staged(x)) for _ in range(5)]
        (found, for_map), seconds = min(ours, key=lambda pair: pair[1])
        add("node (default), with map", subset, y, found.labels, seconds)
        add("node (default), time without the map's", subset, y, found.labels, seconds - for_map)
        (flat, labels), seconds = min(
            (timed(lambda x=x: original(x, 42)) for _ in range(2)), key=lambda pair: pair[1]
        )
        add("original: UMAP (seeded) + hdbscan 5/3/leaf", subset, y, labels, seconds)
        labels, more = timed(lambda flat=flat, params=params: selected(flat, params))
        add("UMAP (seeded) + the default's selection", subset, y, labels, seconds + more)
        (flat, labels), seconds = timed(lambda x=x: original(x, None))
        add("original: UMAP (unseeded, parallel)", subset, y, labels, seconds)
        plain = replace(ClusterParams(reduction="umap"), seed=subset)
        found, seconds = timed(lambda x=x, plain=plain: cluster(x, plain))
        add("umap setting, with map", subset, y, found.labels, seconds)
        if subset == 0:
            # Rows in our canonical order for both: hdbscan's result depends on the order.
            x = x[canonical_order(x, ROWS).kept]
            y = y[canonical_order(np.ascontiguousarray(vectors[pick]), ROWS).kept]
            mine, seconds = min(
                (timed(lambda x=x: full_space(x)) for _ in range(3)), key=lambda pair: pair[1]
            )
            add("full space: ours", subset, y, mine, seconds)
            if not args.quick:
                theirs, seconds = timed(lambda x=x: hdbscan_full(x))
                ari = round(adjusted_rand_score(theirs, mine), 4)
                add("full space: hdbscan 5/3/leaf", subset, y, theirs, seconds, ari_to_ours=ari)
                turn = np.random.default_rng(9).permutation(len(x))
                again = np.empty(len(x), dtype=np.int64)
                again[turn], seconds = timed(lambda x=x, turn=turn: hdbscan_full(x[turn]))
                ari = round(adjusted_rand_score(theirs, again), 4)
                add("hdbscan, rows shuffled", subset, y, again, seconds, ari_to_hdbscan=ari)
    write(args.out or RESULTS / "clustering_quality.csv", rows)


if __name__ == "__main__":
    main()
