"""``reddit-assets prune``: deletes what Dagster's storage keeps and nobody needs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from reddit_assets.cli.options import AsJson, Root, print_json

__all__ = ["register"]

EPILOG = """
Examples:

\b
  reddit-assets prune --older-than-days 30    beside a running `up`
  DAGSTER_HOME=/var/lib/reddit-assets/dagster_home reddit-assets prune --json
"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("prune", epilog=EPILOG)(prune)


def prune(
    root: Root = None,
    older_than_days: Annotated[
        float, typer.Option("--older-than-days", min=1, help="What is younger stays.")
    ] = 30,
    shrink: Annotated[
        bool,
        typer.Option("--shrink", help="Give the space back to the disk; Dagster waits meanwhile."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete old events, log lines and output of runs from Dagster's storage on Postgres.

    The latest materialization of each partition stays, and so do runs and how they ended. Old ticks
    are deleted by Dagster itself (`retention` in dagster.yaml).
    """
    from reddit_assets.cli.beside import load_beside_up, use_dagster_of_up

    settings = load_beside_up(root=root)
    use_dagster_of_up(settings)
    from dagster import DagsterInstance

    from reddit_assets.platform.reporting import prune as pruning

    with DagsterInstance.get() as instance:
        found = pruning.prune(instance, older_than_days, shrink=shrink)
    if as_json:
        print_json(asdict(found))
        return
    typer.echo(
        f"{found.events:,} events of partitions that were made again, {found.log_lines:,} log lines"
        f" and the output of {found.folders:,} runs deleted."
    )
    typer.echo(
        f"The database: {found.before / 1e6:,.0f} MB before, {found.after / 1e6:,.0f} MB now."
        + ("" if shrink else " Postgres uses the space again (--shrink gives it back).")
    )
