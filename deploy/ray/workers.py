"""Workers on a Ray cluster: `ray job submit -- python workers.py --workers 8 --gpus 1`.

A worker is just a process; Ray finds the places. Needed on each node: the package, the trees, and
the variables of `../environment.example`, by Ray's runtime environment or the nodes' own.
"""

import argparse
import os
import subprocess
import sys

import ray


@ray.remote(max_retries=-1)
def work(kind: str, backend: str, cpus: int) -> int:
    """A worker until no job is left; one whose node is lost begins on another."""
    command = [sys.executable, "-m", "reddit_assets.cli", "worker"]
    # Ray counts processors, and binds none.
    return subprocess.call(
        [*command, "--kind", kind, "--backend", backend, "--until-empty"],
        env={**os.environ, "REDDIT_THREADS": str(cpus)},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", default="embed")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--cpus", type=int, default=4)
    parser.add_argument("--gpus", type=float, default=0)
    options = parser.parse_args()
    ray.init()
    place = work.options(num_cpus=options.cpus, num_gpus=options.gpus)
    workers = [
        place.remote(options.kind, options.backend, options.cpus) for _ in range(options.workers)
    ]
    sys.exit(any(ray.get(workers)))
