"""State folder, supervisor, and the judgement whether everything is done."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import Failure, StartupError
from reddit_assets.ledger.job import Kind
from reddit_assets.local.completion import Watch
from reddit_assets.local.instance import committed_file, write_instance
from reddit_assets.local.parts import dagster_parts, family_environment, worker_parts
from reddit_assets.local.processes import Child
from reddit_assets.local.state import StateDir, default_state_dir
from reddit_assets.local.supervisor import Supervisor, end_together
from reddit_assets.settings import Settings, load_settings
from reddit_assets.workspace import Workspace
from reddit_assets_tests.factories import claim_jobs

NAP = "import time; time.sleep(300)"


@pytest.fixture
def child_of(tmp_path: Path) -> Callable[[str, str], Callable[[], Child]]:
    """Makes starters of children that run a program."""

    def make(name: str, program: str) -> Callable[[], Child]:
        def start() -> Child:
            child = Child(
                name,
                [sys.executable, "-c", program],
                records=tmp_path / "processes",
                log=tmp_path / f"{name}.log",
            )
            child.start()
            return child

        return start

    return make


# --- the lock ----------------------------------------------------------------------------
def test_a_second_holder_learns_of_the_first(tmp_path: Path):
    # Given a state folder in use
    with StateDir(tmp_path) as first:
        first.note(pid=4711, page="http://127.0.0.1:3000")
        # If another process-to-be wants it, Then the sentence names process and page
        with pytest.raises(StartupError, match=r"process 4711, its page is http://127.0.0.1:3000"):
            StateDir(tmp_path).acquire()
    # and when it is free again, it can be had
    with StateDir(tmp_path):
        pass


def test_each_root_has_a_state_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Given two roots of the same name, Then their folders differ, and stay the same
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    one, two = default_state_dir(tmp_path / "a/data"), default_state_dir(tmp_path / "b/data")
    assert one != two
    assert one == default_state_dir(tmp_path / "a/../a/data")


# --- the supervisor ----------------------------------------------------------------------
def test_a_crashed_child_is_restarted_after_growing_waits(child_of: Any):
    # Given a child that ends at once, and a clock in our hands
    now, said = [0.0], []
    supervisor = Supervisor(said.append, clock=lambda: now[0])
    charge = supervisor.add("weak", child_of("weak", "raise SystemExit('no model')"))
    waits = []
    for _ in range(11):
        assert charge.child is not None
        charge.child.wait(20)
        supervisor.tick()
        # If its wait is not over, Then it is not started
        assert charge.child is None
        waits.append(charge._due - now[0])
        now[0] = charge._due - 0.01
        supervisor.tick()
        assert charge.child is None
        # If it is over, Then it is
        now[0] = charge._due
        supervisor.tick()
    # The waits double up to five minutes, and after four failures that is said, once.
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0]
    assert charge.failing
    assert len(said) == 4
    assert "no model" in said[0]
    assert said[3].startswith("weak does not come up: no model. The rest goes on")
    end_together(supervisor.children(), timeout=5)


def test_a_child_that_comes_up_after_all_counts_as_healthy(child_of: Any, tmp_path: Path):
    # Given a child that does not come up
    now, said = [0.0], []
    supervisor = Supervisor(said.append, clock=lambda: now[0])
    program = f"import pathlib; pathlib.Path({str(tmp_path / 'model')!r}).read_text(); {NAP}"
    charge = supervisor.add("slow", child_of("slow", program))
    for _ in range(4):
        assert charge.child is not None
        charge.child.wait(20)
        supervisor.tick()
        if charge.failures == 4:
            # If what it misses is there at its next start
            (tmp_path / "model").touch()
        now[0] = charge._due
        supervisor.tick()
    # Then it is said when it has run for a while, and its failures are forgotten
    supervisor.tick()
    assert charge.failing
    now[0] += 31
    supervisor.tick()
    assert (charge.failing, said[-1]) == (False, "slow runs again.")
    end_together(supervisor.children(), timeout=5)


def test_a_crash_after_a_healthy_time_does_not_add_up(child_of: Any):
    # Given a child that ran for long and then died
    now = [0.0]
    supervisor = Supervisor(lambda text: None, clock=lambda: now[0])
    charge = supervisor.add("strong", child_of("strong", NAP))
    for expected in (1, 1):
        now[0] += 100.0
        assert charge.child is not None
        process = psutil.Process(charge.child.pid)
        process.kill()
        charge.child.wait(20)
        supervisor.tick()
        # Then it counts as one failure each time, and the wait does not grow
        assert charge.failures == expected
        now[0] = charge._due
        supervisor.tick()
    end_together(supervisor.children(), timeout=5)
    assert charge.restarts == 2


def test_a_crashed_child_leaves_no_descendants(child_of: Any, tmp_path: Path):
    # Given a child that dies and leaves a process of its own
    program = (
        "import subprocess, sys\n"
        f"p = subprocess.Popen([sys.executable, '-c', {NAP!r}])\n"
        "print(p.pid, flush=True)\n"
        "import os; os._exit(1)\n"
    )
    supervisor = Supervisor(lambda text: None)
    charge = supervisor.add("careless", child_of("careless", program))
    assert charge.child is not None
    charge.child.wait(20)
    orphan = psutil.Process(int(charge.child.output()))
    assert orphan.is_running()
    # If the supervisor notices, Then that process is ended as well
    supervisor.tick()
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


def test_ending_together_asks_twice_and_then_kills(child_of: Any, tmp_path: Path):
    # Given a child that obeys, one that obeys the second signal, one that never does
    second = (
        "import signal, sys, time\n"
        "told = []\n"
        "def hear(*_):\n"
        "    told.append(1)\n"
        "    if len(told) > 1: sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, hear)\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.05)\n"
    )
    never = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True)\n"
        "time.sleep(300)\n"
    )
    children = [child_of(n, p)() for n, p in (("one", NAP), ("two", second), ("no", never))]
    while any("ready" not in child.output() for child in children[1:]):
        pass
    processes = [psutil.Process(child.pid) for child in children]
    # If they are ended together, Then only the last has to be killed, and none is left
    assert end_together(children, timeout=2.0, again_after=0.3) == ["no"]
    assert not any(process.is_running() for process in processes)
    assert not list((tmp_path / "processes").glob("*.json"))


# --- the instance's files ----------------------------------------------------------------
def test_the_instance_is_the_committed_one_plus_postgres(tmp_path: Path):
    # Given the committed dagster.yaml, If the instance's file is written
    url = "postgresql+psycopg2://postgres:@/postgres?host=/a b/socket"
    write_instance(tmp_path, url)
    # Then it is that plus the storage
    committed = committed_file("dagster.yaml")
    assert committed is not None
    instance = yaml.safe_load((tmp_path / "dagster.yaml").read_text())
    assert instance.pop("storage") == {"postgres": {"postgres_url": url}}
    assert instance == yaml.safe_load(committed.read_text())
    # If the server is somebody else's, Then its password stays in the environment
    write_instance(tmp_path, None)
    instance = yaml.safe_load((tmp_path / "dagster.yaml").read_text())
    assert instance["storage"]["postgres"]["postgres_url"] == {"env": "DAGSTER_POSTGRES_URL"}


def test_parts_share_the_cores_and_load_the_same_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Given settings from flags, for two embedding workers on four cores
    settings = load_settings(root=tmp_path, backend="onnx", subreddits="Ask*", seed=7)
    environment = family_environment(
        settings,
        Layout.from_settings(settings),
        StateDir(tmp_path),
        redis_url="redis://127.0.0.1:7/0",
        postgres_url="postgresql+psycopg2://x",
        maps_port=3001,
    )
    monkeypatch.setattr("reddit_assets.local.parts.available_cores", lambda: 4)
    workers = worker_parts(settings, environment, workers=2)
    parts = {p.name: p for p in [*dagster_parts(environment, port=3000, maps_port=3001), *workers]}
    # Then each part loads them from its environment, and each worker has half of the cores
    for name, value in parts["embed-worker-2"].environment.items():
        monkeypatch.setenv(name, value)
    loaded = Settings()
    assert (loaded.backend, loaded.subreddits, loaded.seed) == ("onnx", "Ask*", 7)
    assert loaded.threads == 2
    assert loaded.require_redis_url() == "redis://127.0.0.1:7/0"
    assert Layout.from_settings(loaded) == Layout.from_settings(settings)
    assert set(parts) >= {"webserver", "daemon", "reporter", "cluster-worker", "embed-worker-1"}
    # and webserver and daemon find the code server, under the name in the committed workspace.
    workspace = parts["daemon"].command[-1]
    assert parts["webserver"].command[-1] == workspace
    (entry,) = yaml.safe_load(Path(workspace).read_text())["load_from"]
    assert entry["grpc_server"]["socket"] in parts["code-server"].command
    committed = committed_file("workspace.yaml")
    assert committed is not None
    (original,) = yaml.safe_load(committed.read_text())["load_from"]
    assert entry["grpc_server"]["location_name"] == original["python_module"]["location_name"]
    assert original["python_module"]["module_name"] in parts["code-server"].command


# --- done? -------------------------------------------------------------------------------
class FakePage:
    """Dagster's page as far as the judgement asks it."""

    def __init__(self) -> None:
        self.known: dict[str, set[str]] = {}

    def materialized(self) -> dict[str, set[str]]:
        return self.known


def test_done_needs_the_disk_the_queue_and_dagster(tmp_path: Path, valkey_url: str):
    # Given a root with one chain file, and Dagster knowing nothing
    layout = Layout.of(tmp_path)
    path = layout.chain_path("as/sub/c_0")
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"body": ["one"]}), path)
    workspace = Workspace.load(load_settings(redis_url=valkey_url, root=tmp_path, settle_seconds=0))
    queues, page = workspace.queues, FakePage()
    watch = Watch(workspace, page)  # type: ignore[arg-type]
    # If it looks, Then the job is queued and nothing is done
    state = watch.look()
    assert not state.settled
    assert queues[Kind.EMBED].counts().queued == 1
    # If the job dies, Then nothing more will change by itself, and the letter is named
    (claim,) = claim_jobs(queues[Kind.EMBED], "w", 1, 60.0) or []
    failure = Failure("torn", "", "BadFileError", True)
    queues[Kind.EMBED].fail(claim, failure, max_attempts=1, retry_seconds=1.0)
    queues[Kind.EMBED].client.delete("{phase4_todo_queue}:outbox")
    state = watch.look()
    assert state.done
    assert [letter.key for letter in state.dead] == ["as/sub/c_0"]
    # If the output is there after all (the earlier system's, adopted), Then Dagster is asked for it
    queues[Kind.EMBED].purge(["as/sub/c_0"])
    output = layout.embedding_path("as/sub/c_0")
    output.parent.mkdir(parents=True)
    pq.write_table(pa.table({"body": ["one"], "emb_000": [1.0]}), output)
    clustered = layout.cluster_path("as/sub")
    clustered.parent.mkdir(parents=True)
    pq.write_table(pa.table({"body": ["one"], "cluster_id": [-1]}), clustered)
    state = watch.look()
    assert [state.outputs(kind).done for kind in (Kind.EMBED, Kind.CLUSTER)] == [1, 1]
    assert state.settled
    assert not state.done
    assert state.unreported == {"chains": 1, "embeddings": 1, "clusters": 1}
    # If Dagster has all three, Then it is done
    page.known = {"chains": {"as/sub/c_0"}, "embeddings": {"as/sub/c_0"}, "clusters": {"as/sub"}}
    assert watch.look().done
