"""Records a tree and a queue of the version that runs it, for `test_upgrades.py`.

``python -m reddit_assets_tests.record_version reddit_assets_tests/recorded/<version>``, once before
a release. Needs Valkey, the model and a backend. Works with every version from 0.1.0 on.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import Failure
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.intake import Intake
from reddit_assets.ledger.job import Job, Kind, Result
from reddit_assets.ledger.planner import queue_wanted
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.ledger.waiters import open_run
from reddit_assets.local.servers import ValkeyServer, free_port
from reddit_assets.settings import Settings
from reddit_assets.worker.run import run_worker
from reddit_assets.workspace import Workspace
from reddit_assets_tests.factories import write_chain

TEXTS = ("a cup of tea", "the kettle boils", "green tea or black", "a pot for two", "milk first")


def dump(client: Any) -> dict[str, dict[str, Any]]:
    """All keys with type and content."""
    readers = {
        "string": client.get,
        "hash": client.hgetall,
        "list": lambda key: client.lrange(key, 0, -1),
        "set": lambda key: sorted(client.smembers(key)),
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        "stream": lambda key: client.xrange(key),
    }
    found = {}
    for key in sorted(client.keys()):
        kind = client.type(key)
        # Replies expire; they are in a form of their own.
        if ":reply:" not in key:
            found[key] = {"type": kind, "value": readers[kind](key)}
    return found


def fill(queue: JobQueue, layout: Layout) -> None:
    """One job in each place."""
    intake = Intake(queue, layout)

    def job(name: str) -> Job:
        return Job(queue.kind, f"as/Tea/{name}", "100-1700000000000000000")

    def claim() -> Any:
        (found,) = intake.claim("old-worker", 1, 30.0, alone=True).claims
        return found

    failure = Failure("The file is not parquet.", "Replace it.", type="BadFileError")
    for name in ("leased", "delayed", "dead", "done"):
        queue.enqueue([job(name)], layout)
        found = claim()
        if name == "delayed":
            queue.fail(found, failure, max_attempts=3, retry_seconds=10)
        elif name == "dead":
            queue.fail(found, failure, max_attempts=1, retry_seconds=10)
        elif name == "done":
            result = Result(found.id, "embeddings", found.key, data_version="v1")
            queue.acknowledge(found, result, rows=5, tokens=50, seconds=1.0)
    queue.enqueue([job("public")], layout)
    queue.enqueue([job("stale")], layout, lane="stale")
    queue.enqueue([job("urgent")], layout, urgent=True)
    open_run(queue, "run-1", 3600)
    queue.enqueue([job("of-run")], layout, run="run-1")
    foreign = {"input_path": "/data/chains/as/Tea/foreign.parquet"}
    foreign["output_path"] = "/data/embeddings/as/Tea/foreign.parquet"
    queue.client.rpush(queue.public, json.dumps(foreign))


def main(target: Path) -> None:
    layout = Layout.of(target.absolute())
    for number, key in enumerate(("as/Tea/c_0", "as/Tea/c_1", "bo/Pots/c_0")):
        write_chain(layout, key, TEXTS[number:] + TEXTS[:number])
    with (
        tempfile.TemporaryDirectory() as folder,
        ValkeyServer(Path(folder), port=free_port(), config={"appendonly": "no"}) as server,
    ):
        settings = Settings(root=target.absolute(), redis_url=server.url, report="none")
        workspace = Workspace.load(settings)
        for _ in range(2):  # files, then the subreddits that they make ready
            queue_wanted(workspace.scanner(), workspace.queues)
            run_worker(settings, until_empty=True)
        # Another root, so that no host's path is recorded.
        client = connect(settings)
        client.flushall()
        fill(JobQueue(client, Kind.EMBED), Layout.of(Path("/data")))
        record = {"at": time.time(), "keys": dump(client)}
    for page in target.glob("clusters/*/*/map.*"):
        page.unlink()  # for people: nothing reads it again
    times = {
        str(path.relative_to(target)): os.stat(path).st_mtime_ns
        for path in sorted(target.rglob("*"))
        if path.is_file()
    }
    (target / "queue.json").write_text(json.dumps(record, indent=1) + "\n")
    (target / "times.json").write_text(json.dumps(times, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
