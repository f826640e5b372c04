"""Cores: one answer for every engine, with what a container or a systemd unit grants."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from reddit_assets.engines.clustering import blocks
from reddit_assets.engines.host import available_cores


@pytest.fixture
def quota_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of 64 cores whose control group grants this process two of them."""
    files = {
        "/proc/self/cgroup": "0::/system.slice/worker.service\n",
        "/sys/fs/cgroup/system.slice/worker.service/cpu.max": "200000 100000\n",
    }

    def read(path: Path, *_: Any, **__: Any) -> str:
        if str(path) in files:
            return files[str(path)]
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))


@pytest.mark.usefixtures("quota_of_two")
def test_clustering_takes_no_more_threads_than_its_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    pools: list[int] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, count: int) -> None:
            pools.append(count)
            super().__init__(min(count, 4))

    # Given work in blocks on a host of 64 cores with a quota of two
    monkeypatch.setattr(blocks, "ThreadPoolExecutor", Pool)
    done: list[int] = []
    # If it is run with as many threads as are available
    blocks.run_blocks(done.append, range(100))
    # Then there are two
    assert pools == [2]
    assert sorted(done) == list(range(100))


@pytest.mark.usefixtures("quota_of_two")
def test_workers_and_engines_have_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    from reddit_assets.engines.clustering.reduction import compute_threads
    from reddit_assets.local import parts

    numba = pytest.importorskip("numba")
    asked: list[int] = []
    monkeypatch.setattr(numba, "set_num_threads", asked.append)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 64)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    with compute_threads(None):
        pass
    assert asked[0] == 2
    assert parts.available_cores is available_cores
    assert available_cores() == 2


def test_cores_are_those_the_container_grants(tmp_path: Path) -> None:
    # Given control groups of version 2 whose parent has the tighter quota
    child = tmp_path / "parent" / "child"
    child.mkdir(parents=True)
    (child / "cpu.max").write_text("max 100000\n")
    (tmp_path / "parent" / "cpu.max").write_text("50000 100000\n")
    assert available_cores(tmp_path, "0::/parent/child\n") == 1
    # of version 1
    old = tmp_path / "cpu,cpuacct" / "box"
    old.mkdir(parents=True)
    (old / "cpu.cfs_quota_us").write_text("100000\n")
    (old / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cores(tmp_path, "4:cpu,cpuacct:/box\n") == 1
    # or none at all: then what the process may run on
    assert available_cores(tmp_path / "nothing", "0::/x\n") == len(os.sched_getaffinity(0))
