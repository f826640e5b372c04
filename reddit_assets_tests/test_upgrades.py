"""Old and new: trees and queues of earlier versions, and hosts of several versions side by side.

What was recorded is in ``recorded/<version>``; ``record_version.py`` made it.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.provenance import read_output
from reddit_assets.corpus.scan import Reason, Verdict
from reddit_assets.errors import StartupError
from reddit_assets.figures import Observer
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.intake import Intake
from reddit_assets.ledger.job import Kind, Result
from reddit_assets.ledger.mending import mend_queue
from reddit_assets.ledger.outbox import Outbox
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.ledger.server import FORMAT, check_format
from reddit_assets.ledger.waiters import waited_for, withdraw
from reddit_assets.settings import Settings
from reddit_assets.workspace import Workspace

RECORDED = sorted((Path(__file__).parent / "recorded").iterdir())
DATA = Layout.of(Path("/data"))


@pytest.fixture(params=RECORDED, ids=lambda folder: folder.name)
def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of what was recorded, with the files' times as they were."""
    root = tmp_path / "root"
    shutil.copytree(request.param, root)
    for name, mtime in json.loads((root / "times.json").read_text()).items():
        os.utime(root / name, ns=(mtime, mtime))
    return root


def load(client: Any, keys: dict[str, dict[str, Any]]) -> None:
    for key, entry in keys.items():
        value = entry["value"]
        match entry["type"]:
            case "string":
                client.set(key, value)
            case "hash":
                client.hset(key, mapping=value)
            case "list":
                client.rpush(key, *value)
            case "set":
                client.sadd(key, *value)
            case "zset":
                client.zadd(key, dict(value))
            case "stream":
                for entry_id, fields in value:
                    client.xadd(key, fields, id=entry_id)
            case kind:
                raise AssertionError(kind)


@pytest.fixture
def queue(recorded: Path, valkey_url: str) -> JobQueue:
    client = connect(Settings(redis_url=valkey_url))
    load(client, json.loads((recorded / "queue.json").read_text())["keys"])
    return JobQueue(client, Kind.EMBED)


@pytest.mark.parametrize("deep", [False, True])
def test_an_older_tree_is_read_and_its_embeddings_are_fresh(recorded: Path, *, deep: bool) -> None:
    # Given a tree of an older version, also where a copy has lost its times
    workspace = Workspace.of_trees(Settings(root=recorded))
    for _ in range(2):
        scanner = workspace.scanner(deep=deep)
        statuses = list(scanner.scan())
        files = [file.verdict for status in statuses for file in status.files]
        assert files == [Verdict.FRESH] * 3
        # A version may cluster in another way (params.FORMAT, CHANGELOG.md), and then says so.
        for status in statuses:
            assert status.cluster is not None
            if status.cluster.verdict is not Verdict.FRESH:
                assert status.cluster.reason is Reason.OTHER_SETTINGS
        for path in recorded.rglob("chains/**/*.parquet"):
            os.utime(path)
    # If an input changes, then it is noticed
    (recorded / "chains/as/Tea/c_0.parquet").write_bytes(
        (recorded / "chains/bo/Pots/c_0.parquet").read_bytes()
    )
    workspace = Workspace.of_trees(Settings(root=recorded, settle_seconds=0))
    (file,) = [f for f in workspace.scanner().subreddit("as/Tea").files if f.key.endswith("c_0")]
    assert file.verdict is Verdict.STALE


def test_every_output_carries_its_format(recorded: Path) -> None:
    for path in [
        *recorded.glob("embeddings/*/*/*.parquet"),
        *recorded.glob("clusters/*/*/*.parquet"),
    ]:
        made = read_output(path).provenance
        assert made is not None
        assert made.format >= 1


def test_a_newer_worker_does_the_jobs_of_an_older_queue(queue: JobQueue) -> None:
    # Given a queue of an older version, with a job in each place
    check_format(queue)
    counts = queue.counts()
    assert (counts.queued, counts.delayed, counts.leased, counts.dead) == (4, 1, 1, 1)
    assert counts.outbox == 1
    # Then nothing is out of place, and its result and dead letter are understood
    differences = mend_queue(
        queue, lambda key: False, dry_run=True, lost_seconds=900, retry_seconds=1
    )
    assert {d.said for d in differences} <= {
        "leases that ran out and nobody took back",
        "jobs whose wait is over and nobody queued",
    }
    (entry,) = Outbox(queue, "r").take(10)
    assert (entry.result.partition, entry.result.data_version) == ("as/Tea/done", "v1")
    (letter,) = queue.dead_letters()
    assert (letter.key, letter.error) == ("as/Tea/dead", "The file is not parquet.")
    # If the old worker is gone and the dead letter is retried
    queue.reap(retry_seconds=1)
    queue.retry(["as/Tea/dead"])
    # Then every job can be claimed and acknowledged, also the line of the earlier system
    done = []
    intake = Intake(queue, DATA)
    while claims := intake.claim("new-worker", 3, 60, alone=True).claims:
        for claim in claims:
            assert queue.acknowledge(claim, Result(claim.id, "embeddings", claim.key), size=1)
            done.append(claim.key.removeprefix("as/Tea/"))
    expected = ["dead", "delayed", "foreign", "leased", "of-run", "public", "stale", "urgent"]
    assert sorted(done) == expected
    assert not queue.counts().unfinished
    # And the run that waited has its result
    assert waited_for(queue, "run-1") == set()
    withdraw(queue, "run-1")
    assert len(Outbox(queue, "r")) == len(expected) + 1


def test_an_older_worker_takes_part_in_a_newer_queue(queue: JobQueue) -> None:
    """It calls our scripts' older forms; redis keeps both, by their text."""
    (claim,) = Intake(queue, DATA).claim("old", 1, 60, alone=True).claims
    arguments = (claim.key, claim.token, Result(claim.id, "embeddings", claim.key).to_json())
    assert queue.run_script("acknowledge", "old", "0" * 16, *arguments, 5, 50, 100) == 1
    queue.announce("old", {"host": "h", "pid": 1, "kind": "embed", "held": 0, "done": 1}, 60)
    workspace = Workspace(Settings(root="/data"), DATA, {Kind.EMBED: queue})
    figures = Observer(workspace, trees=False).figures()
    assert [worker.done for worker in figures.workers] == [1]


def test_a_worker_refuses_a_queue_that_it_does_not_know(queue: JobQueue) -> None:
    queue.client.set(f"{queue.prefix}format", FORMAT + 1)
    with pytest.raises(StartupError, match="does not know"):
        check_format(queue)
    queue.client.set(f"{queue.prefix}format", "x")
    with pytest.raises(StartupError, match="format x"):
        check_format(queue)
