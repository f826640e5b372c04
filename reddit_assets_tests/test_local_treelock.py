"""The lock that ``up`` holds on a tree against those of other hosts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from reddit_assets.errors import StartupError
from reddit_assets.local import treelock
from reddit_assets.local.treelock import TreeLock

FACTS = {"page": "http://127.0.0.1:3000", "state_dir": "/home/one/state"}

# Takes the lock for the queue argv[2] and says how that went; holds it until its input ends.
HOLDER = """
import pathlib, sys
from reddit_assets.errors import StartupError
from reddit_assets.local.treelock import TreeLock
lock = TreeLock(pathlib.Path(sys.argv[1]), sys.argv[2], {}, print)
try:
    lock.acquire()
except StartupError:
    print("refused", flush=True)
else:
    print("taken", flush=True)
    sys.stdin.read()
    lock.release()
"""


def lock_of(folder: Path, queue: str, lost: list[str] | None = None) -> TreeLock:
    return TreeLock(folder, queue, FACTS, (lost if lost is not None else []).append)


def holder(folder: Path, queue: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), queue],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[Any]) -> str:
    assert process.stdout is not None
    return str(process.stdout.readline()).strip()


def age(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(folder / ".up.json", (then, then))


def test_a_second_queue_is_refused_and_told_of_the_first(tmp_path: Path):
    # Given another process that works on the tree
    with holder(tmp_path, "one") as first:
        assert said(first) == "taken"
        # If one with another queue wants it, Then the sentence says who is there and what to do
        with pytest.raises(StartupError, match=rf"process {first.pid}.*REDIS_URL"):
            lock_of(tmp_path, "two").acquire()
        # but one with the same queue may join, and the tree stays theirs while one is there
        joined = lock_of(tmp_path, "one")
        joined.acquire()
        first.communicate("")
        with pytest.raises(StartupError, match=r"page http://127.0.0.1:3000.*/home/one/state"):
            lock_of(tmp_path, "two").acquire()
        joined.release()
    # If all are gone, Then it is free, and nothing is left
    assert list(tmp_path.iterdir()) == []


def test_a_dead_one_is_taken_over_by_exactly_one(tmp_path: Path):
    # Given a process that died without a word
    with holder(tmp_path, "dead") as first:
        said(first)
        first.kill()
    # Then its lock holds for a minute by the file system's clock
    age(tmp_path, 50)
    with pytest.raises(StartupError, match="wait 60 s"):
        lock_of(tmp_path, "two").acquire()
    # If several want it then, Then one of them has it
    age(tmp_path, 61)
    several = [holder(tmp_path, f"queue {number}") for number in range(5)]
    assert sorted(said(process) for process in several) == ["refused"] * 4 + ["taken"]
    for process in several:
        process.communicate("")
    assert list(tmp_path.iterdir()) == []


def test_clocks_of_hosts_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Given a lock that was written just now, If this host's own clock is an hour off
    with holder(tmp_path, "one") as first:
        said(first)
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 3600)
        # Then it is not taken for a dead one's
        with pytest.raises(StartupError):
            lock_of(tmp_path, "two").acquire()
        first.communicate("")


def test_it_is_renewed_and_a_loss_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Given a holder, If time passes, Then the file is written again and again
    monkeypatch.setattr(treelock, "RENEW_SECONDS", 0.05)
    lost: list[str] = []
    lock = lock_of(tmp_path, "one", lost)
    lock.acquire()
    for _ in range(2):
        age(tmp_path, 30)
        deadline = time.monotonic() + 10
        while time.time() - (tmp_path / ".up.json").stat().st_mtime > 20:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    # If another has taken the tree (this host slept for an hour), Then that is said, once
    theirs = json.dumps({"queue": "two", "host": "elsewhere", "pid": 7, "state_dir": "/s"})
    (tmp_path / ".up.json").write_text(theirs)
    lock._thread.join(10)
    assert len(lost) == 1
    assert "has taken the tree: on elsewhere (process 7, state folder /s)" in lost[0]
    # and its lock is left to it.
    lock.release()
    assert (tmp_path / ".up.json").read_text() == theirs


def test_a_tree_that_cannot_be_written_is_a_sentence(tmp_path: Path):
    # Given a file where the folder should be, Then the error names the lock's path
    (tmp_path / "embeddings").write_text("")
    with pytest.raises(StartupError, match=r"embeddings/\.up\.json cannot be written"):
        lock_of(tmp_path / "embeddings", "one").acquire()
