"""The processes of the chaos experiment: leased workers that keep a log, and plain consumers.

``chaos_worker.py leased`` is the real worker with :mod:`hash_task`; it writes a line for each
publication. ``chaos_worker.py plain`` takes jobs as the earlier workers do: ``BLPOP``, one fixed
temporary name, no acknowledgement.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import redis
from hash_task import MODEL, TASKS

from reddit_assets.corpus.layout import Layout
from reddit_assets.ledger.connection import connect, redis_errors
from reddit_assets.ledger.job import Claim, Kind
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.settings import load_settings
from reddit_assets.tasks.messages import Finished
from reddit_assets.worker.display import Display
from reddit_assets.worker.outcomes import Outcomes
from reddit_assets.worker.slot import WorkerSlot
from reddit_assets.worker.worker import Worker


def note(line: str) -> None:
    """One line into the experiment's log; short appends are not interleaved."""
    descriptor = os.open(os.environ["CHAOS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, (line + "\n").encode())
    finally:
        os.close(descriptor)


class LoggedOutcomes(Outcomes):
    """Says of every publication whether its token held before and after."""

    def publish(self, slot: WorkerSlot, claim: Claim, event: Finished) -> None:
        super().publish(slot, claim, event)
        entry = f"{slot.queue.prefix}job:{claim.key}"
        found = self._stop.patiently(lambda: _fields(slot.queue, entry))
        state, token = found or (None, None)
        # Only another holder makes it late. A server that was killed may have forgotten the last
        # second, and with it who held what.
        other = "late" if state == "leased" else "forgotten"
        verdict = "held" if token == claim.token else other
        note(f"publish {claim.key} {claim.token} {verdict}")


class LoggedWorker(Worker):
    """The real worker, watched."""

    outcomes_type = LoggedOutcomes


def _fields(queue: JobQueue, entry: str) -> list[str | None]:
    with redis_errors(queue.client):
        return queue.client.hmget(entry, "state", "token")


def leased() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(message)s")
    settings = load_settings()
    layout = Layout.from_settings(settings)
    queue = JobQueue(connect(settings), Kind.EMBED)
    with Display() as display:
        return LoggedWorker([queue], settings, layout, display, tasks=TASKS).run()


def plain() -> None:
    client = redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=10)
    while True:
        try:
            item = client.blpop(["phase4_todo_queue"], timeout=1)
        except (redis.ConnectionError, redis.TimeoutError):
            time.sleep(0.5)
            continue
        if item is None:
            continue
        job = json.loads(item[1])
        output = Path(job["output_path"])
        if output.exists():
            continue
        note(f"plain {job['key']} - -")
        time.sleep(0.1)  # the leased workers start slower and should get their share
        table = pq.read_table(job["input_path"])
        for index in range(MODEL.dimension):
            column = pa.array(np.full(table.num_rows, 1.0 if index == 0 else 0.0))
            table = table.append_column(f"emb_{index:03d}", column)
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(f"{output}.tmp")
        pq.write_table(table, temporary, compression="zstd")
        try:
            temporary.rename(output)
        except FileNotFoundError:
            continue  # two plain consumers share the name: the other one renamed it


if __name__ == "__main__":
    raise SystemExit(leased() if sys.argv[1] == "leased" else plain())
