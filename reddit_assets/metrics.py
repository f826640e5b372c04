"""Prometheus' metrics of the whole, and the port that they and a worker's are read from.

May import ``figures``, ``workspace``, ``ledger``, ``settings`` and ``errors``.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    REGISTRY,
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
)

from reddit_assets.errors import StartupError
from reddit_assets.figures import Figures, Observer, QueueFigures
from reddit_assets.settings import Settings
from reddit_assets.workspace import Workspace

__all__ = ["WholeCollector", "serve_metrics"]

log = logging.getLogger(__name__)

# Prometheus usually asks every 15 s or more seldom.
_LOOK_SECONDS = 10.0


def serve_metrics(settings: Settings, registry: CollectorRegistry = REGISTRY) -> bool:
    """Let Prometheus read this process's metrics; whether a port is set.

    Raises:
        StartupError: the port cannot be used.
    """
    if settings.metrics_port is None:
        return False
    try:
        start_http_server(settings.metrics_port, settings.metrics_host, registry=registry)
    except OSError as error:
        raise StartupError(
            f"Port {settings.metrics_port} for metrics cannot be used: {error.strerror}.",
            hint="Choose another REDDIT_METRICS_PORT.",
        ) from None
    return True


class WholeCollector(threading.Thread):
    """Looks at everything now and then, and gives the latest figures to whoever asks.

    Looking at a large tree takes longer than Prometheus waits for an answer.

    Args:
        workspace: its trees are looked at if they can be.

    Attributes:
        figures: of the latest look.
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(name="figures", daemon=True)
        self._observer = Observer(workspace)
        layout = workspace.layout
        self._trees = {
            "chains": layout.chains,
            "embeddings": layout.embeddings,
            "clusters": layout.clusters,
        }
        self.figures: Figures | None = None
        self._stop_event = threading.Event()

    def stop(self) -> None:
        """End after the current look."""
        self._stop_event.set()

    def run(self) -> None:
        """Look until stopped."""
        while True:
            self.look()
            if self._stop_event.wait(_LOOK_SECONDS):
                return

    def look(self) -> None:
        """One look; what cannot be seen is left out of the metrics."""
        self.figures = self._observer.figures()
        for problem in self.figures.problems:
            log.debug("Metrics: %s", problem)

    def collect(self) -> Iterator[Metric]:
        """As Prometheus' client asks for it."""
        figures = self.figures
        yield _gauge(
            "redis_up",
            "Whether the queue answered at the last look.",
            bool(figures is not None and figures.queues),
        )
        yield from self._disks()
        if figures is None:
            return
        yield _gauge("looked_timestamp_seconds", "When everything was looked at last.", figures.at)
        if figures.queues:
            yield from _of_queues({kind.value: queue for kind, queue in figures.queues.items()})
        yield from _of_trees(figures)

    def _disks(self) -> Iterator[Metric]:
        free = GaugeMetricFamily(
            "reddit_assets_disk_free_bytes", "Free bytes where a tree lies.", labels=["tree"]
        )
        size = GaugeMetricFamily(
            "reddit_assets_disk_size_bytes", "All bytes where a tree lies.", labels=["tree"]
        )
        for name, path in self._trees.items():
            place = next(one for one in (path, *path.parents, Path("/")) if one.exists())
            usage = shutil.disk_usage(place)
            free.add_metric([name], usage.free)
            size.add_metric([name], usage.total)
        yield from (free, size)


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"reddit_assets_{name}", what, value=value)


def _of_queues(queues: dict[str, QueueFigures]) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("reddit_assets_queue_jobs", "Jobs by state.", labels=["kind", "state"])
    lanes = GaugeMetricFamily(
        "reddit_assets_lane_jobs",
        "Lengths of the lanes.",
        labels=["kind", "lane"],
    )
    singles = {
        name: GaugeMetricFamily(f"reddit_assets_{name}", what, labels=["kind"])
        for name, what in {
            "oldest_job_seconds": "How long the oldest job has been queued.",
            "outbox_results": "Results that Dagster does not have yet.",
            "rejected_results": "Results set aside, the last thousand.",
            "workers": "Workers seen in the last minute.",
            "paused": "Whether nothing new may be claimed.",
            "waiting_runs": "Dagster runs that wait for results.",
        }.items()
    }
    totals = {
        name: CounterMetricFamily(f"reddit_assets_queue_{name}", what, labels=["kind"])
        for name, what in {
            "done": "Jobs done by all workers.",
            "failed": "Attempts that failed.",
            "dead": "Jobs that became dead letters.",
            "expired": "Leases that expired.",
            "rows": "Rows done by all workers.",
            "tokens": "Tokens embedded by all workers.",
            "bytes": "Bytes of input of jobs that were done.",
        }.items()
    }
    for kind, queue in queues.items():
        counts = queue.counts
        states = {
            "queued": counts.queued,
            "computing": queue.computing,
            "fetched_ahead": counts.leased - queue.computing,
            "delayed": counts.delayed,
            "dead": counts.dead,
        }
        for state, count in states.items():
            jobs.add_metric([kind, state], count)
        merged: dict[str, int] = dict.fromkeys(("public", "stale", "urgent", "alone", "run"), 0)
        for lane, length in queue.lanes.items():
            merged[lane.partition(":")[0]] = merged.get(lane.partition(":")[0], 0) + length
        for lane, length in merged.items():
            lanes.add_metric([kind, lane], length)
        values = (
            counts.oldest_seconds,
            counts.outbox,
            counts.rejected,
            counts.workers,
            counts.paused,
            counts.runs,
        )
        for family, value in zip(singles.values(), values, strict=True):
            family.add_metric([kind], float(value))
        for name, total in totals.items():
            total.add_metric([kind], counts.totals.get(name, 0))
    yield from (jobs, lanes, *singles.values(), *totals.values())


def _of_trees(figures: Figures) -> Iterator[Metric]:
    trees = figures.trees
    if trees is None:
        return
    outputs = GaugeMetricFamily(
        "reddit_assets_outputs", "Wanted outputs by how they stand.", labels=["asset", "state"]
    )
    backlog = GaugeMetricFamily(
        "reddit_assets_backlog_bytes", "Bytes of input still to be worked on.", labels=["asset"]
    )
    for kind, tally in trees.outputs.items():
        for state in ("done", "missing", "stale", "settling", "waiting", "failed"):
            outputs.add_metric([kind.asset, state], getattr(tally, state))
        backlog.add_metric([kind.asset], tally.bytes_left)
    yield from (outputs, backlog)
    waited = 0.0 if trees.oldest is None else max(0.0, time.time() - trees.oldest)
    yield _gauge(
        "oldest_unfinished_seconds", "Age of the oldest chain file without its embedding.", waited
    )
    yield _gauge("look_seconds", "How long the last look at the trees took.", trees.seconds)
    left = figures.seconds_left()
    if left is not None:
        yield _gauge("left_seconds", "About how long the rest will take.", left)
