"""``reddit-assets report``: drains the outbox into Dagster."""

from __future__ import annotations

import logging
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from reddit_assets.cli.options import DagsterUrl, RedisUrl, Root, flag

if TYPE_CHECKING:
    from reddit_assets.platform.reporting.drain import Sink
    from reddit_assets.settings import Settings

__all__ = ["register"]

log = logging.getLogger(__name__)

EPILOG = """
Examples:

\b
  reddit-assets report --sink rest --dagster-url http://dagster.internal:3000
  reddit-assets report --sink instance        beside Dagster, with DAGSTER_HOME set
"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("report", epilog=EPILOG)(report)


def report(
    sink: Annotated[
        str, typer.Option("--sink", help="rest: the webserver; instance: Dagster's own storage.")
    ] = "rest",
    root: Root = None,
    redis_url: RedisUrl = None,
    dagster_url: DagsterUrl = None,
    metrics_port: Annotated[int | None, flag("metrics_port")] = None,
    log_format: Annotated[str | None, flag("log_format")] = None,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End when nothing is left to report.")
    ] = False,
) -> None:
    """Report results to Dagster as they come. Nothing is lost while Dagster is down."""
    from reddit_assets.cli.beside import load_beside_up
    from reddit_assets.cli.logs import start_logging
    from reddit_assets.cli.queue import open_queues
    from reddit_assets.errors import QueueUnavailableError
    from reddit_assets.ledger.server import check_format, check_server
    from reddit_assets.platform.reporting.drain import Reporter

    if sink not in ("rest", "instance"):
        raise typer.BadParameter("must be rest or instance.", param_hint="--sink")
    settings = load_beside_up(
        root=root,
        redis_url=redis_url,
        dagster_url=dagster_url,
        metrics_port=metrics_port,
        log_format=log_format,
    )
    queues = list(open_queues(settings).values())
    start_logging(settings.log_format)
    with suppress(QueueUnavailableError):  # the reporter waits for it, and says so
        for queue in queues:
            check_format(queue)
        for warning in check_server(queues[0].client):
            log.warning("%s", warning)
    _watch_over(settings, sink)
    reporter = Reporter(queues, _sink(sink, settings), until_empty=until_empty)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    reporter.start()
    while reporter.is_alive() and not stop.wait(0.2):
        pass
    reporter.stop()
    reporter.join(30)
    typer.echo(f"{reporter.reported:,} results reported.")


def _watch_over(settings: Settings, sink: str) -> None:
    """Serves metrics of the whole, and tells a webhook, where these are set."""
    _alert(settings, sink)
    if settings.metrics_port is None:
        return
    from prometheus_client import REGISTRY

    from reddit_assets.metrics import WholeCollector, serve_metrics
    from reddit_assets.workspace import Workspace

    whole = WholeCollector(Workspace.load(settings))
    REGISTRY.register(whole)
    serve_metrics(settings)
    whole.start()


def _alert(settings: Settings, sink: str) -> None:
    if settings.webhook_url is None:
        return
    from reddit_assets.alerts import Alerter
    from reddit_assets.workspace import Workspace

    workspace = Workspace.load(settings)
    if sink == "instance":
        from dagster import DagsterInstance

        from reddit_assets.platform.services.nights import latest_failure

        instance, page = DagsterInstance.get(), settings.dagster_url
        Alerter(workspace, lambda: latest_failure(instance, page)).start()
    else:  # over REST nobody tells of runs
        Alerter(workspace).start()


def _sink(name: str, settings: Settings) -> Sink:
    if name == "instance":
        from dagster import DagsterInstance

        from reddit_assets.platform.reporting.instance import InstanceSink
        from reddit_assets.workspace import Workspace

        return InstanceSink(Workspace.load(settings), DagsterInstance.get())
    from reddit_assets.errors import SettingsError
    from reddit_assets.platform.reporting.rest import RestSink

    if settings.dagster_url is None:
        raise SettingsError(
            "DAGSTER_URL is not set.", hint="Set it (or --dagster-url) to the webserver's address."
        )
    return RestSink(settings.dagster_url, headers=settings.dagster_headers())
