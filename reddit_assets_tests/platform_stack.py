"""A whole stack for the orchestration's tests: webserver, daemon, Valkey, Postgres, a fake worker.

Not a test module.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psycopg2
from dagster import DagsterInstance
from dagster._core.instance.ref import InstanceRef

from reddit_assets.corpus.layout import Layout
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.local.instance import write_workspace
from reddit_assets.local.servers import PostgresServer, ValkeyServer, free_port
from reddit_assets.platform.reporting.drain import Reporter
from reddit_assets.platform.reporting.instance import InstanceSink
from reddit_assets.settings import Settings
from reddit_assets.workspace import Workspace
from reddit_assets_tests.platform_worker import FakeWorker, write_chain

REPO = Path(__file__).parent.parent


class Stack:
    """Code server, webserver and daemon over given Valkey and Postgres servers, on a tree."""

    def __init__(self, folder: Path, redis_url: str, postgres_url: str, **settings: Any) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.home = folder / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        (self.root / "chains").mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = Settings(
            root=self.root,
            redis_url=redis_url,
            dagster_postgres_url=postgres_url,
            dagster_url=self.url,
            **{
                "discovery_seconds": 3,
                "settle_seconds": 1.0,
                "run_lease_seconds": 8.0,
                **settings,
            },
        )
        self.layout = Layout.from_settings(self.settings)
        client = connect(self.settings)
        self.queues = {kind: JobQueue(client, kind) for kind in Kind}
        self._write_config(postgres_url)
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("REDDIT_", "DAGSTER"))},
            **self.settings.environment(),
            "DAGSTER_HOME": str(self.home),
            "PYTHONPATH": str(REPO),
        }
        self.code_port = free_port()
        self.workspace = write_workspace(self.home, host="127.0.0.1", port=self.code_port)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def _write_config(self, postgres_url: str) -> None:
        text = (REPO / "dagster.yaml").read_text()
        text = text.replace("poll_interval_seconds: 30", "poll_interval_seconds: 5")
        text += f"\nstorage:\n  postgres:\n    postgres_url: {postgres_url!r}\n"
        (self.home / "dagster.yaml").write_text(text)

    # --- processes -----------------------------------------------------------------------
    def start(self, *names: str) -> Stack:
        where = ["-w", str(self.workspace)]
        commands = {
            "code-server": [
                *("-m", "dagster", "api", "grpc", "-m", "reddit_assets.definitions"),
                *("-h", "127.0.0.1", "-p", str(self.code_port), "--lazy-load-user-code"),
                *("--location-name", "reddit_assets", "--use-python-environment-entry-point"),
            ],
            "webserver": [
                *("-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(self.port), *where),
            ],
            "daemon": ["-m", "dagster._daemon", "run", *where],
        }
        for name in names or tuple(commands):
            log = open(self.folder / f"{name}.log", "ab")  # noqa: SIM115 - the child's
            self.processes[name] = subprocess.Popen(
                [sys.executable, *commands[name]],
                cwd=self.folder,
                env=self.env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            log.close()
        if not names or "webserver" in names:
            wait_for(self.loaded, 60, "the webserver has loaded the assets")
        return self

    def loaded(self) -> bool:
        try:
            found = self.gql(
                "{ assetsOrError { ... on AssetConnection { nodes { key { path } } } } }"
            )
        except (httpx.HTTPError, RuntimeError):
            return False
        return len(found["assetsOrError"]["nodes"]) >= 0 and bool(self.repository())

    def repository(self) -> dict[str, str] | None:
        found = self.gql(
            "{ repositoriesOrError { ... on RepositoryConnection {"
            " nodes { name location { name } } } } }"
        )["repositoriesOrError"].get("nodes")
        if not found:
            return None
        return {
            "repositoryName": found[0]["name"],
            "repositoryLocationName": found[0]["location"]["name"],
        }

    def kill(self, *names: str) -> None:
        """End whole process groups at once, as when a host goes down."""
        for name in names or tuple(self.processes):
            process = self.processes.pop(name)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)

    # --- the page's own API --------------------------------------------------------------
    def gql(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = httpx.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60
        ).json()
        if answer.get("errors"):
            raise RuntimeError(str(answer["errors"])[:2000])
        return answer["data"]

    def counts(self, asset: str) -> tuple[int, int]:
        """(materialized, all) partitions of an asset."""
        found = self._stats(asset)
        return found["numMaterialized"], found["numPartitions"]

    def failed(self, asset: str) -> int:
        """Failed partitions of an asset."""
        return int(self._stats(asset)["numFailed"])

    def _stats(self, asset: str) -> dict[str, int]:
        found: dict[str, int] = self.gql(
            "query($k: AssetKeyInput!) { assetNodeOrError(assetKey: $k) { ... on AssetNode {"
            " partitionStats { numMaterialized numPartitions numFailed numMaterializing } } } }",
            k={"path": asset.split("/")},
        )["assetNodeOrError"]["partitionStats"]
        return found

    def events(self, asset: str, partition: str) -> list[dict[str, Any]]:
        """A partition's materializations, latest first."""
        found = self.gql(
            "query($k: AssetKeyInput!, $p: [String!]) { assetOrError(assetKey: $k) { ... on Asset {"
            " assetMaterializations(partitions: $p) { runId timestamp tags { key value }"
            " metadataEntries { label __typename ... on TextMetadataEntry { text }"
            " ... on IntMetadataEntry { intValue } } } } } }",
            k={"path": asset.split("/")},
            p=[partition],
        )
        return found["assetOrError"]["assetMaterializations"]

    def stale(self, asset: str, partition: str) -> tuple[str, list[str]]:
        """What the page shows of a partition: its status and the reasons."""
        node = self.gql(
            "query($k: [AssetKeyInput!]!, $p: String) { assetNodes(assetKeys: $k) {"
            " staleStatus(partition: $p) staleCauses(partition: $p) { reason } } }",
            k=[{"path": asset.split("/")}],
            p=partition,
        )["assetNodes"][0]
        return node["staleStatus"], [cause["reason"] for cause in node["staleCauses"]]

    def check(self, asset: str, name: str, *, runs: Sequence[str] = ()) -> dict[str, Any]:
        """A check's latest evaluation (of ``runs``): status, description, metadata by label."""
        executions = self.gql(
            "query($k: AssetKeyInput!, $c: String!) { assetCheckExecutions(assetKey: $k,"
            " checkName: $c, limit: 10) { runId status evaluation { description"
            " metadataEntries { label"
            " ... on TextMetadataEntry { text } ... on IntMetadataEntry { intValue }"
            " ... on FloatMetadataEntry { floatValue } } } } }",
            k={"path": asset.split("/")},
            c=name,
        )["assetCheckExecutions"]
        latest = next(one for one in executions if not runs or one["runId"] in runs)
        evaluation = latest["evaluation"] or {"description": "", "metadataEntries": []}
        metadata = {
            entry["label"]: next((entry[k] for k in entry if k != "label"), None)
            for entry in evaluation["metadataEntries"]
        }
        return {
            "status": latest["status"],
            "description": evaluation["description"],
            "metadata": metadata,
        }

    def backfill(self, assets: Sequence[str], partitions: Sequence[str]) -> str:
        found = self.gql(
            "mutation($b: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $b) {"
            " __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }"
            " } }",
            b={
                "assetSelection": [{"path": name.split("/")} for name in assets],
                "partitionNames": list(partitions),
                "fromFailure": False,
            },
        )["launchPartitionBackfill"]
        if "backfillId" not in found:
            raise RuntimeError(str(found))
        return found["backfillId"]

    def backfill_by_assets(self, wanted: dict[str, Sequence[str]]) -> str:
        found = self.gql(
            "mutation($b: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $b) {"
            " __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }"
            " } }",
            b={
                "partitionsByAssets": [
                    {
                        "assetKey": {"path": name.split("/")},
                        "partitions": {"ranges": [{"start": key, "end": key} for key in keys]},
                    }
                    for name, keys in wanted.items()
                ]
            },
        )["launchPartitionBackfill"]
        if "backfillId" not in found:
            raise RuntimeError(str(found))
        return found["backfillId"]

    def backfill_status(self, backfill: str) -> dict[str, Any]:
        return self.gql(
            "query($b: String!) { partitionBackfillOrError(backfillId: $b) { __typename"
            " ... on PartitionBackfill { status error { message } runs(limit: 100) { runId status"
            " tags { key value } } assetBackfillData { assetBackfillStatuses { __typename"
            " ... on AssetPartitionsStatusCounts { assetKey { path } numPartitionsTargeted"
            " numPartitionsMaterialized numPartitionsFailed } } } } } }",
            b=backfill,
        )["partitionBackfillOrError"]

    def wait_backfill(self, backfill: str, seconds: float = 180) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            status = self.backfill_status(backfill)
            return (
                status if status["status"].startswith(("COMPLETED", "FAILED", "CANCELED")) else None
            )

        return wait_for(ended, seconds, f"backfill {backfill} ends")

    def launch(self, job: str, seconds: float = 60) -> str:
        """Run a job and wait; its final status."""
        selector = {**(self.repository() or {}), "jobName": job}
        found = self.gql(
            "mutation($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename"
            " ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }",
            p={"selector": selector, "mode": "default", "runConfigData": {}},
        )["launchRun"]
        return self.wait_run(found["run"]["runId"], seconds)

    def wait_run(self, run: str, seconds: float = 60) -> str:
        def ended() -> str | None:
            status = self.gql(
                "query($r: ID!) { runOrError(runId: $r) { ... on Run { status } } }", r=run
            )["runOrError"]["status"]
            return status if status in ("SUCCESS", "FAILURE", "CANCELED") else None

        return wait_for(ended, seconds, f"run {run} ends")

    def tick(self, sensor: str) -> dict[str, Any] | None:
        """A sensor's latest tick."""
        repository = self.repository()
        found = self.gql(
            "query($s: SensorSelector!) { sensorOrError(sensorSelector: $s) { ... on Sensor {"
            " sensorState { ticks(limit: 1) { status skipReason error { message stack }"
            " timestamp } } } } }",
            s={**(repository or {}), "sensorName": sensor},
        )["sensorOrError"]["sensorState"]["ticks"]
        return found[0] if found else None


class Live:
    """The running parts that the tests share, in the order in which they are written."""

    def __init__(self, stack: Stack, worker: FakeWorker) -> None:
        self.stack, self.worker = stack, worker

    def settle(self) -> None:
        """Nothing is queued, in work or unreported, and the disk agrees with Dagster."""
        queues = self.stack.queues.values()

        def quiet() -> bool:
            if not all(queue.counts().idle for queue in queues):
                return False
            done = len(self.worker.done)
            for _ in range(2):  # on a busy machine a tick may go by the look of another, before it
                after = time.time()
                wait_for(
                    lambda after=after: all(
                        float((self.stack.tick(name) or {"timestamp": 0})["timestamp"]) > after
                        for name in ("discovery", "cluster_readiness")
                    ),
                    60,
                    "the sensors look again",
                )
            time.sleep(0.5)
            return done == len(self.worker.done) and all(q.counts().idle for q in queues)

        wait_for(quiet, 180, "the pipeline settles")


@contextlib.contextmanager
def running(
    folder: Path, postgres: PostgresServer, keys: Sequence[str], **settings: Any
) -> Iterator[Live]:
    """A stack of its own Valkey and database, over chain files of the given keys."""
    name = f"stack_{uuid.uuid4().hex[:8]}"
    admin = psycopg2.connect(host=str(postgres.socket_folder), user="postgres")
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    admin.close()
    postgres_url = postgres.url.replace("/postgres?", f"/{name}?")
    with ValkeyServer(folder / "valkey", config={"appendonly": "no"}) as valkey:
        stack = Stack(folder, valkey.url, postgres_url, **settings)
        for key in keys:
            write_chain(stack.layout, key)
        stack.start()
        instance = DagsterInstance.from_ref(InstanceRef.from_dir(str(stack.home)))
        sink = InstanceSink(Workspace.load(stack.settings), instance)
        reporter = Reporter(list(stack.queues.values()), sink)
        reporter.start()
        worker = FakeWorker(stack.settings, stack.layout)
        worker.start()
        try:
            yield Live(stack, worker)
        finally:
            stack.kill()
            worker.stop()
            reporter.stop()
            reporter.join(20)
            instance.dispose()


def wait_for(check: Callable[[], Any], seconds: float, what: str) -> Any:
    """What ``check`` returns once it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.3)
    raise AssertionError(f"waited {seconds:.0f} s in vain: {what}")
