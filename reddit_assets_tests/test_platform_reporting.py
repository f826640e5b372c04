"""The reporters' loop: whatever Dagster answers, it says so and goes on; one event has one face."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from dagster import AssetKey, DagsterInstance

from reddit_assets.errors import ReportingError
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Kind, Result
from reddit_assets.ledger.outbox import Outbox
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.platform.reporting.drain import Reporter, Sink
from reddit_assets.platform.reporting.instance import InstanceSink
from reddit_assets.platform.reporting.rest import RestSink
from reddit_assets.settings import Settings
from reddit_assets.workspace import Workspace
from reddit_assets_tests.platform_stack import wait_for

PICTURE = "A" * 120_000


class Webserver(ThreadingHTTPServer):
    """Answers like Dagster's webserver, unless ``spoilt`` says something else.

    Attributes:
        spoilt: takes a request's path and body; ``None`` for Dagster's own answer.
        reports: what was reported: path and body.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.spoilt: Callable[[str, dict[str, Any]], tuple[int, str, str] | None] = (
            lambda path, body: None
        )
        self.reports: list[tuple[str, dict[str, Any]]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def partitions(self) -> list[str]:
        return [body["partition"] for path, body in self.reports if "/embeddings" in path]


class Handler(BaseHTTPRequestHandler):
    server: Webserver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, kind, text = self.server.spoilt(self.path, body) or self.own(body)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        if status == 302:
            self.send_header("Location", "/login")
        self.end_headers()
        self.wfile.write(text.encode())

    def own(self, body: dict[str, Any]) -> tuple[int, str, str]:
        if self.path == "/graphql":
            names = [line.split(":")[0].strip(" {") for line in body["query"].splitlines()]
            data = {name: {"assetMaterializations": []} for name in names}
            return 200, "application/json", json.dumps({"data": data})
        self.server.reports.append((self.path, body))
        return 200, "application/json", "{}"

    def log_message(self, *_: Any) -> None:
        """Not to the tests' output."""


@pytest.fixture
def webserver() -> Iterator[Webserver]:
    with Webserver() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture
def outbox(valkey_url: str) -> Outbox:
    queue = JobQueue(connect(Settings(redis_url=valkey_url)), Kind.EMBED)
    return Outbox(queue, "looking")


@pytest.fixture
def reporting(outbox: Outbox) -> Iterator[Callable[[Sink], Reporter]]:
    """Starts reporters of the outbox."""
    started: list[Reporter] = []

    def start(sink: Sink) -> Reporter:
        started.append(Reporter([outbox.queue], sink, takeover_seconds=1.5))
        started[-1].start()
        return started[-1]

    yield start
    for reporter in started:
        reporter.stop()
        reporter.join(10)


def result(key: str, **changes: Any) -> Result:
    metadata = {"rows": 3, "backend": "onnx", "map_png": PICTURE, "map": "/c/map.html", "x": None}
    return Result(f"job-{key}", "embeddings", key, data_version="v", metadata=metadata, **changes)


LOGIN = "<html><title>Log in</title></html>"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, "text/html", LOGIN), "something else than JSON: <html><title>Log in"),
        ((302, "text/html", ""), "answers 302"),
        ((200, "application/json", '{"data": {"p0"'), "something else than JSON"),
        ((200, "application/json", "[1, 2]"), "something else than JSON"),
        ((200, "application/json", '{"data": {"overview": {"partitionKeys": 7}}}'), "form"),
        ((200, "application/json", '{"data": null}'), "another form"),
        ((200, "application/json", '{"errors": "no"}'), "cannot tell what it has"),
        ((500, "text/plain", "out of order"), "answers 500 to /graphql: out of order"),
        ((502, "text/html", "<html>Bad gateway</html>"), "answers 502"),
        ((403, "application/json", '{"error": "not you"}'), "answers 403"),
    ],
)
def test_a_reporter_survives_answers_that_are_not_dagsters(
    webserver: Webserver,
    outbox: Outbox,
    reporting: Callable[[Sink], Reporter],
    caplog: pytest.LogCaptureFixture,
    answer: tuple[int, str, str],
    said: str,
) -> None:
    # Given a webserver whose answers are not Dagster's:
    webserver.spoilt = lambda path, body: answer
    outbox.put([result("as/Tea/c_0")])
    with caplog.at_level(logging.WARNING):
        reporter = reporting(RestSink(webserver.url))
        wait_for(lambda: caplog.messages, 10, "it says what is wrong")
    # Then it is said in a sentence with what to do, the thread lives and nothing is lost.
    assert said in caplog.messages[0]
    assert "Nothing is lost meanwhile" in caplog.messages[0]
    assert reporter.is_alive()
    assert len(outbox) == 1
    # If Dagster answers again, then the result is reported.
    webserver.spoilt = lambda path, body: None
    wait_for(lambda: len(outbox) == 0, 10, "it goes on")
    assert webserver.partitions() == ["as/Tea/c_0"]


@pytest.mark.parametrize("answer", [(200, "text/html", LOGIN), (302, "text/html", "")])
def test_a_login_page_is_no_receipt(
    webserver: Webserver,
    outbox: Outbox,
    reporting: Callable[[Sink], Reporter],
    answer: tuple[int, str, str],
) -> None:
    # If only the reports meet the login page, then the entry stays in the outbox.
    webserver.spoilt = lambda path, body: answer if path.startswith("/report") else None
    outbox.put([result("as/Tea/c_0")])
    reporter = reporting(RestSink(webserver.url))
    wait_for(lambda: reporter._said, 10, "it is said")
    assert len(outbox) == 1


def test_what_nobody_expected_is_logged_with_its_traceback_and_the_loop_goes_on(
    outbox: Outbox,
    webserver: Webserver,
    reporting: Callable[[Sink], Reporter],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sink = RestSink(webserver.url)
    calls: list[int] = []
    report = sink.report

    def broken_at_first(entries: Any) -> Any:
        calls.append(len(entries))
        if len(calls) == 1:
            raise ZeroDivisionError("nobody expected this")
        return report(entries)

    monkeypatch.setattr(sink, "report", broken_at_first)
    outbox.put([result("as/Tea/c_0")])
    reporting(sink)
    wait_for(lambda: len(outbox) == 0, 10, "it goes on")
    assert "nobody expected this" in caplog.text
    assert "Traceback" in caplog.text


def test_a_refused_outbox_does_not_hold_up_the_other(valkey_url: str) -> None:
    # Given embeddings that Dagster refuses, all of them, and a cluster that it takes
    client = connect(Settings(redis_url=valkey_url))
    queues = [JobQueue(client, kind) for kind in (Kind.EMBED, Kind.CLUSTER)]
    embeddings, clusters = (Outbox(queue, "looking") for queue in queues)
    embeddings.put([result(f"as/Tea/c_{number}") for number in range(3)])
    clusters.put([Result("job", "clusters", "as/Tea", data_version="v")])

    class Refusing:
        batch = 100

        def report(self, entries: Any) -> dict[str, Any]:
            if entries[0].result.asset == "embeddings":
                raise ReportingError("Dagster does not take embeddings.")
            return {}

    # If a reporter drains both once, then the error is heard and the cluster has arrived
    with pytest.raises(ReportingError, match="does not take embeddings"):
        Reporter(queues, Refusing()).drain()
    assert (len(embeddings), len(clusters)) == (3, 0)


def test_a_report_that_the_webserver_refuses_is_set_aside(
    webserver: Webserver,
    outbox: Outbox,
    reporting: Callable[[Sink], Reporter],
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Given three results, the first of which Dagster never takes:
    keys = [f"as/Tea/c_{i}" for i in range(3)]
    webserver.spoilt = lambda path, body: (
        (400, "application/json", '{"error": "Error constructing AssetMaterialization"}')
        if body.get("partition") == keys[0]
        else None
    )
    outbox.put([result(key) for key in keys])
    reporting(RestSink(webserver.url))
    wait_for(lambda: len(outbox) == 0, 20, "the outbox is empty")
    # Then the others were reported, and the first is set aside and named with its reason.
    assert webserver.partitions() == keys[1:]
    ((_, fields),) = outbox.queue.client.xrange(f"{outbox.queue.prefix}rejected")
    assert keys[0] in fields["fields"]
    assert "Error constructing" in fields["why"]
    assert any(f"{keys[0]} of embeddings is set aside" in line for line in caplog.messages)


def test_an_entry_that_the_storage_cannot_hold_does_not_block_the_others(
    tmp_path_factory: pytest.TempPathFactory,
    outbox: Outbox,
    reporting: Callable[[Sink], Reporter],
    valkey_url: str,
) -> None:
    root = tmp_path_factory.mktemp("root")
    (root / "chains").mkdir()
    workspace = Workspace.load(Settings(root=root, redis_url=valkey_url))
    with DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as instance:
        # Given a result among others whose partition no database takes (half a character):
        keys = [f"as/Tea/c_{i}" for i in range(5)]
        outbox.put([result(key) for key in keys[:3]])
        bad = {"job": "j", "partition": "as/Tea/\ud800", "data_version": "v"}
        outbox.queue.client.xadd(f"{outbox.queue.prefix}outbox", {"r": json.dumps(bad)})
        outbox.put([result(key) for key in keys[3:]])
        reporting(InstanceSink(workspace, instance))
        wait_for(
            lambda: instance.get_materialized_partitions(AssetKey("embeddings")) == set(keys),
            20,
            "the others are there",
        )
        # Then it is set aside once others were taken beside it.
        for number in range(10):
            outbox.put([result(f"as/Jam/c_{number}")])
            if len(outbox) == 0:
                break
            wait_for(lambda: len(outbox) <= 1, 10, "more are taken")
        wait_for(lambda: len(outbox) == 0, 20, "it is set aside")


def test_a_result_has_the_same_face_over_rest_and_instance(
    tmp_path_factory: pytest.TempPathFactory,
    webserver: Webserver,
    outbox: Outbox,
    reporting: Callable[[Sink], Reporter],
    valkey_url: str,
) -> None:
    # Given the same result reported both ways:
    root = tmp_path_factory.mktemp("root")
    (root / "chains").mkdir()
    workspace = Workspace.load(Settings(root=root, redis_url=valkey_url))
    outbox.put([result("as/Tea/c_0", source_version="s")])
    reporting(RestSink(webserver.url))
    wait_for(lambda: len(outbox) == 0, 10, "reported")
    faces = {path.rsplit("/", 1)[1]: body["metadata"] for path, body in webserver.reports}
    with DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as instance:
        sink = InstanceSink(workspace, instance)
        outbox.put([result("as/Tea/c_0", source_version="s")])
        sink.report(outbox.take(1))
        for asset in ("chains", "embeddings"):
            event = instance.get_latest_materialization_event(AssetKey(asset))
            assert event is not None
            assert event.asset_materialization is not None
            shown = event.asset_materialization.metadata
            # Then both have the same names in the same order; only the picture, which the
            # webserver's endpoint would show as a page of letters, is left out over REST.
            assert [name for name in shown if name != "picture"] == list(faces[asset])
            assert {name: shown[name].value for name in faces[asset]} == faces[asset]
            assert ("picture" in shown) == (asset == "embeddings")
    assert PICTURE not in json.dumps(faces)
    assert faces["embeddings"]["map"] == "/c/map.html"


def test_all_reporters_together_hold_two_connections(
    outbox: Outbox, webserver: Webserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given three reporters of the one queue and three of the other:
    cluster = JobQueue(outbox.queue.client, Kind.CLUSTER)
    queues = [outbox.queue, cluster] * 3
    reporters = [Reporter([queue], RestSink(webserver.url)) for queue in queues]
    # Then two of the six may report; if one ends, then another may.
    assert [reporter._may_report() for reporter in reporters].count(True) == 2
    reporters[0]._end()
    assert [reporter._may_report() for reporter in reporters[1:]].count(True) == 2
