"""A worker's life as a real process against a real server: work, signals, deaths, outages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from factories import write_chain

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.provenance import read_output
from reddit_assets.corpus.scan import Scanner, ScanOptions
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.planner import queue_wanted, sweep
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.settings import Settings

TESTS = Path(__file__).parent


class World:
    """A tree, a queue, and worker processes."""

    def __init__(self, root: Path, url: str, **environment: str) -> None:
        self.layout = Layout.of(root)
        self.layout.chains.mkdir(parents=True, exist_ok=True)
        self.queue = JobQueue(connect(Settings(redis_url=url)), Kind.EMBED)
        self.environment = {
            **os.environ,
            "REDIS_URL": url,
            "REDDIT_ROOT": str(root),
            "PYTHONPATH": f"{TESTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "REDDIT_LEASE_SECONDS": "2",
            "REDDIT_POLL_SECONDS": "0.1",
            "REDDIT_RETRY_SECONDS": "0.1",
            **environment,
        }
        self.processes: list[subprocess.Popen[str]] = []

    def scan(self) -> None:
        queue_wanted(self.scanner(), {Kind.EMBED: self.queue}, kinds=(Kind.EMBED,))

    def scanner(self) -> Scanner:
        return Scanner(self.layout, ScanOptions(settle_seconds=0))

    def worker(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(TESTS / "hash_task.py"), *arguments],
            env={**self.environment, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def finish(self, process: subprocess.Popen[str], timeout: float = 60) -> str:
        _, log = process.communicate(timeout=timeout)
        return log

    def made(self) -> list[str]:
        return sorted(
            self.layout.key_of(path) for path in self.layout.embeddings.glob("**/*.parquet")
        )

    def temporary(self) -> list[Path]:
        return list(self.layout.embeddings.glob("**/*.parquet.*.tmp"))


def until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.05)


@pytest.fixture
def world(tmp_path: Path, valkey_url: str) -> Iterator[World]:
    one = World(tmp_path / "root", valkey_url)
    yield one
    for process in one.processes:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.communicate()


def test_a_worker_does_every_job_and_a_bad_one_becomes_a_dead_letter(world: World) -> None:
    good = [f"as/A/c_{number}" for number in range(20)]
    for key in good:
        write_chain(world.layout, key)
    write_chain(world.layout, "as/A/empty", [])
    write_chain(world.layout, "as/A/broken").write_bytes(b"PAR1 not really")
    world.scan()
    process = world.worker("--until-empty")
    log = world.finish(process)
    assert process.returncode == 0, log
    assert world.made() == sorted([*good, "as/A/empty"])
    (letter,) = world.queue.dead_letters()
    assert "broken.parquet is not a whole parquet file" in letter.error
    assert letter.host
    assert letter.attempts == 1, "a broken file is not tried again"
    assert world.temporary() == []
    assert world.queue.counts().outbox == 21


def test_a_job_of_the_original_and_rubbish_beside_it(world: World) -> None:
    chain = write_chain(world.layout, "as/A/c_0")
    output = world.layout.embedding_path("as/A/c_0")
    for job in (
        {"input_path": str(chain), "output_path": str(output)},
        {"input_path": "/etc/passwd", "output_path": str(output)},
        {"something": "else"},
    ):
        world.queue.client.rpush("phase4_todo_queue", json.dumps(job))
    world.queue.client.rpush("phase4_todo_queue", "rubbish")
    log = world.finish(world.worker("--until-empty"))
    assert world.made() == ["as/A/c_0"], log
    errors = sorted(letter.error for letter in world.queue.dead_letters())
    assert len(errors) == 3
    for said in ("no input_path", ", outside ", "is not JSON"):
        assert sum(said in error for error in errors) == 1, errors


def test_the_first_signal_finishes_the_current_job_and_gives_back_the_rest(world: World) -> None:
    for number in range(6):
        write_chain(world.layout, f"as/A/c_{number}", ["sleep 1"])
    world.scan()
    process = world.worker()
    until(lambda: world.queue.counts().leased > 0, "it works")
    until(lambda: bool(world.temporary()), "it writes")
    process.send_signal(signal.SIGTERM)
    log = world.finish(process)
    assert process.returncode == 0, log
    counts = world.queue.counts()
    made = len(world.made())
    assert 1 <= made <= 2, log
    assert (counts.queued, counts.leased, counts.dead) == (6 - made, 0, 0)
    assert world.temporary() == []


def test_the_second_signal_gives_everything_back_at_once(world: World) -> None:
    write_chain(world.layout, "as/A/c_0", ["sleep 60"])
    world.scan()
    process = world.worker()
    until(lambda: bool(world.temporary()), "it writes")
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    log = world.finish(process, timeout=10)
    assert process.returncode == 130, log
    counts = world.queue.counts()
    assert (counts.queued, counts.leased) == (1, 0)
    assert world.temporary() == []
    assert world.made() == []


def test_a_killed_worker_takes_its_child_along_and_its_job_is_done_by_another(
    world: World,
) -> None:
    write_chain(world.layout, "as/A/c_0", ["sleep 3"])
    world.scan()
    first = world.worker()
    until(lambda: bool(world.temporary()), "it writes")
    children = psutil.Process(first.pid).children(recursive=True)
    assert children
    first.kill()
    first.communicate()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive, "the computing process outlives its parent"
    log = world.finish(world.worker("--until-empty"))
    assert world.made() == ["as/A/c_0"], log
    assert world.temporary() == [], "the dead worker's file is left over"


def test_a_frozen_worker_drops_its_work_when_it_wakes_up(world: World) -> None:
    write_chain(world.layout, "as/A/c_0", ["sleep 1"])
    world.scan()
    frozen = world.worker()
    until(lambda: bool(world.temporary()), "it writes")
    tree = [frozen.pid, *(child.pid for child in psutil.Process(frozen.pid).children())]
    for pid in tree:
        os.kill(pid, signal.SIGSTOP)
    other = world.worker("--until-empty")
    log = world.finish(other)
    writer = read_output(world.layout.embedding_path("as/A/c_0")).provenance.writer["token"]
    for pid in tree:
        os.kill(pid, signal.SIGCONT)
    time.sleep(2)
    frozen.terminate()
    frozen_log = world.finish(frozen)
    assert "dropped" in frozen_log, frozen_log + log
    assert read_output(world.layout.embedding_path("as/A/c_0")).provenance.writer["token"] == writer
    assert world.temporary() == []
    assert world.queue.counts().outbox == 1


def test_a_lease_outlasts_a_long_computation_that_says_nothing(world: World) -> None:
    write_chain(world.layout, "as/A/c_0", ["spin 6"])
    world.scan()
    log = world.finish(world.worker("--until-empty", REDDIT_STALL_SECONDS="2"))
    totals = world.queue.counts().totals
    assert totals.get("done") == 1, log
    assert "expired" not in totals, "the lease ran out while the worker computed"


def test_a_hung_child_is_replaced_and_its_job_dies_after_some_recoveries(world: World) -> None:
    write_chain(world.layout, "as/A/c_0", ["sleep 600"])
    world.scan()
    environment = {"REDDIT_STALL_SECONDS": "1", "REDDIT_MAX_RECOVERIES": "2"}
    log = world.finish(world.worker("--until-empty", **environment))
    (letter,) = world.queue.dead_letters()
    assert "died or hung 2 times" in letter.error, log
    assert world.temporary() == []


def test_a_child_that_dies_once_is_replaced_and_the_job_done(world: World, tmp_path: Path) -> None:
    write_chain(world.layout, "as/A/c_0", [f"crash once {tmp_path / 'mark'}"])
    world.scan()
    log = world.finish(world.worker("--until-empty"))
    assert world.made() == ["as/A/c_0"], log
    assert "process died (exit status 3)" in log


def test_an_error_is_tried_again_and_then_a_dead_letter_with_its_traceback(world: World) -> None:
    write_chain(world.layout, "as/A/c_0", ["error"])
    world.scan()
    world.finish(world.worker("--until-empty"))
    (letter,) = world.queue.dead_letters()
    assert letter.attempts == 3
    assert "the text says so" in letter.error
    assert "Traceback" in letter.traceback
    assert world.temporary() == []


def test_redis_goes_away_and_comes_back(own_valkey, tmp_path: Path) -> None:
    server = own_valkey(appendonly="yes")
    world = World(tmp_path / "root", server.url)
    for number in range(4):
        write_chain(world.layout, f"as/A/c_{number}", ["sleep 1.5"])
    world.scan()
    process = world.worker("--until-empty")
    until(lambda: bool(world.temporary()), "it writes")
    server.stop()
    time.sleep(4)
    server.start()
    log = world.finish(process)
    assert process.returncode == 0, log
    assert len(world.made()) == 4, log
    assert log.count("cannot be reached") <= 3, "it says so once, not for every try"
    assert world.queue.counts().outbox == 4
    assert world.queue.counts().leased == 0


def test_a_wiped_redis_is_rebuilt_by_a_rescan(world: World) -> None:
    for number in range(4):
        write_chain(world.layout, f"as/A/c_{number}")
    world.scan()
    world.queue.client.flushall()
    world.scan()
    assert world.queue.counts().queued == 4
    world.finish(world.worker("--until-empty"))
    assert len(world.made()) == 4


def test_what_plain_consumers_make_or_lose_is_settled(world: World) -> None:
    for name in ("made", "lost"):
        write_chain(world.layout, f"as/A/{name}")
    world.scan()
    payloads = [world.queue.client.blpop("phase4_todo_queue", timeout=1)[1] for _ in range(2)]
    jobs = {json.loads(payload)["key"]: json.loads(payload) for payload in payloads}
    from factories import write_embedding
    from hash_task import MODEL

    write_embedding(world.layout, "as/A/made", model=MODEL)
    assert set(jobs) == {"as/A/made", "as/A/lost"}
    result = sweep(world.scanner(), world.queue, lost_seconds=0)
    assert (result.closed, result.repushed) == (("as/A/made",), ("as/A/lost",))
    world.finish(world.worker("--until-empty"))
    assert world.made() == ["as/A/lost", "as/A/made"]


def test_the_dead_letter_of_a_file_that_has_vanished_is_forgotten(world: World) -> None:
    broken = write_chain(world.layout, "as/A/broken")
    broken.write_bytes(b"rubbish")
    world.scan()
    world.finish(world.worker("--until-empty"))
    assert sweep(world.scanner(), world.queue, lost_seconds=0).forgotten == ()
    broken.unlink()
    assert sweep(world.scanner(), world.queue, lost_seconds=0).forgotten == ("as/A/broken",)
    assert world.queue.counts().dead == 0


def test_three_workers_do_every_file_once(world: World) -> None:
    for number in range(60):
        write_chain(world.layout, f"as/A/c_{number:02}", ["sleep 0.02"])
    world.scan()
    processes = [world.worker("--until-empty") for _ in range(3)]
    for process in processes:
        world.finish(process)
    totals = world.queue.counts().totals
    assert totals["done"] == 60
    assert "rejected" not in totals
    assert world.queue.counts().outbox == 60
    assert len(world.made()) == 60
