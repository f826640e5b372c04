"""Growth from 10,000 rows upwards on the real vectors, jittered: seconds, memory and detail.

A fifth of the rows are planted groups of 500 around one real vector each. A group is *found* where
a cluster shares at least half of their rows with it (Jaccard).

Each size runs in a process of its own, compiled code warm, and reports the peak resident size.

Example:
    python benchmarks/clustering_scale.py --rows 10000 30000 100000 1000000
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from clustering_common import RESULTS, arguments, jittered, load, planted, surroundings, write

from reddit_assets.engines.clustering.clusterer import cluster
from reddit_assets.engines.clustering.params import ClusterParams


def found_share(group: np.ndarray, labels: np.ndarray) -> float:
    """The share of the groups that some cluster is at least half of (Jaccard)."""
    clusters = int(labels.max()) + 1
    together = (group >= 0) & (labels >= 0)
    pairs, common = np.unique(group[together] * clusters + labels[together], return_counts=True)
    of, by = np.divmod(pairs, max(clusters, 1))
    either = np.bincount(group[group >= 0])[of] + np.bincount(labels[labels >= 0])[by] - common
    return len(np.unique(of[common >= 0.5 * either])) / (int(group.max()) + 1)


def one(vectors_file: Path, rows: int, memory_mb: int, spread: float) -> dict[str, Any]:
    """Cluster ``rows`` rows in this process."""
    vectors = np.load(vectors_file, mmap_mode="r")
    real = np.asarray(vectors)
    cluster(jittered(real, 600))
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    x, group = planted(real, rows, spread=spread)
    stages: dict[str, float] = {}
    start, work = time.perf_counter(), time.process_time()
    found = cluster(
        x,
        ClusterParams(memory_mb=memory_mb),
        lambda stage: stages.__setitem__(stage, time.perf_counter() - start),
    )
    seconds, work = time.perf_counter() - start, time.process_time() - work
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    marks = [*stages.values(), seconds]
    spent = {name: round(marks[at + 1] - marks[at], 2) for at, name in enumerate(stages)}
    return {
        "rows": rows,
        "seconds": round(seconds, 2),
        "processor_seconds": round(work, 2),
        "base_mb": round(base),
        "peak_mb": round(peak),
        "clusters": found.info["clusters"],
        "noise_share": round(found.info["noise_share"], 4),
        "planted": int(group.max()) + 1,
        "planted_found": round(found_share(group, found.labels), 4),
        "clustered_rows": found.info["clustered_rows"],
        "assigned_share": round(found.info["assigned_share"], 4),
        "memory_setting_mb": memory_mb,
        "jitter": spread,
        "stages": json.dumps(spent),
    }


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--memory-mb", type=int, default=6_000)
    parser.add_argument(
        "--spread", type=float, default=0.05, help="Standard deviation of the jitter per dimension."
    )
    parser.add_argument("--vectors", type=Path, help="Of a run in its own process (internal).")
    args = parser.parse_args()
    if args.vectors:
        print(json.dumps(one(args.vectors, args.rows[0], args.memory_mb, args.spread)))
        return
    vectors, _ = load(args.root)
    folder = tempfile.TemporaryDirectory()
    store = Path(folder.name) / "vectors.npy"
    np.save(store, vectors)
    results: list[dict[str, Any]] = []
    for rows in args.rows:
        here = surroundings()
        command = [sys.executable, "-W", "ignore", __file__]
        command += ["--vectors", str(store), "--rows", str(rows)]
        command += ["--memory-mb", str(args.memory_mb), "--spread", str(args.spread)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        result = json.loads(done.stdout.splitlines()[-1])
        if results:
            first = results[0]
            ratio = math.log(rows / first["rows"])
            grown = [result["peak_mb"] - result["base_mb"], first["peak_mb"] - first["base_mb"]]
            for name in ("time", "processor_time"):
                column = "seconds" if name == "time" else "processor_seconds"
                slower = math.log(result[column] / first[column])
                result[f"{name}_exponent"] = round(slower / ratio, 3)
            result["memory_exponent"] = round(
                math.log(result["peak_mb"] / first["peak_mb"]) / ratio, 3
            )
            result["memory_exponent_above_base"] = round(
                math.log(max(grown[0], 1) / max(grown[1], 1)) / ratio, 3
            )
        results.append({**result, **here})
        print(result, flush=True)
    folder.cleanup()
    write(args.out or RESULTS / "clustering_scale.csv", results)


if __name__ == "__main__":
    main()
