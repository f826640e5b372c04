"""What the soak is made of: a tree that changes, workers that come and go, figures of growth."""

from __future__ import annotations

import json
import random
import signal
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import psutil
import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from reddit_assets.corpus.layout import Layout
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.local.sample import sentences
from reddit_assets.local.sample_themes import THEMES
from reddit_assets.local.state import StateDir
from reddit_assets.settings import load_settings

__all__ = ["Crew", "Growth", "Sample", "Sampler", "Tree", "growths"]

SUBREDDITS = tuple(name for name in THEMES if name.isascii())[:8]
ROWS = 12
FILES_EACH = 6


class Tree:
    """Small chain files of a constant number, of which some arrive, change and vanish each hour."""

    def __init__(self, layout: Layout, dice: random.Random) -> None:
        self.layout, self._dice, self._number = layout, dice, 0
        self.keys: list[str] = []
        self.changed = self.vanished = 0

    @property
    def written(self) -> int:
        """Files that have arrived since the beginning."""
        return self._number

    def fill(self) -> None:
        """The first files."""
        for subreddit in SUBREDDITS * FILES_EACH:
            self._arrive(subreddit)

    def hour(self) -> None:
        """What happens within an hour: six files arrive, three change, the six oldest vanish."""
        for subreddit in self._dice.sample(SUBREDDITS, 6):
            self._arrive(subreddit)
            # Of the same subreddit, so that none becomes empty or grows.
            oldest = next(key for key in self.keys if key.split("/")[1] == subreddit)
            self.keys.remove(oldest)
            self.layout.chain_path(oldest).unlink()
            self.vanished += 1
        for key in self._dice.sample(self.keys, 3):
            self._write(key)
            self.changed += 1

    def _arrive(self, subreddit: str) -> None:
        self._number += 1
        key = f"{subreddit[:2].lower()}/{subreddit}/chunk_{self._number:05d}"
        self._write(key)
        self.keys.append(key)

    def _write(self, key: str) -> None:
        dice, subreddit = self._dice, key.split("/")[1]
        topics = [dice.choice(THEMES[subreddit]) for _ in range(ROWS)]
        columns = {
            "id": [f"{key}-{number}" for number in range(ROWS)],
            "body": [" ".join(sentences(dice, subreddit, topic)) for topic in topics],
        }
        path = self.layout.chain_path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".soak.tmp")
        pq.write_table(pa.table(columns), temporary)
        temporary.replace(path)


class Crew:
    """Workers beside `up`: each lives for some hours, and is then asked to stop, or killed."""

    def __init__(self, environment: Mapping[str, str], log: Path, dice: random.Random) -> None:
        self._environment, self._log, self._dice = environment, log, dice
        self._workers: list[subprocess.Popen[bytes]] = []
        self.killed = self.stopped = 0

    def hour(self) -> None:
        """The oldest goes, a new one comes."""
        if len(self._workers) >= 2:
            self._end(self._workers.pop(0), kill=bool(self._dice.randrange(2)))
        with self._log.open("ab") as log:
            self._workers.append(
                subprocess.Popen(
                    [sys.executable, "-m", "reddit_assets.cli", "worker"],
                    env=dict(self._environment),
                    stdout=log,
                    stderr=log,
                )
            )

    def end(self) -> None:
        """All go."""
        while self._workers:
            self._end(self._workers.pop(), kill=False)

    def _end(self, worker: subprocess.Popen[bytes], *, kill: bool) -> None:
        worker.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            worker.wait(60)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        self.killed += kill
        self.stopped += not kill


@dataclass(frozen=True)
class Sample:
    """A figure at a time. ``hour`` is simulated."""

    hour: float
    subject: str
    measure: str
    value: float


class Sampler:
    """Looks at everything that could grow: each part of `up`, Redis, Postgres, logs, snapshot."""

    def __init__(self, state: StateDir, pid: int) -> None:
        self._state, self._pid = state, pid
        settings = load_settings(redis_url=str(state.facts()["redis_url"]))
        self._redis = connect(settings)
        self._queues = [JobQueue(self._redis, kind) for kind in Kind]
        instance = yaml.safe_load((state.dagster_home / "dagster.yaml").read_text())
        url = instance["storage"]["postgres"]["postgres_url"]
        self._postgres_url = url.replace("+psycopg2", "")

    def look(self, hour: float) -> list[Sample]:
        """All figures of now."""
        found: dict[tuple[str, str], float] = {}
        self._look_at_processes(found)
        self._look_at_redis(found)
        self._look_at_postgres(found)
        logs = [*self._state.path.glob("logs/*"), *self._state.path.glob("*/*.log")]
        found["logs", "kilobytes"] = _size(set(logs)) / 1e3
        found["snapshot", "kilobytes"] = _size(self._state.path.glob("snapshots/**/*")) / 1e3
        found["append-only file", "kilobytes"] = _size(self._state.path.glob("valkey/**/*")) / 1e3
        return [Sample(hour, *what, value) for what, value in found.items()]

    def _look_at_processes(self, found: dict[tuple[str, str], float]) -> None:
        leaders = {"up": self._pid}
        for record in self._state.records.glob("*.json"):
            with suppress(OSError, ValueError):
                leaders[record.stem] = json.loads(record.read_text())["pid"]
        for name, pid in leaders.items():
            with suppress(psutil.NoSuchProcess):
                leader = psutil.Process(pid)
                found[name, "megabytes"] = leader.memory_info().rss / 1e6
                found[name, "descriptors"] = leader.num_fds()
                found[name, "threads"] = leader.num_threads()
                if name == "up":
                    continue
                children = leader.children(recursive=True)
                found[name, "children"] = len(children)
                # Postgres' processes share most of what is resident in each.
                sizes = [_private(child) for child in children]
                found[name, "children's megabytes"] = sum(sizes) / 1e6

    def _look_at_redis(self, found: dict[tuple[str, str], float]) -> None:
        info = self._redis.info()
        assert isinstance(info, dict)
        found["redis", "keys"] = int(self._redis.dbsize())  # type: ignore[arg-type]
        found["redis", "megabytes"] = info["used_memory"] / 1e6
        found["redis", "connections"] = info["connected_clients"]
        counts = [queue.counts() for queue in self._queues]
        found["queue", "entries"] = sum(c.queued + c.delayed + c.leased + c.dead for c in counts)
        found["queue", "leases"] = sum(count.leased for count in counts)
        found["queue", "dead letters"] = sum(count.dead for count in counts)
        found["queue", "outbox"] = sum(count.outbox for count in counts)
        found["queue", "done"] = sum(count.totals.get("done", 0) for count in counts)

    def _look_at_postgres(self, found: dict[tuple[str, str], float]) -> None:
        connection = psycopg2.connect(self._postgres_url)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_database_size(current_database())")
                found["postgres", "database megabytes"] = cursor.fetchone()[0] / 1e6
                cursor.execute(
                    "SELECT count(*) FROM event_logs"
                    " WHERE dagster_event_type = 'ASSET_MATERIALIZATION'"
                )
                found["dagster", "materializations"] = cursor.fetchone()[0]
                cursor.execute("SELECT count(*) FROM dynamic_partitions")
                found["dagster", "partition keys"] = cursor.fetchone()[0]
                cursor.execute("SELECT count(*) FROM job_ticks")
                found["dagster", "ticks"] = cursor.fetchone()[0]
        finally:
            connection.close()


def _private(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return 0


def _size(paths: Iterable[Path]) -> int:
    size = 0
    for path in paths:
        with suppress(OSError):
            size += path.stat().st_size if path.is_file() else 0
    return size


# What may grow by how much within twelve simulated hours, at least; or by a twentieth.
ALLOWED = {
    "megabytes": 12.0,
    "children's megabytes": 20.0,
    "descriptors": 6.0,
    "threads": 3.0,
    "children": 2.0,
    "connections": 4.0,
    "keys": 10.0,
    "entries": 10.0,
    "leases": 5.0,
    "dead letters": 0.5,
    "outbox": 5.0,
}


@dataclass(frozen=True)
class Growth:
    """How a figure went in the second half.

    Attributes:
        typical: its median there.
        growth: the slope times the length of the half: by how much it grew.
        allowed: how much it may; ``None`` for what grows by its nature.
    """

    subject: str
    measure: str
    typical: float
    growth: float
    allowed: float | None

    @property
    def too_much(self) -> bool:
        """Whether it grew without need."""
        return self.allowed is not None and self.growth > self.allowed


def growths(samples: Iterable[Sample]) -> list[Growth]:
    """Each figure's growth over the second half: the median of the slopes between all pairs of
    samples (Theil and Sen), which a restart or a busy moment does not move."""
    series: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        series[sample.subject, sample.measure].append(sample)
    end = max(sample.hour for half in series.values() for sample in half)
    found = []
    for (subject, measure), all_of_it in series.items():
        half = [sample for sample in all_of_it if sample.hour >= end / 2]
        slopes = [
            (b.value - a.value) / (b.hour - a.hour)
            for a, b in combinations(half, 2)
            if b.hour > a.hour
        ]
        if not slopes:
            continue
        typical = statistics.median(sample.value for sample in half)
        allowed = ALLOWED.get(measure)
        if allowed:
            allowed = max(allowed, 0.05 * typical)
        growth = statistics.median(slopes) * (half[-1].hour - half[0].hour)
        found.append(Growth(subject, measure, typical, growth, allowed))
    return found
