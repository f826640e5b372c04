"""Where worker, child, queue and engine meet: the real pipeline, real processes, faults."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from factories import MODEL, write_chain

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.provenance import EmbeddingProvenance, read_output
from reddit_assets.corpus.wanted import set_wanted_model
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Job, Kind
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.ledger.waiters import open_run
from reddit_assets.settings import Settings

TESTS = Path(__file__).parent

pytestmark = pytest.mark.slow


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


class World:
    """A tree, its queue, and workers with the real pipeline."""

    def __init__(self, root: Path, url: str) -> None:
        self.layout = Layout.of(root)
        self.layout.chains.mkdir(parents=True)
        self.queue = JobQueue(connect(Settings(redis_url=url)), Kind.EMBED)
        self.environment = {
            **os.environ,
            "REDIS_URL": url,
            "REDDIT_ROOT": str(root),
            "PYTHONPATH": f"{TESTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "REDDIT_BACKEND": "onnx",
            "REDDIT_THREADS": "1",
            "REDDIT_LEASE_SECONDS": "2",
            "REDDIT_POLL_SECONDS": "0.1",
            "REDDIT_RETRY_SECONDS": "0.1",
            "HF_HUB_OFFLINE": "1",
        }
        self.workers: list[subprocess.Popen[str]] = []
        self.logs = root.parent

    def files(self, *keys: str, texts: tuple[str, ...] = ("A cat.", "A dog.")) -> None:
        """Chain files, and jobs for them."""
        for key in keys:
            write_chain(self.layout, key, texts)
        self.queue.enqueue([Job(Kind.EMBED, key, "s") for key in keys], self.layout)

    def worker(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        with open(self.logs / f"worker-{len(self.workers)}.log", "w") as log:
            process = subprocess.Popen(
                [sys.executable, str(TESTS / "faulty_task.py"), *arguments],
                env={**self.environment, **environment},
                stderr=log,
                text=True,
            )
        self.workers.append(process)
        return process

    def log(self, worker: subprocess.Popen[str]) -> str:
        return (self.logs / f"worker-{self.workers.index(worker)}.log").read_text()

    def finish(self, worker: subprocess.Popen[str], seconds: float = 120) -> str:
        try:
            worker.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still at work after {seconds} s:\n{self.log(worker)[-3000:]}")
        return self.log(worker)

    def made(self) -> set[str]:
        return {self.layout.key_of(path) for path in self.layout.embeddings.glob("**/*.parquet")}

    def begun(self, worker: subprocess.Popen[str]) -> int:
        """Jobs that a worker's child computes, by the ledger."""
        keys = self.queue.client.zrange(f"{self.queue.prefix}leases", 0, -1)
        entries = [
            self.queue.client.hmget(f"{self.queue.prefix}job:{key}", "started", "worker")
            for key in keys
        ]
        return sum(
            started == "1" and f"-{worker.pid}-" in holder for started, holder in entries if holder
        )

    def temporary(self) -> list[Path]:
        return list(self.layout.embeddings.glob("**/*.tmp"))


@pytest.fixture
def world(tmp_path: Path, valkey_url: str, minilm: ModelSpec) -> Iterator[World]:
    one = World(tmp_path / "root", valkey_url)
    yield one
    for process in one.workers:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
        process.wait()


def test_a_backend_that_never_answers_loses_its_lease(world: World) -> None:
    # Given a file whose batch the backend never answers
    world.files("as/A/hangs", texts=("HANG",))
    # If a worker embeds, with the default lease: between two of its looks the child polls 300 times
    worker = world.worker(
        "--until-empty",
        REDDIT_LEASE_SECONDS="30",
        REDDIT_STALL_SECONDS="3",
        REDDIT_MAX_RECOVERIES="2",
    )
    log = world.finish(worker)
    # Then the hung process is replaced, and the file becomes a dead letter with its reason
    (letter,) = world.queue.dead_letters()
    assert letter.key == "as/A/hangs", log
    assert "no sign of life" in log
    assert "died or hung 2 times" in letter.error
    assert world.temporary() == []


def test_a_file_that_kills_its_process_takes_no_other_along(world: World) -> None:
    # Given forty small files, of which the 21st kills the process that reads it
    keys = [f"as/A/c_{number:02}" for number in range(40)]
    keys[20] = "as/A/a_kills"
    for key in keys:
        world.files(key, texts=("KILL",) if key == keys[20] else ("SLOW", "A dog."))
    # If a worker does them
    log = world.finish(world.worker("--until-empty"))
    # Then all others are made, and it alone is a dead letter
    assert [letter.key for letter in world.queue.dead_letters()] == [keys[20]], log
    assert world.made() == set(keys) - {keys[20]}
    assert world.temporary() == []


def test_a_job_that_kills_before_its_file_is_opened_is_blamed_itself(world: World) -> None:
    # Given a file whose present output kills the process that looks at it, and slow ones beside it
    world.files("as/A/kills", "as/A/one", "as/A/two", texts=("SLOW", "A dog."))
    # If a worker does them, then the others are made, and it alone is a dead letter
    log = world.finish(world.worker("--until-empty", FAULT_LOOK="as/A/kills"))
    assert [letter.key for letter in world.queue.dead_letters()] == ["as/A/kills"], log
    assert world.made() == {"as/A/one", "as/A/two"}


def test_a_slow_backend_is_not_taken_for_a_hung_one(world: World) -> None:
    # Given batches of half a second each, of which a window has more than the stall limit lasts
    texts = ("VERY SLOW", *(f"{number} cats and dogs" for number in range(40)))
    world.files("as/A/slow", texts=texts)
    # If a worker embeds them, then it is left alone
    log = world.finish(
        world.worker("--until-empty", REDDIT_STALL_SECONDS="2", REDDIT_BATCH_TOKENS="16")
    )
    assert world.made() == {"as/A/slow"}, log
    assert "no sign of life" not in log


def test_an_empty_mount_point_makes_no_dead_letters(world: World) -> None:
    # Given a queue, and chain files whose storage has just been unmounted
    world.files("as/A/c_0", "as/A/c_1")
    away = world.layout.chains.rename(world.layout.chains.with_name("elsewhere"))
    world.layout.chains.mkdir()
    worker = world.worker("--until-empty")
    until(lambda: "There is nothing in" in world.log(worker), "it says so", 90)
    assert world.queue.counts().dead == 0
    # If it is back, then all is done without a hand
    world.layout.chains.rmdir()
    away.rename(world.layout.chains)
    log = world.finish(worker)
    assert world.made() == {"as/A/c_0", "as/A/c_1"}, log
    assert "failed" not in world.queue.counts().totals


def test_a_crash_loop_ends_though_the_job_is_wanted_again_and_again(world: World) -> None:
    # Given a file that kills its process, and runs that want it again while it is computed
    world.files("as/A/kills", texts=("KILL",))
    worker = world.worker()
    ended = threading.Event()

    def want() -> None:
        for number in range(100_000):
            if ended.wait(0.01):
                return
            open_run(world.queue, f"run{number % 3}", 60)
            if world.begun(worker):
                again = Job(Kind.EMBED, "as/A/kills", f"stamp {number}", force=True)
                world.queue.enqueue([again], world.layout, run=f"run{number % 3}")

    wanting = threading.Thread(target=want, daemon=True)
    wanting.start()
    # If the worker tries it, then it is a dead letter after three crashes
    try:
        until(lambda: world.queue.counts().dead == 1, "it is a dead letter", 60)
    finally:
        ended.set()
        wanting.join()
    (letter,) = world.queue.dead_letters()
    assert letter.crashes == 3, world.log(worker)


def test_evictions_make_no_dead_letter(world: World) -> None:
    # Given a file that takes long, and a host that is taken away four times while it is computed
    world.files("as/A/long", texts=("HANG",))
    for _ in range(4):
        worker = world.worker()
        until(lambda worker=worker: world.begun(worker) == 1, "it is computed", 90)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    # Then it is still wanted, and done as soon as it is left alone
    assert world.queue.counts().dead == 0
    write_chain(world.layout, "as/A/long", ["short now"])
    log = world.finish(world.worker("--until-empty"))
    assert world.made() == {"as/A/long"}, log
    assert world.temporary() == []


def test_children_killed_at_any_moment_end_no_worker(world: World) -> None:
    # Given many small files, and a child that is killed again and again
    keys = [f"as/A/c_{number:03}" for number in range(150)]
    world.files(*keys, texts=("SLOW", "A cat."))
    worker = world.worker("--until-empty", REDDIT_MAX_RECOVERIES="50", REDDIT_CLAIM_JOBS="8")
    until(lambda: bool(world.made()), "it works", 90)
    for pause in (0.0, 0.05, 0.3, 0.11, 0.5):
        time.sleep(pause)
        for child in psutil.Process(worker.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        begun = len(world.made())
        until(lambda begun=begun: len(world.made()) > begun, "it goes on", 60)
    # Then the worker does every file
    log = world.finish(worker)
    assert worker.returncode == 0, log[-3000:]
    assert world.made() == set(keys)
    assert world.queue.counts().dead == 0
    assert world.temporary() == []


def test_another_model_is_wanted_while_a_worker_runs(world: World) -> None:
    # Given a worker that has begun, and a queue full of work
    keys = [f"as/A/c_{number:02}" for number in range(60)]
    world.files(*keys, texts=("SLOW", "A cat."))
    worker = world.worker(REDDIT_CLAIM_JOBS="4")
    until(lambda: len(world.made()) >= 4, "it works", 90)
    # If another model is stated
    set_wanted_model(world.layout, MODEL)
    stated = time.time()
    log = world.finish(worker)
    # Then the worker ends with a sentence, publishes nothing more, and the jobs wait unharmed
    assert worker.returncode == 1
    assert "test-model (feed) is wanted now" in log, log[-2000:]
    late = [
        path
        for path in world.layout.embeddings.glob("**/*.parquet")
        if path.stat().st_mtime > stated + 0.5
    ]
    assert late == []
    counts = world.queue.counts()
    assert counts.queued == len(keys) - len(world.made())
    assert (counts.leased, counts.dead) == (0, 0)
    assert world.temporary() == []


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ENOSPC, errno.ENOENT])
def test_a_share_that_fails_while_publishing_is_the_hosts_fault(
    world: World, tmp_path: Path, number: int
) -> None:
    # Given renames that fail for a while, in the worker and not in its child
    mark = tmp_path / "fault"
    mark.write_text(str(number))
    keys = [f"as/A/c_{number}" for number in range(6)]
    world.files(*keys)
    worker = world.worker("--until-empty", FAULT_RENAME=str(mark))
    until(lambda: "cannot be written" in world.log(worker), "it says so", 90)
    child = psutil.Process(worker.pid).children()[0].pid
    time.sleep(3)
    # If the share is back
    assert psutil.Process(worker.pid).children()[0].pid == child, "a healthy child was killed"
    mark.unlink()
    log = world.finish(worker)
    # Then every file is made, with no attempt counted
    assert world.made() == set(keys), log
    assert world.queue.counts().dead == 0
    assert "died" not in log
    assert "failed" not in world.queue.counts().totals
    for key in keys:
        assert isinstance(
            read_output(world.layout.embedding_path(key)).provenance, EmbeddingProvenance
        )
