"""The files of ``deploy/`` and the checkout's root: what they promise is tried."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import Failure, QueueUnavailableError
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.intake import unlisted
from reddit_assets.ledger.job import Job, Kind, Lane, Result
from reddit_assets.ledger.outbox import Outbox
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.ledger.waiters import collect, expired_runs, open_run, recorded, withdraw
from reddit_assets.local.instance import Page
from reddit_assets.local.servers import ValkeyServer, free_port
from reddit_assets.settings import load_settings
from reddit_assets_tests.factories import claim_jobs
from reddit_assets_tests.platform_stack import wait_for

REPOSITORY = Path(__file__).resolve().parent.parent
DEPLOY = REPOSITORY / "deploy"


@pytest.fixture
def protected(own_valkey: Callable[..., ValkeyServer], tmp_path: Path) -> ValkeyServer:
    """A server with the access rules of deploy/redis-acl.conf, the password being ``secret``."""
    rules = tmp_path / "acl.conf"
    rules.write_text((DEPLOY / "redis-acl.conf").read_text().replace("CHANGE-ME", "secret"))
    return own_valkey(aclfile=f'"{rules}"')


KEYS = {Kind.EMBED: "as/sub/c_{}", Kind.CLUSTER: "as/sub_{}", Kind.INGEST: "RC_2023-0{}.zst"}


@pytest.mark.parametrize("kind", Kind)
def test_the_documented_account_can_do_all_work(
    protected: ValkeyServer, tmp_path: Path, kind: Kind
):
    # Given the documented account
    client = connect(load_settings(redis_url=f"redis://worker:secret@127.0.0.1:{protected.port}/0"))
    layout = Layout.of(tmp_path)
    queue = JobQueue(client, kind)
    # If it does everything that producers, workers, runs, operators and reporters do
    jobs = [Job(kind, KEYS[kind].format(number), "1-1") for number in range(4)]
    assert queue.enqueue(jobs[:3], layout).queued == 3
    open_run(queue, "run-1", 60.0)
    queue.enqueue(jobs[3:], layout, run="run-1")
    queue.enqueue([Job(kind, KEYS[kind].format(9), "1-1")], layout, lane=Lane.STALE)
    queue.announce("w1", {"host": "h"}, 60.0)
    assert queue.lead("w1", 10.0)
    claims = claim_jobs(queue, "w1", 5, 60.0)
    assert claims is not None
    assert len(claims) == 5
    queue.renew("w1", [(claim, True) for claim in claims], 60.0)
    for claim in claims[:2]:
        result = Result(claim.id, "embeddings", claim.key, data_version="v")
        assert queue.acknowledge(claim, result, rows=1, tokens=1, seconds=1.0)
    failure = Failure("torn", "", "BadFileError", True)
    assert queue.fail(claims[2], failure, max_attempts=1, retry_seconds=1.0) == "dead"
    queue.release(claims[3:4])
    queue.reap(retry_seconds=0)
    queue.counts()
    queue.workers()
    assert len(queue.dead_letters()) == 1
    queue.retry(queue.dead_keys())
    queue.pause()
    queue.resume()
    queue.close(unlisted(queue, 0))
    found = collect(queue, "run-1", block_seconds=0.01)
    recorded(queue, "run-1", [entry for entry, _ in found])
    withdraw(queue, "run-1")
    assert expired_runs(queue) == []
    outbox = Outbox(queue, "r1")
    assert outbox.slot(2, 10.0)
    entries = outbox.take(10)
    assert entries
    outbox.done([entry.entry for entry in entries])
    outbox.free_slot()
    queue.leave("w1")
    # Then nothing was refused, and a plain consumer's BLPOP works as well
    assert client.blpop(queue.public, timeout=1) is not None


@pytest.mark.parametrize(
    "command",
    [
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("KEYS", "*"),
        ("GET", "other"),
        ("SET", "phase4_secrets", "x"),
        ("ACL", "LIST"),
        ("SHUTDOWN",),
        ("EVAL", "return redis.call('GET', 'other')", "0"),
    ],
    ids=lambda command: " ".join(command)[:20],
)
def test_the_documented_account_can_do_nothing_else(
    protected: ValkeyServer, command: tuple[str, ...]
):
    # Given the documented account, If it tries something else, Then it is refused
    client = redis.Redis.from_url(f"redis://worker:secret@127.0.0.1:{protected.port}/0")
    with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)permission|NOPERM|ACL"):
        client.execute_command(*command)


def test_a_wrong_password_and_the_default_account_are_refused(protected: ValkeyServer):
    # Given wrong credentials, Then the sentence says so and holds no password
    for user in ("worker:wrong@", ""):
        url = f"redis://{user}127.0.0.1:{protected.port}/0"
        with pytest.raises(QueueUnavailableError) as caught:
            JobQueue(connect(load_settings(redis_url=url)), Kind.EMBED).counts()
        assert "wrong" not in str(caught.value)


@pytest.mark.slow
def test_dagster_dev_works_with_the_committed_files_alone(tmp_path: Path):
    # Given the committed workspace and instance file, and no queue, database or model
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path)
    port = free_port()
    bare = {k: v for k, v in os.environ.items() if not k.startswith(("RED", "DAGSTER", "MODEL"))}
    # If `dagster dev` is started
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", str(port)],
        cwd=REPOSITORY,
        env={**bare, "DAGSTER_HOME": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    page = Page(f"http://127.0.0.1:{port}")
    try:
        # Then its page shows the assets, and its daemon looks at the sensors: a tick fails with a
        # sentence that says what is missing
        wait_for(page.answers, 90, "the page answers")
        wait_for(lambda: page.definitions()[0], 60, "the definitions are loaded")
        keys = {tuple(node["assetKey"]["path"]) for node in page.ask(ASSETS)["assetNodes"]}
        assert {("chains",), ("embeddings",), ("clusters",), ("corpus",)} <= keys
        tick = wait_for(lambda: _tick(page), 60, "the discovery sensor ticks")
        assert tick["status"] == "FAILURE"
        assert "REDIS_URL is not set" in str(tick["error"])
    finally:
        page.close()
        os.killpg(process.pid, signal.SIGINT)
        process.wait(30)


ASSETS = "{ assetNodes { assetKey { path } } }"


def _tick(page: Page) -> dict[str, Any] | None:
    selector = (
        '{repositoryName: "__repository__", repositoryLocationName: "reddit_assets",'
        ' sensorName: "discovery"}'
    )
    ticks = page.ask(
        f"{{ sensorOrError(sensorSelector: {selector}) {{ ... on Sensor {{ sensorState {{"
        " ticks(limit: 1) { status error { message causes { message } } } } } } }"
    )["sensorOrError"]["sensorState"]["ticks"]
    return ticks[0] if ticks and ticks[0]["status"] != "STARTED" else None


def test_dagster_yaml_names_no_storage_and_no_host():
    # Given the committed instance file, Then a bare `dagster dev` can use it
    instance = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text())
    assert "storage" not in instance
    assert instance["telemetry"] == {"enabled": False}
    assert instance["nux"] == {"enabled": False}


def test_constraints_keep_what_belongs_together():
    # Given the constraints, Then they are exact and hold the pairs that must match
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pins["torch"] == "2.13.0"
    dagster = {pins[name] for name in ("dagster", "dagster-webserver", "dagster-graphql")}
    assert dagster == {"1.13.27"}
    assert pins["dagster-postgres"] == "0.29.27"


def test_webserver_and_daemon_find_the_code_server():
    # Given the units and their workspace, Then address and name are the code server's own
    (entry,) = yaml.safe_load((DEPLOY / "workspace.yaml").read_text())["load_from"]
    server = entry["grpc_server"]
    unit = (DEPLOY / "systemd/reddit-assets-code-server.service").read_text()
    assert f"--location-name {server['location_name']} --socket {server['socket']} " in unit
    # and no other account reaches it: one that did could run code.
    assert server["socket"].startswith("/run/reddit-assets/")
    assert "RuntimeDirectory=reddit-assets\nRuntimeDirectoryMode=0700\n" in unit
    for name in ("webserver", "daemon"):
        unit = (DEPLOY / f"systemd/reddit-assets-{name}.service").read_text()
        assert "/deploy/workspace.yaml" in unit


def test_the_workers_unit_keeps_compiled_code_where_it_may_write():
    # Given the worker's unit, whose account need not have a home
    unit = (DEPLOY / "systemd/reddit-assets-worker@.service").read_text()
    # Then numba's cache is in the unit's own cache folder, and the example names the variable
    assert "CacheDirectory=reddit-assets\n" in unit
    assert "NUMBA_CACHE_DIR=/var/cache/reddit-assets/" in unit
    assert "NUMBA_CACHE_DIR" in (DEPLOY / "environment.example").read_text()


def test_units_run_commands_that_exist():
    # Given the systemd units, Then every reddit-assets command in them is known
    from reddit_assets.cli.app import run

    for unit in (DEPLOY / "systemd").glob("*.service"):
        command = next(
            line for line in unit.read_text().splitlines() if line.startswith("ExecStart=")
        )
        if "/reddit-assets " in command:
            name = command.split("/reddit-assets ")[1].split()[0]
            assert run([name, "--help"]) == 0, unit.name
