"""``reddit-assets report``: drains the outbox into Dagster."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer

from reddit_assets.cli.options import DagsterUrl, RedisUrl, Root

__all__ = ["register"]

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
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End when nothing is left to report.")
    ] = False,
) -> None:
    """Report results to Dagster as they come. Nothing is lost while Dagster is down."""
    from reddit_assets.cli.beside import load_beside_up
    from reddit_assets.cli.queue import open_queues
    from reddit_assets.cli.worker import start_logging
    from reddit_assets.errors import SettingsError

    if sink not in ("rest", "instance"):
        raise typer.BadParameter("must be rest or instance.", param_hint="--sink")
    settings = load_beside_up(root=root, redis_url=redis_url, dagster_url=dagster_url)
    queues = list(open_queues(settings).values())
    start_logging()
    if sink == "instance":
        from reddit_assets.platform.reporting import instance as instance_sink

        reported = instance_sink.run(settings, until_empty=until_empty)
        typer.echo(f"{reported:,} results reported.")
        return
    if settings.dagster_url is None:
        raise SettingsError(
            "DAGSTER_URL is not set.", hint="Set it (or --dagster-url) to the webserver's address."
        )
    from reddit_assets.corpus.keys import parse_shards
    from reddit_assets.platform.reporting.rest import RestReporter, RestSink

    rest = RestSink(settings.dagster_url, parse_shards(settings.shards))
    reporter = RestReporter(queues, rest, until_empty=until_empty)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    reporter.start()
    while reporter.is_alive() and not stop.wait(0.2):
        pass
    reporter.stop()
    reporter.join(30)
    typer.echo(f"{reporter.reported:,} results reported.")
