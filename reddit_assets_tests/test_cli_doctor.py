"""`status` and `doctor`: on a healthy system, and on one with each fault."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import chain
from pathlib import Path

import pytest
from pydantic import SecretStr
from rich.console import Console

from reddit_assets.cli.app import run
from reddit_assets.cli.doctor import findings
from reddit_assets.cli.status import screen
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.wanted import set_wanted_model
from reddit_assets.doctor import storage
from reddit_assets.doctor.findings import Finding, examine
from reddit_assets.errors import Failure
from reddit_assets.figures import Observer
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.planner import queue_wanted
from reddit_assets.local.servers import ValkeyServer
from reddit_assets.settings import Settings
from reddit_assets.workspace import Workspace
from reddit_assets_tests.factories import MODEL, claim_jobs, write_chain, write_embedding


def shown(workspace: Workspace) -> str:
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(screen(Observer(workspace).figures()))
    return console.export_text()


# --- status ----------------------------------------------------------------------------------
def test_status_shows_a_system_on_one_screen(workspace: Workspace) -> None:
    # Given of three files one done and one failed, and no worker
    layout, queue = workspace.layout, workspace.queues[Kind.EMBED]
    for number in range(3):
        write_chain(layout, f"as/Tea/c_{number}")
    write_embedding(layout, "as/Tea/c_0")
    queue_wanted(workspace.scanner(), workspace.queues)
    (claim,) = claim_jobs(queue, "w", 1, 60) or []
    queue.fail(claim, Failure("no", permanent=True), max_attempts=1, retry_seconds=1)
    text = shown(workspace)
    # Then it says so, and what to do
    (line,) = [line.split() for line in text.splitlines() if line.startswith("embeddings")]
    assert line == ["embeddings", "3", "1", "1", "0", "0", "0", "1", "33.3", "%"]
    assert "No worker is running." in text
    assert "embed jobs wait, and no worker is there: `reddit-assets worker --kind embed`." in text
    assert "1 embed jobs have failed: `reddit-assets dead`." in text
    # If the queue is paused, and a worker holds the rest
    queue.pause()
    queue.announce("w", {"host": "far-host", "backend": "onnx", "held": 1, "computing": 0}, 60)
    text = shown(workspace)
    assert "embed is paused" in text
    assert "far-host" in text
    assert "no worker is there" not in text


def test_status_says_that_everything_is_done_and_what_is_not_queued(workspace: Workspace) -> None:
    assert "Everything is done." in shown(workspace)
    write_chain(workspace.layout, "as/Tea/c_0")
    assert "1 outputs are to be made and not queued: `reddit-assets scan`." in shown(workspace)


def test_status_as_json_and_its_exit_status(
    workspace: Workspace, valkey_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(workspace.settings.root)
    assert run(["status", "--root", root, "--redis-url", valkey_url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["done"] is True
    # Without a queue the trees are shown, and that is said
    assert run(["status", "--root", root]) == 1
    assert "REDIS_URL is not set" in capsys.readouterr().out
    assert run(["status", "--quick", "--redis-url", valkey_url, "--root", root]) == 0


# --- doctor ----------------------------------------------------------------------------------
def examined(workspace: Workspace, **changes: object) -> dict[str, list[Finding]]:
    """Findings that are not fine, by topic."""
    by_topic: dict[str, list[Finding]] = {}
    for found in findings(workspace.settings.model_copy(update=changes), quick=True):
        if found.grade in ("warning", "fault"):
            by_topic.setdefault(found.topic, []).append(found)
    return by_topic


@pytest.fixture
def healthy(
    workspace: Workspace, own_valkey: Callable[..., ValkeyServer], minilm: object
) -> Workspace:
    write_chain(workspace.layout, "as/Tea/c_0")
    server = own_valkey(appendonly="yes")
    return Workspace.load(
        Settings(root=workspace.settings.root, redis_url=server.url, cluster_memory_mb=100)
    )


@pytest.fixture
def page() -> Iterator[Callable[[int, str], str]]:
    """Serves one answer at every address."""
    servers = []

    def serve(status: int, body: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_healthy_system_has_no_faults_and_stays_as_it_was(healthy: Workspace) -> None:
    before = sorted(healthy.layout.chains.parent.rglob("*"))
    # Storage may be nearly full or slow where the tests run
    for found in chain.from_iterable(examined(healthy).values()):
        assert "free at" in found.said, found
    assert sorted(healthy.layout.chains.parent.rglob("*")) == before


def test_each_fault_is_found_and_says_what_to_do(
    healthy: Workspace, page: Callable[[int, str], str], own_valkey: Callable[..., ValkeyServer]
) -> None:
    layout = healthy.layout

    def fault(topic: str, **changes: object) -> str:
        found = examined(healthy, **changes)[topic][0]
        assert found.advice, "a fault says what to do"
        return found.said

    # Redis: away, dropping keys, without persistence, nearly full
    away = SecretStr("redis://127.0.0.1:1/0")
    assert "cannot be reached" in fault("redis", redis_url=away)
    bad = own_valkey(appendonly="no", maxmemory="100mb", maxmemory_policy="allkeys-lru")
    client = connect(Settings(redis_url=bad.url))
    client.config_set("maxmemory", int(1.1 * client.info("memory")["used_memory"]))
    said = " ".join(
        f"{found.said} {found.advice}"
        for found in examined(healthy, redis_url=SecretStr(bad.url))["redis"]
    )
    for words in ("drops keys", "no append-only file", "Raise maxmemory"):
        assert words in said
    # Dagster: away, a login page, another version
    assert "does not answer" in fault("dagster", dagster_url="http://127.0.0.1:1")
    login = page(401, "<html>Sign in</html>")
    assert "status 401" in fault("dagster", dagster_url=login)
    other = page(200, '{"dagster_version": "1.2.3"}')
    assert "The webserver is Dagster 1.2.3" in fault("dagster", dagster_url=other)
    # Memory that this host does not have
    assert "Clustering may take" in fault("memory", cluster_memory_mb=10**9)
    # Another model is wanted
    layout.embeddings.mkdir()
    set_wanted_model(layout, MODEL)
    assert "the tree wants test-model" in fault("model")
    assert "nonesuch" in fault("model", model="nonesuch")
    # A tree that cannot be written, and one that is not mounted
    layout.clusters.write_text("a file")
    assert "cannot be written" in fault("clusters")
    layout.chains.rename(layout.chains.with_name("away"))
    layout.chains.mkdir()
    assert "There is nothing in" in fault("chains")


def test_a_full_disk_and_a_share_with_another_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "LEAST_FREE", 1e18)
    monkeypatch.setattr(storage.time, "time", lambda: 1e9)
    found = examine("clusters", lambda: storage.tree("clusters", tmp_path, "clusters.table"))
    said = " ".join(one.said for one in found)
    assert "clock is" in said
    assert "are free at" in said


def test_doctor_ends_with_a_status_and_keeps_secrets(
    healthy: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_TOKEN", "s3cret")
    root = str(healthy.settings.root)
    url = healthy.settings.require_redis_url()
    assert run(["doctor", "--quick", "--root", root, "--redis-url", url]) == 0
    bad = "redis://u:hunter2@127.0.0.1:1/0"
    assert run(["doctor", "--quick", "--root", root, "--redis-url", bad, "--json"]) == 1
    assert run(["settings"]) == 0
    output = capsys.readouterr().out
    assert "hunter2" not in output
    assert "s3cret" not in output


def test_what_nobody_expected_is_a_finding(tmp_path: Path) -> None:
    def look() -> Iterator[Finding]:
        raise ZeroDivisionError("by zero")
        yield

    (found,) = examine("host", look)
    assert found.grade == "fault"
    assert found.said == "ZeroDivisionError: by zero."
    assert Layout.of(tmp_path).chains.exists() is False
