"""What ``dagster.yaml`` names so that webserver and daemon import the partition mapping in time.

Of the classes that ``dagster.yaml`` can name, the scheduler is the one that Dagster imports while
it makes the instance, before any code location is loaded.
"""

from __future__ import annotations

import os

from dagster._core.scheduler import DagsterDaemonScheduler

from reddit_assets.platform import backfills, mapping

__all__ = ["Scheduler", "mapping"]

backfills.install()

# A backfill that goes on while the code server is away waits for it. By default it fails: a daemon
# that starts a second before the code server would end every backfill in progress.
os.environ.setdefault("DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR", "1")


class Scheduler(DagsterDaemonScheduler):
    """Dagster's own scheduler; it brings the mapping with it."""
