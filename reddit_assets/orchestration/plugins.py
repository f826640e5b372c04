"""What ``dagster.yaml`` names so that webserver and daemon import the partition mapping.

Of the classes that ``dagster.yaml`` can name, the scheduler is the one that Dagster imports while
it makes the instance, before any code location is loaded.
"""

from __future__ import annotations

from dagster._core.scheduler import DagsterDaemonScheduler

from reddit_assets.orchestration import mapping

__all__ = ["Scheduler", "mapping"]


class Scheduler(DagsterDaemonScheduler):
    """Dagster's own scheduler; it brings the mapping with it."""
