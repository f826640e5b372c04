"""The webhook, against a local server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from dagster import DagsterInstance, DagsterRunStatus
from pydantic import SecretStr

from reddit_assets.alerts import Alerter, Night
from reddit_assets.errors import Failure
from reddit_assets.ledger.job import Job, Kind, Result
from reddit_assets.platform.services.nights import latest_failure
from reddit_assets.workspace import Workspace
from reddit_assets_tests.factories import claim_jobs

DAY = 86400.0
MORNING = 1_800_000_000 - 1_800_000_000 % DAY + 9 * 3600


class Hook:
    """A webhook: keeps what it was sent; refuses with ``status`` other than 200."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.status = 200
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if hook.status == 200:
                    hook.texts.append(body["text"])
                self.send_response(hook.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/services/s3cret"


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.server.shutdown()
    hook.server.server_close()


@pytest.fixture
def hooked(workspace: Workspace, hook: Hook) -> Workspace:
    settings = workspace.settings.model_copy(update={"webhook_url": SecretStr(hook.url)})
    return Workspace(settings, workspace.layout, workspace.queues)


def kill(workspace: Workspace, *names: str) -> None:
    queue = workspace.queues[Kind.EMBED]
    queue.enqueue([Job(Kind.EMBED, f"as/Tea/{n}", "1-1") for n in names], workspace.layout)
    failure = Failure("It is not parquet.", "Replace it.", permanent=True)
    for claim in claim_jobs(queue, "w", len(names), 60) or []:
        queue.fail(claim, failure, max_attempts=1, retry_seconds=1)


def test_new_dead_letters_are_told_once(hooked: Workspace, hook: Hook) -> None:
    alerter = Alerter(hooked)
    assert alerter.look() == []
    # Given seven new ones
    kill(hooked, *(f"c_{n}" for n in range(7)))
    # If the webhook refuses at first, then they are told when it does not, and once
    hook.status = 500
    assert alerter.look() == []
    hook.status = 200
    alerter.look()
    alerter.look()
    (text,) = hook.texts
    assert text.startswith("7 embed jobs were given up (`reddit-assets dead list`):\n• as/Tea/c_")
    assert "It is not parquet. Replace it." in text
    assert text.endswith("… and 2 more")
    # If another reporter takes over, then it tells only what is new
    hooked.queues[Kind.EMBED].client.delete(f"{hooked.queues[Kind.EMBED].prefix}alerter")
    kill(hooked, "late")
    assert len(Alerter(hooked).look()) == 1
    assert "as/Tea/late" in hook.texts[1]
    assert alerter.look() == []  # the other one leads now


def test_a_queue_that_stands_still_is_told_once_and_that_it_goes_on(
    hooked: Workspace, hook: Hook
) -> None:
    now = [MORNING]
    alerter, queue = Alerter(hooked, clock=lambda: now[0]), hooked.queues[Kind.EMBED]
    alerter.look()
    queue.enqueue([Job(Kind.EMBED, f"as/Tea/c_{n}", "1-1") for n in range(2)], hooked.layout)
    for _ in range(3):
        now[0] += 1900
        alerter.look()
    assert hook.texts == [
        "No embed job has been done for 63 min, although 2 are there. No worker. "
        "`reddit-assets status`"
    ]
    # If it goes on, then that is told, and it is quiet while the queue is paused
    (claim,) = claim_jobs(queue, "w", 1, 60) or []
    queue.acknowledge(claim, Result(claim.id, "embeddings", claim.key))
    alerter.look()
    assert hook.texts[1] == "embed goes on."
    queue.pause()
    for _ in range(3):
        now[0] += 1900
        alerter.look()
    assert len(hook.texts) == 2


def test_one_long_job_is_no_standstill(hooked: Workspace, hook: Hook) -> None:
    # Given a cluster that takes hours, and a worker that computes it
    now = [MORNING]
    alerter, queue = Alerter(hooked, clock=lambda: now[0]), hooked.queues[Kind.CLUSTER]
    queue.enqueue([Job(Kind.CLUSTER, "as/Tea", "1-1")], hooked.layout)
    claim_jobs(queue, "w", 1, 60)
    queue.announce("w", {"host": "h", "kind": "cluster", "held": 1, "computing": 1}, 60.0)
    # If hours pass, Then nothing is told; if the worker is gone, it is.
    for _ in range(4):
        now[0] += 3700
        alerter.look()
    assert hook.texts == []
    queue.leave("w")
    for _ in range(3):
        now[0] += 3700
        alerter.look()
    assert "No cluster job has been done" in hook.texts[0]


def test_a_daily_summary(hooked: Workspace, hook: Hook) -> None:
    now = [MORNING]
    alerter, queue = Alerter(hooked, clock=lambda: now[0]), hooked.queues[Kind.EMBED]
    assert alerter.look() == []
    queue.enqueue([Job(Kind.EMBED, "as/Tea/c_0", "1-1")], hooked.layout)
    (claim,) = claim_jobs(queue, "w", 1, 60) or []
    queue.acknowledge(claim, Result(claim.id, "embeddings", claim.key), rows=1234)
    for hours in (1, 15, 8, 1):  # ten o'clock, one at night, nine, ten
        now[0] += hours * 3600
        alerter.look()
    (text,) = hook.texts
    assert text.splitlines()[0].endswith(": embed: 1 jobs done, 1,234 rows.")
    assert "Now: 0 of 0 files embedded" in text


def test_a_failed_night_is_told_once(
    hooked: Workspace, hook: Hook, instance: DagsterInstance
) -> None:
    from dagster import DagsterRun

    assert latest_failure(instance) is None
    instance.add_run(DagsterRun(job_name="nightly", status=DagsterRunStatus.FAILURE))
    night = latest_failure(instance, "http://dagster.internal/")
    assert isinstance(night, Night)
    alerter = Alerter(hooked, lambda: latest_failure(instance, "http://dagster.internal/"))
    alerter.look()
    alerter.look()
    assert hook.texts == [
        f"The nightly rescan has failed. http://dagster.internal/runs/{night.run}"
    ]
    instance.add_run(DagsterRun(job_name="nightly", status=DagsterRunStatus.SUCCESS))
    assert latest_failure(instance) is None


def test_the_address_stays_secret(
    hooked: Workspace, hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    hook.status = 404
    kill(hooked, "c_0")
    Alerter(hooked).look()
    hook.server.shutdown()
    hook.server.server_close()
    Alerter(hooked).look()
    assert "does not take messages (status 404)" in caplog.text
    assert "s3cret" not in caplog.text + repr(hooked.settings)
