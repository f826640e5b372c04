"""Growth from 10,000 rows upwards on the real vectors, jittered: seconds and peak memory.

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
from clustering_common import RESULTS, arguments, jittered, load, surroundings, write

from reddit_assets.engines.clustering.clusterer import cluster
from reddit_assets.engines.clustering.params import ClusterParams


def one(vectors_file: Path, rows: int, memory_mb: int, spread: float) -> dict[str, Any]:
    """Cluster ``rows`` rows in this process."""
    vectors = np.load(vectors_file, mmap_mode="r")
    real = np.asarray(vectors)
    cluster(jittered(real, 600))
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    x = jittered(real, rows, spread=spread)
    stages: dict[str, float] = {}
    start = time.perf_counter()
    found = cluster(
        x,
        ClusterParams(memory_mb=memory_mb),
        lambda stage: stages.__setitem__(stage, time.perf_counter() - start),
    )
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    marks = [*stages.values(), seconds]
    spent = {name: round(marks[at + 1] - marks[at], 2) for at, name in enumerate(stages)}
    return {
        "rows": rows,
        "seconds": round(seconds, 2),
        "base_mb": round(base),
        "peak_mb": round(peak),
        "clusters": found.info["clusters"],
        "noise_share": round(found.info["noise_share"], 4),
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
            slower = math.log(result["seconds"] / first["seconds"])
            result["time_exponent"] = round(slower / ratio, 3)
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
