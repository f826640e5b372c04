"""``reddit-assets up``, whole: real servers, webserver, daemon, reporter and workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from reddit_assets.corpus.layout import Layout
from reddit_assets.ledger.job import WORK
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.local.instance import Page
from reddit_assets.local.processes import FAMILY_VARIABLE, family_of
from reddit_assets.local.sample import sample_files
from reddit_assets.local.servers import free_port

pytestmark = pytest.mark.slow

LIMIT_SECONDS = 180


class Up:
    """Starts ``up`` on one root and state folder, and looks at what it leaves."""

    def __init__(self, root: Path, state: Path) -> None:
        self.root, self.state, self.port, self.maps = root, state, free_port(), free_port()
        self.errors = state.with_name(f"{state.name}-stderr.txt")
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("REDDIT_", "REDIS_", "DAGSTER_"))
        }
        self.environment |= {
            "REDDIT_STATE_DIR": str(state),
            "REDDIT_SETTLE_SECONDS": "0",
            # A cluster of a few rows needs no reduction that is compiled first.
            "REDDIT_REDUCTION": "none",
        }

    def command(self, *arguments: str) -> list[str]:
        return [
            *(sys.executable, "-m", "reddit_assets.cli", "up", "--root", str(self.root)),
            *(
                "--port",
                str(self.port),
                "--maps-port",
                str(self.maps),
                "--backend",
                "onnx",
                *arguments,
            ),
        ]

    def run(self, *arguments: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
        """Runs it to its end; the process and its JSON."""
        done = subprocess.run(
            self.command("--exit-when-done", "--json", *arguments),
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        return done, json.loads(done.stdout) if done.stdout else {}

    @contextmanager
    def running(self, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        """Starts it, waits until its page is there, and stops it at the end if it still runs."""
        with self.errors.open("wb") as errors:
            command = self.command(*arguments)
            environment = {**self.environment, **variables}
            process = subprocess.Popen(command, stderr=errors, env=environment)
        try:
            self.wait_until_said("The Dagster page is", process)
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)

    def wait_until_said(self, sentence: str, process: subprocess.Popen[bytes]) -> None:
        wait_for(lambda: sentence in self.errors.read_text(), process)

    @property
    def page_answers(self) -> bool:
        page = Page(f"http://127.0.0.1:{self.port}")
        try:
            return page.answers()
        finally:
            page.close()

    def listening(self) -> set[tuple[str, int]]:
        """The TCP addresses that its processes listen on."""
        return {
            (connection.laddr.ip, connection.laddr.port)
            for process in self.family()
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }

    def open_to_others(self) -> list[str]:
        """What other accounts could list or read, or enter (but for Postgres's, as root)."""
        found, folders = [], [self.state]
        while folders:
            folder = folders.pop()
            mode = folder.stat().st_mode & 0o077
            passable = os.geteuid() == 0 and folder in (self.state, self.state / "postgres")
            if mode & ~(0o011 if passable else 0):
                found.append(f"{folder} {mode:o}")
            if mode:  # What lies in a closed folder is closed.
                entries = [entry for entry in folder.iterdir() if not entry.is_symlink()]
                folders += [entry for entry in entries if entry.is_dir()]
                files = [entry for entry in entries if not entry.is_dir()]
                found += [f"{file}" for file in files if file.stat().st_mode & 0o077]
        return found

    def left(self) -> list[str]:
        """The processes of its family that run."""
        return [" ".join(process.cmdline())[-80:] for process in self.family()]

    def family(self) -> list[psutil.Process]:
        """Its child processes and theirs."""
        mark, found = family_of(self.state / "processes"), []
        recorded = {
            json.loads(path.read_text())["pid"]
            for path in (self.state / "processes").glob("*.json")
        }
        for process in psutil.process_iter():
            try:
                ours = process.environ().get(FAMILY_VARIABLE) == mark or process.pid in recorded
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert process.poll() is None, "it ended"
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """Not below pytest's folder: another session of pytest would close it to Postgres, which as
    root has an account of its own."""
    with tempfile.TemporaryDirectory(prefix="reddit-assets-up-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def up(base: Path) -> Iterator[Up]:
    """Two subreddits of the sample, names beyond ASCII included: four files."""
    for file in sample_files():
        if file.path.parent.name in ("tinytown", "日本旅行"):
            path = Layout.of(base / "root").chains / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(file.table.slice(0, 12), path)
    up = Up(base / "root", base / "state")
    yield up
    assert up.left() == []


def test_it_survives_its_own_death_and_does_everything_once(up: Up):
    # Given a running `up`
    with up.running() as process:
        # If a second one is started on the same root, Then a sentence names the first
        second = subprocess.run(
            up.command("--port", str(free_port())),
            capture_output=True,
            text=True,
            env=up.environment,
            timeout=60,
            check=False,
        )
        assert second.returncode == 1
        assert f"runs for this root already (process {process.pid}" in second.stderr
        # If it is killed, Then its children are left, as after any crash
        process.kill()
        process.wait()
    assert up.left()
    # If it is started again, Then they are cleared, and everything is done
    done, summary = up.run()
    assert done.returncode == 0, done.stderr
    assert "Ended what an earlier crash left running" in done.stderr
    assert up.left() == []
    assert (summary["files"], summary["rows"], summary["subreddits"]) == (3, 27, 2)
    assert {name: c["materialized"] for name, c in summary["materialized"].items()} == {
        "chains": 3,
        "embeddings": 3,
        "clusters": 2,
    }
    for key in ("ti/tinytown", "日本/日本旅行"):
        table = pq.read_table(Layout.of(up.root).cluster_path(key))
        assert table.schema.field("emb_383").type == pa.float32()
        assert table["cluster_id"].to_pylist()


def test_a_second_run_has_nothing_to_do_and_a_third_only_what_changed(up: Up):
    # Given everything done, If it runs again, Then it does no work and says so
    done, summary = up.run()
    assert done.returncode == 0, done.stderr
    assert summary["no_work"]
    assert not any(summary["work_done"].values())
    # If one file changes and another is torn
    layout = Layout.of(up.root)
    changed = layout.chain_path("日本/日本旅行/chains_chunk_1")
    pq.write_table(pq.read_table(changed).slice(0, 5), changed)
    layout.chain_path("ti/tinytown/chains_chunk_0").write_bytes(b"PAR1 torn")
    done, summary = up.run()
    # Then the changed one and its subreddit are done again, nothing else; the torn one is named,
    # and the status is 1
    assert done.returncode == 1, done.stderr
    assert summary["work_done"] == {"embed_jobs": 1, "cluster_jobs": 1, "ingest_jobs": 0}
    assert [letter["key"] for letter in summary["dead_letters"]] == ["ti/tinytown/chains_chunk_0"]


def test_only_the_page_listens_and_ctrl_c_leaves_nothing_running(up: Up):
    # Given a running `up`, Then other accounts of this host reach its pages and its metrics alone,
    # from this host, and of its files they can read none. If it is stopped
    metrics = free_port()
    with up.running(REDDIT_METRICS_PORT=str(metrics)) as process:
        assert up.left()
        # The workers start when the page is there: the reporter has the port, they the next ones.
        wait_for(lambda: len(up.listening()) == 5, process)
        ports = (up.port, up.maps, metrics, metrics + 1, metrics + 2)
        assert up.listening() == {("127.0.0.1", port) for port in ports}
        assert up.open_to_others() == []
        process.send_signal(signal.SIGINT)
        # Then it ends in good order and nothing is left
        assert process.wait(30) == 0
    assert up.left() == []
    assert "Stopping everything." in up.errors.read_text()


def test_commands_find_it_and_its_maps_are_there(up: Up, tmp_path: Path):
    # Given a running `up` with a state folder of its own choice,
    other_root = tmp_path / "another-way"
    other_root.symlink_to(up.root)
    environment = {k: v for k, v in up.environment.items() if k != "REDDIT_STATE_DIR"}
    ours = (sys.executable, "-m", "reddit_assets.cli")

    def queue(root: Path) -> subprocess.CompletedProcess[str]:
        command = [*ours, "queue", "--json", "--root", str(root)]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=60, check=False
        )

    with up.running() as process:
        # Then a command that is only given the root finds its queue, by another path, too,
        assert "embed" in json.loads(queue(other_root).stdout)
        # and the maps of what is clustered are pages.
        page = f"http://127.0.0.1:{up.maps}"
        wait_for(lambda: httpx.get(page).status_code == 200, process)
        assert "Maps of" in httpx.get(page).text
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    # If it has ended, Then a sentence says what to start or to set.
    said = queue(up.root).stderr
    assert f"no `reddit-assets up` runs for {up.root}. Start one" in said
    assert "REDIS_URL" in said


def test_a_worker_that_does_not_come_up_takes_nothing_else_down(up: Up, tmp_path: Path):
    # Given a model that does not exist
    with up.running("--model", str(tmp_path / "no-model")) as process:
        # If its worker has died at every start, Then that is said, with its last words
        up.wait_until_said("embed-worker does not come up", process)
        said = up.errors.read_text()
        assert "no-model" in said.split("embed-worker does not come up")[1].splitlines()[0]
        # and the page and everything else stay
        assert up.page_answers
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


# What no JSON parser of Python takes, and what is no job: none of it may stop a worker.
MALFORMED = (
    '{"input_path": "a\nb", "output_path": "c"}',
    '{"input_path": 01}',
    '{"n": ' + "9" * 5_000 + "}",
    "nan",
    "[" * 10_000,
)


def test_malformed_lines_in_the_public_list_end_nothing(up: Up):
    # Given a running `up`, If lines are pushed that are no JSON
    with up.running() as process:
        facts = json.loads((up.state / "up.json").read_text())
        client = redis.Redis.from_url(facts["redis_url"], decode_responses=True)
        queues = [JobQueue(client, kind) for kind in WORK]  # without dumps, nobody ingests
        for queue in queues:
            client.rpush(queue.public, *MALFORMED)

        # Then each is a dead letter soon, and no part was started again
        def refused(queue: JobQueue) -> list[str]:
            return [key for key in queue.dead_keys() if key.startswith("malformed:")]

        wait_for(lambda: all(len(refused(q)) == len(MALFORMED) for q in queues), process)
        assert not any(queue.counts().public for queue in queues)
        assert "ended" not in up.errors.read_text()
        assert up.page_answers
        for queue in queues:
            queue.purge(refused(queue))


def test_exit_when_done_does_not_wait_for_a_worker_that_never_comes_up(up: Up, tmp_path: Path):
    # Given work to do, and a model that does not exist
    changed = Layout.of(up.root).chain_path("日本/日本旅行/chains_chunk_0")
    pq.write_table(pq.read_table(changed).slice(0, 7), changed)
    # If it is to end when all is done, Then it ends with the reason, as text and in JSON
    done, summary = up.run("--model", str(tmp_path / "no-model"))
    assert done.returncode == 1, done.stderr
    assert summary["done"] is False
    assert "embed-worker does not come up" in summary["blocked"]
    assert "Its log is" in summary["blocked"]
    assert up.left() == []


def test_two_on_one_tree_need_one_queue(up: Up, tmp_path: Path):
    # Given a running `up`, If another is started with another state folder, as on another host
    with up.running() as process:
        other = Up(up.root, tmp_path / "other")
        done = subprocess.run(
            other.command(),
            capture_output=True,
            text=True,
            env=other.environment,
            timeout=60,
            check=False,
        )
        # Then it refuses in one line that says who is there and what to do
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert f"process {process.pid}, page http://127.0.0.1:{up.port}" in done.stderr
        assert f"state folder {up.state}" in done.stderr
        assert "REDIS_URL" in done.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert not (Layout.of(up.root).embeddings / ".up.json").exists()


def test_a_taken_port_and_a_missing_folder_are_sentences(up: Up, tmp_path: Path):
    # Given a port that is taken
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        up_there = up.command("--port", str(taken.getsockname()[1]))
        done = subprocess.run(
            up_there, capture_output=True, text=True, env=up.environment, timeout=60, check=False
        )
    # Then one sentence says so
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "is taken. Choose another, for example --port" in done.stderr
    # and so it does for a folder that is not there
    other = Up(tmp_path / "nowhere", tmp_path / "state")
    done = subprocess.run(
        other.command(), capture_output=True, text=True, env=other.environment, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "There is no folder" in done.stderr
