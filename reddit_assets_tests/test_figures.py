"""The figures that `status`, `up`, metrics and alerts show."""

from __future__ import annotations

import time
from pathlib import Path

import redis

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import Failure
from reddit_assets.figures import Figures, Observer, QueueFigures, duration
from reddit_assets.ledger.job import Job, Kind, Result
from reddit_assets.ledger.pace import Pace, Sample
from reddit_assets.ledger.planner import queue_wanted
from reddit_assets.settings import Settings
from reddit_assets.workspace import Workspace
from reddit_assets_tests.factories import claim_jobs, write_chain, write_embedding


def samples(*counts: tuple[float, int, int]) -> list[Sample]:
    return [Sample(at, done=done, bytes=size) for at, done, size in counts]


def test_an_idle_time_before_the_work_does_not_slow_the_pace() -> None:
    # Given a queue that had nothing to do for five minutes, and then did a job a second
    known = samples(*((at, 7, 700) for at in range(0, 300, 15)), (300, 22, 2200), (315, 37, 3700))
    # If the pace of the last ten minutes is asked for
    pace = Pace.between(known, Sample(330, done=52, bytes=5200), window=600)
    # Then the idle time does not count
    assert pace.seconds == 45
    assert pace.per_second("done") == 1
    assert pace.per_second("bytes") == 100


def test_a_queue_that_stopped_shows_it_and_a_new_one_shows_nothing() -> None:
    known = samples((0, 0, 0), (15, 5, 0))
    assert Pace.between(known, Sample(415, done=5), window=600).done == 5
    assert Pace.between(known, Sample(1000, done=5), window=600).done == 0
    assert Pace.between([], Sample(1000, done=5), window=600) == Pace()
    # Counters that have begun again
    assert Pace.between(known[1:], Sample(30, done=1), window=600).done == 0


def test_the_reaper_samples_the_counters_for_everybody(workspace: Workspace) -> None:
    # Given three jobs, and the beginning of an hour
    queue = workspace.queues[Kind.EMBED]
    queue.enqueue([Job(Kind.EMBED, f"as/S/c_{n}", "1-1") for n in range(3)], workspace.layout)
    queue.reap(retry_seconds=1)
    # If two of them are done, of 400 bytes together
    for claim in claim_jobs(queue, "w", 2, 60) or []:
        result = Result(claim.id, "embeddings", claim.key)
        assert queue.acknowledge(claim, result, rows=10, seconds=1.0, size=200)
    queue.reap(retry_seconds=1)
    # Then the pace says so, and samples do not pile up
    pace = queue.pace()
    assert (pace.done, pace.rows, pace.bytes) == (2, 20, 400)
    assert pace.seconds > 0
    assert workspace.queues[Kind.EMBED].client.llen(f"{queue.prefix}samples") == 1
    assert queue.lanes() == {"public": 1}
    assert queue.counts().oldest_seconds >= 0


def test_each_output_is_counted_once(workspace: Workspace) -> None:
    # Given of five files one done, one failed, one settling, two missing
    layout = workspace.layout
    for number in range(5):
        write_chain(layout, f"as/Tea/c_{number}", age=5 if number == 2 else 3600)
    write_embedding(layout, "as/Tea/c_0")
    settings = workspace.settings.model_copy(update={"settle_seconds": 60.0})
    workspace = Workspace(settings, layout, workspace.queues)
    queue = workspace.queues[Kind.EMBED]
    queue_wanted(workspace.scanner(), workspace.queues)
    for claim in claim_jobs(queue, "w", 3, 60) or []:
        if claim.key == "as/Tea/c_1":
            queue.fail(claim, Failure("no", permanent=True), max_attempts=1, retry_seconds=1)
    # If a living worker holds the others
    queue.announce("w", {"host": "h", "held": 2, "computing": 1, "rows_per_second": 7.5}, 60)
    figures = Observer(workspace).figures()
    # Then all figures agree
    assert figures.trees is not None
    files = figures.trees.outputs[Kind.EMBED]
    assert (files.done, files.failed, files.settling, files.missing) == (1, 1, 1, 2)
    assert files.total == 5
    assert figures.trees.outputs[Kind.CLUSTER].waiting == 1
    assert figures.queues[Kind.EMBED].computing == 1
    assert [worker.rows_per_second for worker in figures.workers] == [7.5]
    assert figures.trees.oldest is not None
    assert 3500 < time.time() - figures.trees.oldest < 3700
    assert not figures.done
    assert figures.line() == (
        "1 of 5 files embedded, 0 of 1 subreddits clustered; 1 computing, 1 fetched ahead; "
        "1 failed (`reddit-assets dead list`)"
    )
    assert figures.fields()["outputs"]["embeddings"]["left"] == 3


def test_the_time_left_goes_by_bytes(workspace: Workspace) -> None:
    # Given a file that is done and one of the same size that is not
    for number in range(2):
        write_chain(workspace.layout, f"as/Tea/c_{number}")
    size = workspace.layout.chain_path("as/Tea/c_0").stat().st_size
    queue = workspace.queues[Kind.EMBED]
    now, _ = queue.client.time()
    queue.client.rpush(f"{queue.prefix}samples", f"{(now - 100) * 1000} 0 0 0 0 0 0")
    queue.client.hset(f"{queue.prefix}counters", mapping={"done": 1, "bytes": size})
    write_embedding(workspace.layout, "as/Tea/c_0")
    # Then the other takes about as long, though the pace of clustering is not known
    assert 99 <= (Observer(workspace).figures().seconds_left() or 0) <= 105


def test_what_cannot_be_seen_is_said(workspace: Workspace) -> None:
    # Given a queue that does not answer
    settings = Settings(root=workspace.settings.root, redis_url="redis://127.0.0.1:1/0")
    write_chain(workspace.layout, "as/Tea/c_0")
    figures = Observer(Workspace.load(settings)).figures()
    # Then the trees are shown, and why the rest is not
    assert figures.trees is not None
    assert not figures.queues
    assert "cannot be reached" in figures.problems[0]
    # And the other way round
    workspace.layout.chains.rename(workspace.layout.chains.with_name("away"))
    layout = Layout.of(workspace.layout.chains.parent)
    figures = Observer(Workspace(settings, layout, workspace.queues)).figures()
    assert figures.trees is None
    assert figures.queues
    assert len(figures.problems) == 1
    assert figures.seconds_left() is None


def test_an_empty_corpus_is_done(workspace: Workspace) -> None:
    figures = Observer(workspace).figures()
    assert figures.done
    assert figures.seconds_left() == 0
    assert Figures(0.0).line() == ""


def test_times_are_said_as_people_do() -> None:
    shown = [duration(seconds) for seconds in (0.4, 40, 700, 9000, 400_000)]
    assert shown == ["0 s", "40 s", "12 min", "2.5 h", "5 days"]


def test_an_older_worker_and_account_still_work(valkey_url: str) -> None:
    """Its acknowledgement has no size, its announcement fewer facts."""
    queue = Workspace.load(Settings(root="/data", redis_url=valkey_url)).queues[Kind.EMBED]
    queue.enqueue([Job(Kind.EMBED, "as/S/c_1", "1-1")], Layout.of(Path("/data")))
    (claim,) = claim_jobs(queue, "w", 1, 60) or []
    done = queue.run_script(
        "acknowledge", "w", "0" * 16, claim.key, claim.token, '{"job": "x"}', 1, 2, 3
    )
    assert done == 1
    queue.announce("w", {"host": "h", "pid": 1}, 60)
    assert redis.Redis.from_url(valkey_url).hget(f"{queue.prefix}counters", "bytes") is None
    (worker,) = QueueFigures.ask(queue).workers
    assert (worker.host, worker.held, worker.computing) == ("h", 0, 0)
