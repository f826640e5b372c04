"""Metrics, dashboard and alert rules, against each other and against a real Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from reddit_assets.errors import Failure, StartupError
from reddit_assets.ledger.job import Kind, Result
from reddit_assets.ledger.planner import queue_wanted
from reddit_assets.local.servers import free_port
from reddit_assets.metrics import WholeCollector, serve_metrics
from reddit_assets.settings import Settings
from reddit_assets.tasks.messages import Finished
from reddit_assets.worker.display import Display
from reddit_assets.workspace import Workspace
from reddit_assets_tests.factories import claim_jobs, write_chain

DEPLOY = Path(__file__).parent.parent / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yaml"


def dashboard() -> list[str]:
    """The queries of the dashboard."""
    board = json.loads((DEPLOY / "grafana" / "reddit-assets.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def rules() -> list[str]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def a_worker_at_work() -> None:
    """Lets this process's registry have a worker's metrics."""
    display = Display()
    for kind in Kind:
        result = Result("j", kind.asset, "as/Tea/c_0")
        event = Finished("t", result, rows=10, tokens=200, seconds=0.5)
        for stage in ("ahead", "work", "publish"):
            display.stage(kind, stage, 0.1)
        display.progressed(kind, 10)
        display.holding(kind, 2)
        display.finished(kind, "as/Tea/c_0", event, size=1000)
        display.failed(kind, "as/Tea/c_1", Failure("no", type="BadFileError"), "dead")


@pytest.fixture
def whole(workspace: Workspace) -> CollectorRegistry:
    """Three files, of which one has failed, and the metrics of the whole."""
    for number in range(3):
        write_chain(workspace.layout, f"as/Tea/c_{number}")
    queue = workspace.queues[Kind.EMBED]
    queue_wanted(workspace.scanner(), workspace.queues)
    (claim,) = claim_jobs(queue, "w", 1, 60) or []
    queue.fail(claim, Failure("no", permanent=True), max_attempts=1, retry_seconds=1)
    (claim,) = claim_jobs(queue, "w", 1, 60) or []
    queue.acknowledge(claim, Result(claim.id, "embeddings", claim.key), rows=7, size=100)
    registry = CollectorRegistry()
    collector = WholeCollector(workspace)
    collector.look()
    registry.register(collector)
    return registry


def test_the_whole_is_measured(whole: CollectorRegistry) -> None:
    def value(name: str, **labels: str) -> float | None:
        return whole.get_sample_value(f"reddit_assets_{name}", labels)

    assert value("redis_up") == 1
    assert value("queue_jobs", kind="embed", state="queued") == 1
    assert value("queue_jobs", kind="embed", state="dead") == 1
    assert value("queue_done_total", kind="embed") == 1
    assert value("queue_rows_total", kind="embed") == 7
    assert value("outbox_results", kind="embed") == 1
    assert value("lane_jobs", kind="embed", lane="public") == 1
    assert value("outputs", asset="embeddings", state="missing") == 2
    assert value("outputs", asset="embeddings", state="failed") == 1
    assert value("workers", kind="embed") == 1
    assert (value("disk_free_bytes", tree="clusters") or 0) > 0
    assert (value("oldest_unfinished_seconds") or 0) > 3000


def test_without_redis_the_rest_is_still_measured(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path, redis_url="redis://127.0.0.1:1/0")
    registry = CollectorRegistry()
    collector = WholeCollector(Workspace.load(settings))
    registry.register(collector)
    assert registry.get_sample_value("reddit_assets_redis_up") == 0
    collector.look()
    assert registry.get_sample_value("reddit_assets_redis_up") == 0
    assert registry.get_sample_value("reddit_assets_disk_free_bytes", {"tree": "chains"})


def test_dashboard_and_alerts_ask_for_what_there_is(whole: CollectorRegistry) -> None:
    a_worker_at_work()
    text = (generate_latest(whole) + generate_latest(REGISTRY)).decode()
    there = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line[:1] != "#"}
    there |= {"reddit_assets_left_seconds"}  # once something is done
    for expression in dashboard() + rules():
        for name in re.findall(r"reddit_assets_\w+", expression):
            assert name in there, name


def test_a_taken_port_is_a_sentence(whole: CollectorRegistry) -> None:
    settings = Settings(metrics_port=free_port())
    assert serve_metrics(settings, whole)
    with pytest.raises(StartupError, match="cannot be used"):
        serve_metrics(settings, whole)
    assert not serve_metrics(Settings(), whole)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_each_alert_fires_once_and_none_on_a_healthy_system() -> None:
    for command in (
        ["check", "rules", "alerts.yaml"],
        ["check", "config", "--syntax-only", "prometheus.yaml"],
        ["test", "rules", "alerts.test.yaml"],
    ):
        done = subprocess.run(
            ["promtool", *command], cwd=ALERTS.parent, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    tested = (ALERTS.parent / "alerts.test.yaml").read_text()
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            assert f'{{alertname="{rule["alert"]}"}}' in tested
            assert rule["annotations"].keys() == {"summary", "description"}


@pytest.fixture
def prometheus(tmp_path: Path, whole: CollectorRegistry) -> Iterator[httpx.Client]:
    """A Prometheus that reads the whole and a worker, and has our rules."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    a_worker_at_work()
    ports = {"reporter": free_port(), "worker": free_port()}
    serve_metrics(Settings(metrics_port=ports["reporter"]), whole)
    serve_metrics(Settings(metrics_port=ports["worker"]))
    jobs = [
        {
            "job_name": f"reddit-assets-{name}",
            "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
        }
        for name, port in ports.items()
    ]
    config = tmp_path / "prometheus.yaml"
    fast = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config.write_text(
        yaml.safe_dump({"global": fast, "rule_files": [str(ALERTS)], "scrape_configs": jobs})
    )
    port = free_port()
    with subprocess.Popen(
        [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=10) as client:
                yield client
        finally:
            server.terminate()


def test_a_real_prometheus_reads_everything(prometheus: httpx.Client) -> None:
    def ask(expression: str) -> list[dict]:
        reply = prometheus.get("/query", params={"query": expression}).raise_for_status()
        answer = reply.json()
        assert answer["status"] == "success", (expression, answer)
        return answer["data"]["result"]

    # Given both targets, read several times
    deadline = time.monotonic() + 60
    found: list[dict] = []
    while len(found) < 2 and time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            found = ask("up == 1 and count_over_time(up[1m]) >= 3")
        time.sleep(0.3)
    assert len(found) == 2
    # Then every query of the dashboard is understood and answered
    for expression in dashboard():
        answer = ask(expression)
        assert answer or "left_seconds" in expression, expression
    # And the dead letter is an alert that waits for its time
    alerts = prometheus.get("/alerts").json()["data"]["alerts"]
    assert "RedditAssetsDeadLetters" in {alert["labels"]["alertname"] for alert in alerts}
    assert any(a["annotations"]["summary"] == "1 embed jobs were given up." for a in alerts)
    groups = prometheus.get("/rules").json()["data"]["groups"]
    assert all(rule["health"] == "ok" for group in groups for rule in group["rules"])
