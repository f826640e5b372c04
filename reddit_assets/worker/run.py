"""`reddit-assets worker`, without the command line."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from rich.console import Console

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import QueueUnavailableError, SettingsError
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import WORK, Kind
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.ledger.server import check_format, check_server
from reddit_assets.metrics import serve_metrics
from reddit_assets.platform.reporting.drain import Reporter
from reddit_assets.platform.reporting.rest import RestSink
from reddit_assets.settings import Settings
from reddit_assets.worker.display import Display
from reddit_assets.worker.worker import Worker

__all__ = ["run_worker"]

log = logging.getLogger(__name__)


def run_worker(
    settings: Settings,
    kinds: Sequence[Kind] = WORK,
    *,
    until_empty: bool = False,
    console: Console | None = None,
) -> int:
    """Work until stopped; the exit status.

    Args:
        kinds: which jobs to do; each kind gets a computing process of its own.
        until_empty: return when no job is left.

    Raises:
        RedditAssetsError: a setting is missing, or this host cannot do the work.
    """
    layout = Layout.from_settings(settings)
    if set(kinds) - {Kind.INGEST}:
        layout.require_chains()
    client = connect(settings)
    queues = [JobQueue(client, kind) for kind in kinds]
    with suppress(QueueUnavailableError):  # the worker waits for it, and says so
        for queue in queues:
            check_format(queue)
        for warning in check_server(client):
            log.warning("%s", warning)
    serve_metrics(settings)
    reporter = _reporter(settings, queues)
    if reporter is not None:
        reporter.start()
    try:
        with Display(console) as display:
            return Worker(queues, settings, layout, display, until_empty=until_empty).run()
    finally:
        if reporter is not None:
            reporter.stop()
            reporter.join(10)


def _reporter(settings: Settings, queues: list[JobQueue]) -> Reporter | None:
    if settings.report == "none":
        return None
    if settings.dagster_url is None:
        if settings.report == "rest":
            raise SettingsError(
                "DAGSTER_URL is not set, but REDDIT_REPORT is rest.",
                hint="Set it to the webserver's address, or leave reporting to another host.",
            )
        return None
    return Reporter(queues, RestSink(settings.dagster_url, headers=settings.dagster_headers()))
