"""The chaos experiment: everything that can die dies, and nothing may be lost.

Real Valkey with an append-only file, real Postgres, real webserver, real worker processes; only the
engine is made up (:mod:`hash_task`), so that the faults come thick and fast. Run it with
``make chaos``; a short version is in the test suite.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.provenance import EmbeddingProvenance, read_output
from reddit_assets.corpus.scan import Scanner, ScanOptions, Verdict
from reddit_assets.errors import QueueUnavailableError, RedditAssetsError
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Job, Kind, Lane
from reddit_assets.ledger.planner import queue_wanted, sweep
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.local.instance import write_instance
from reddit_assets.local.servers import PostgresServer, ValkeyServer, free_port
from reddit_assets.settings import Settings

TESTS = Path(__file__).parent
REPO = TESTS.parent


@dataclass(frozen=True)
class Plan:
    """How much of everything. Times in seconds."""

    files: int = 10_000
    poisoned: int = 1  # among them: files that kill the process that reads them
    leased: int = 5
    plain: int = 2
    work: float = 0.1  # per file
    kill_every: float = 2.0
    lease: float = 5.0
    lost: float = 15.0
    freezes: int = 2
    redis_kills: int = 3
    restarts: int = 2  # of reporter and webserver
    limit: float = 1500.0
    seed: int = 1


@dataclass
class Report:
    """What was left at the end; all of the first block must be zero."""

    missing: int = 0
    invalid: int = 0
    published_without_token: int = 0
    temporary: int = 0
    leases: int = 0
    ledger: int = 0
    innocent_dead: int = 0
    poisoned_alive: int = 0
    unreported: int = 0
    reported_unknown: int = 0

    files: int = 0
    by_plain_consumers: int = 0
    duplicates_percent: float = 0.0
    published_late: int = 0
    kills: int = 0
    recovered_jobs: int = 0
    recovery_median: float = 0.0
    recovery_p99: float = 0.0
    redis_kills: int = 0
    repushed: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def faults(self) -> dict[str, int]:
        """What must be zero and is not."""
        names = (
            "missing",
            "invalid",
            "published_without_token",
            "temporary",
            "leases",
            "ledger",
            "innocent_dead",
            "poisoned_alive",
            "unreported",
            "reported_unknown",
        )
        return {name: getattr(self, name) for name in names if getattr(self, name)}


class Chaos:
    """One experiment in ``folder``."""

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None] = print) -> None:
        self.plan, self.folder, self.say = plan, folder, say
        self.random = random.Random(plan.seed)
        self.layout = Layout.of(folder / "root")
        self.valkey = ValkeyServer(folder / "valkey")
        self.postgres = PostgresServer(folder / "postgres")
        self.home = folder / "dagster"
        self.log = folder / "chaos.log"
        self.report = Report(files=plan.files)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.waiting: dict[str, tuple[float, str]] = {}
        self.recoveries: list[float] = []
        self.frozen: set[str] = set()
        self.poisoned: set[str] = set()
        self.over = threading.Event()

    # --- the cast ------------------------------------------------------------------------
    def start(self) -> None:
        self._write_chains()
        self.valkey.start()
        self.postgres.start()
        self.home.mkdir(parents=True)
        write_instance(self.home, self.postgres.url)
        self.port = free_port()
        self.environment = {
            **os.environ,
            "REDIS_URL": self.valkey.url,
            "REDDIT_ROOT": str(self.folder / "root"),
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_URL": f"http://127.0.0.1:{self.port}",
            "PYTHONPATH": f"{TESTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "CHAOS_LOG": str(self.log),
            "REDDIT_LEASE_SECONDS": str(self.plan.lease),
            "REDDIT_POLL_SECONDS": "0.1",
            "REDDIT_RETRY_SECONDS": "0.5",
            "REDDIT_MAX_ATTEMPTS": "20",
        }
        self.log.touch()
        self.settings = Settings(
            redis_url=self.valkey.url, root=self.folder / "root", settle_seconds=0
        )
        self.client = connect(self.settings)
        self.queue = JobQueue(self.client, Kind.EMBED)
        self._add_partitions()
        for number in range(self.plan.leased):
            self.spawn(f"leased-{number}")
        for number in range(self.plan.plain):
            self.spawn(f"plain-{number}")
        self.spawn("reporter")
        self.spawn("rest-reporter")
        self.spawn("webserver")

    def spawn(self, name: str) -> None:
        python, kind = sys.executable, name.split("-")[0]
        command = {
            "leased": [python, str(TESTS / "chaos_worker.py"), "leased"],
            "plain": [python, str(TESTS / "chaos_worker.py"), "plain"],
            "reporter": [python, "-m", "reddit_assets.cli", "report", "--sink", "instance"],
            "rest": [python, "-m", "reddit_assets.cli", "report", "--sink", "rest"],
            "webserver": [
                *(python, "-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(self.port)),
                *("-m", "reddit_assets.definitions"),
            ],
        }[kind]
        with open(self.folder / f"{kind}.log", "ab") as output:
            self.processes[name] = subprocess.Popen(
                command,
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=REPO,
            )

    def kill(self, name: str) -> None:
        """SIGKILL the process; its children are its own affair, except a server's."""
        process = self.processes[name]
        if name in ("reporter", "rest-reporter", "webserver"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()

    def stop(self) -> None:
        self.over.set()
        for name, process in self.processes.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            self.kill(name)
        self.postgres.stop()
        self.valkey.stop()

    def _write_chains(self) -> None:
        then = time.time() - 7200
        places = self.random.sample(range(self.plan.files), self.plan.poisoned)
        for number in range(self.plan.files):
            key = f"{number % 16:02x}/Sub{number % 97}/c_{number}"
            path = self.layout.chain_path(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            # The engine sleeps as long as a small file takes to embed.
            texts = [f"sleep {self.plan.work}", "x" * (number % 13), ""]
            if number in places:
                texts[1] = "crash"
                self.poisoned.add(key)
            pq.write_table(pa.table({"body": texts}), path)
            os.utime(path, (then, then))

    def _stamp(self, key: str) -> str:
        file = self.scanner().file(key)
        assert file is not None
        return str(file.stamp)

    def _add_partitions(self) -> None:
        from dagster import DagsterInstance

        keys = [file.key for status in self.scanner().scan() for file in status.files]
        with DagsterInstance.from_config(str(self.home)) as instance:
            for start in range(0, len(keys), 1000):
                instance.add_dynamic_partitions("chain_files", keys[start : start + 1000])

    def scanner(self, *, deep: bool = False) -> Scanner:
        return Scanner(self.layout, ScanOptions(settle_seconds=0, deep=deep))

    # --- the faults ----------------------------------------------------------------------
    def run(self) -> Report:
        began = time.monotonic()
        # Where plain consumers do not see them: those would not obey the text.
        poisoned = [Job(Kind.EMBED, key, self._stamp(key)) for key in sorted(self.poisoned)]
        self.queue.enqueue(poisoned, self.layout, lane=Lane.STALE)
        queue_wanted(self.scanner(), {Kind.EMBED: self.queue}, kinds=(Kind.EMBED,))
        threading.Thread(target=self._watch_recoveries, daemon=True).start()
        plan = self.plan
        # Faults that come a few times are spread over the files done.
        schedule = sorted(
            [
                *(
                    (n / (plan.redis_kills + 1), self._kill_redis)
                    for n in _from_one(plan.redis_kills)
                ),
                *((n / (plan.freezes + 1), self._freeze) for n in _from_one(plan.freezes)),
                *(
                    ((n - 0.5) / (plan.restarts + 1), self._restart_dagster)
                    for n in _from_one(plan.restarts)
                ),
            ],
            key=lambda item: item[0],
        )
        scans = threading.Thread(target=self._keep_scanning, daemon=True)
        scans.start()
        next_kill = began + plan.kill_every
        while (scans.is_alive() or schedule) and time.monotonic() - began < plan.limit:
            made = self._made()
            while schedule and made >= schedule[0][0] * plan.files:
                schedule.pop(0)[1]()
            if time.monotonic() >= next_kill and made < plan.files:
                next_kill += plan.kill_every
                self._kill_a_worker()
            time.sleep(0.2)
        scans.join()
        self.say(f"All files are there after {time.monotonic() - began:.0f} s; settling.")
        self._settle()
        self.report.seconds = time.monotonic() - began
        return self._judge()

    def _made(self) -> int:
        return sum(len(names) for _, _, names in os.walk(self.layout.embeddings))

    def _kill_a_worker(self) -> None:
        names = [name for name in self.processes if name.startswith(("leased", "plain"))]
        name = self.random.choice([name for name in names if name not in self.frozen])
        pid = self.processes[name].pid
        with contextlib.suppress(QueueUnavailableError, Exception):
            held = self._held_by(pid)
        self.kill(name)
        for key, token in held.items():
            self.waiting[key] = (time.monotonic(), token)
        self.report.kills += 1
        self.spawn(name)

    def _held_by(self, pid: int) -> dict[str, str]:
        held = {}
        p = self.queue.prefix
        for key in self.client.zrange(f"{p}leases", 0, -1):
            worker, token = self.client.hmget(f"{p}job:{key}", "worker", "token")
            if worker and f"-{pid}-" in worker:
                held[key] = token
        return held

    def _watch_recoveries(self) -> None:
        p = self.queue.prefix
        client = connect(self.settings)
        while not self.over.wait(0.05):
            for key, (since, token) in list(self.waiting.items()):
                try:
                    state, now_token = client.hmget(f"{p}job:{key}", "state", "token")
                except Exception:  # Redis is being killed: look again later
                    break
                if (state == "leased" and now_token != token) or state is None:
                    self.recoveries.append(time.monotonic() - since)
                    self.waiting.pop(key, None)

    def _freeze(self) -> None:
        """Freeze a worker and its child past its lease, then wake both."""
        name = self.random.choice([n for n in self.processes if n.startswith("leased")])
        process = psutil.Process(self.processes[name].pid)
        family = [process, *process.children(recursive=True)]
        self.frozen.add(name)
        for member in family:
            member.suspend()

        def wake() -> None:
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.resume()
            self.frozen.discard(name)

        threading.Timer(self.plan.lease * 2.5, wake).start()
        self.say(f"{name} frozen for {self.plan.lease * 2.5:.0f} s")

    def _kill_redis(self) -> None:
        self.say("Redis killed and restarted")
        self.valkey.kill()
        time.sleep(1.0)
        self.valkey.start(60)
        self.report.redis_kills += 1

    def _restart_dagster(self) -> None:
        self.say("reporters and webserver killed and restarted")
        for name in ("reporter", "rest-reporter", "webserver"):
            self.kill(name)
            self.spawn(name)

    def _keep_scanning(self) -> None:
        """What the sensors do, every few seconds, until all files are there."""
        deadline = time.monotonic() + self.plan.limit
        while not self._rescan() and time.monotonic() < deadline:
            time.sleep(3.0)

    def _rescan(self) -> bool:
        """One look of the sensors; whether all files are there."""
        try:
            queues = {Kind.EMBED: self.queue}
            report = queue_wanted(self.scanner(), queues, kinds=(Kind.EMBED,))
            swept = sweep(self.scanner(), self.queue, lost_seconds=self.plan.lost)
        except RedditAssetsError as error:
            self.say(f"rescan: {error}")
            return False
        self.report.repushed += len(swept.repushed)
        done = report.files[Verdict.FRESH] + report.files[Verdict.ADOPTED]
        dead = len(self.queue.dead_keys())
        self.say(f"{done} of {self.plan.files} there, {dead} dead letters")
        return done + dead >= self.plan.files

    def _settle(self) -> None:
        """Let work in progress end, and do what the nightly rescan does."""
        from dagster import DagsterInstance

        from reddit_assets.platform.services.reconcile import Reconcile
        from reddit_assets.workspace import Workspace

        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            self._rescan()
            if self.queue.counts().idle and not self.frozen:
                break
            time.sleep(1)
        for name in list(self.processes):
            if name.startswith(("leased", "plain")):
                self.kill(name)
        for status in self.scanner().scan():
            for path in status.temporary:
                if path.name.endswith(".parquet.tmp"):  # a plain consumer's: nobody else's affair
                    path.unlink(missing_ok=True)
        then = time.time() - 3600
        for path in self.layout.embeddings.glob("**/*.parquet"):
            os.utime(path, (then, then))  # old enough for the comparison with Dagster
        os.environ["DAGSTER_HOME"] = str(self.home)
        workspace = Workspace.load(self.settings)
        with DagsterInstance.from_config(str(self.home)) as instance:
            self.report.notes += Reconcile(workspace).tick(instance).sentences
            self.materialized = instance.get_materialized_partitions(_asset_key())

    # --- the verdict ---------------------------------------------------------------------
    def _judge(self) -> Report:
        report = self.report
        lines = [line.split() for line in self.log.read_text().splitlines()]
        late = {(key, token) for what, key, token, how in lines if how == "late"}
        report.published_late = len(late)
        keys: set[str] = set()
        dead = self.queue.dead_keys()
        report.innocent_dead = len(dead - self.poisoned)
        # A plain consumer may get one that Redis forgot when it was killed, and make it.
        report.poisoned_alive = sum(
            not self.layout.embedding_path(key).exists() for key in self.poisoned - dead
        )
        for status in self.scanner(deep=True).scan():
            report.temporary += len(status.temporary)
            for file in status.files:
                if file.key in dead:
                    continue
                keys.add(file.key)
                if file.verdict is Verdict.MISSING:
                    report.missing += 1
                    continue
                path = self.layout.embedding_path(file.key)
                try:
                    output = read_output(path)
                    rows = pq.read_table(path).num_rows
                except (RedditAssetsError, pa.ArrowException, OSError):
                    report.invalid += 1
                    continue
                if rows != 3 or output.dimension != 8:
                    report.invalid += 1
                elif isinstance(output.provenance, EmbeddingProvenance):
                    # A worker killed between rename and log line leaves no line; its token held.
                    if (file.key, output.provenance.writer["token"]) in late:
                        report.published_without_token += 1
                else:
                    report.by_plain_consumers += 1
        counts = self.queue.counts()
        report.leases = counts.leased
        report.ledger = (
            counts.queued
            + counts.delayed
            + len(self.client.keys(f"{self.queue.prefix}job:*"))
            - len(dead)
        )
        report.unreported = len(keys - set(self.materialized))
        report.reported_unknown = len(set(self.materialized) - keys)
        executions = Counter(line[1] for line in lines if line[0] in ("publish", "plain"))
        extra = sum(count - 1 for count in executions.values())
        report.duplicates_percent = round(100 * extra / self.plan.files, 2)
        report.recovered_jobs = len(self.recoveries)
        if self.recoveries:
            report.recovery_median = round(statistics.median(self.recoveries), 2)
            ordered = sorted(self.recoveries)
            report.recovery_p99 = round(ordered[int(0.99 * (len(ordered) - 1))], 2)
        return report


def _from_one(count: int) -> range:
    return range(1, count + 1)


def _asset_key():
    from dagster import AssetKey

    return AssetKey(["embeddings"])


def run_chaos(plan: Plan, folder: Path, say: Callable[[str], None] = print) -> Report:
    """Run the experiment and return what was left."""
    chaos = Chaos(plan, folder, say)
    try:
        chaos.start()
        return chaos.run()
    finally:
        chaos.stop()
