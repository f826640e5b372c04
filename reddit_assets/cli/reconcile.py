"""``reddit-assets reconcile``: lets disk, queue and Dagster agree again."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from reddit_assets.cli.options import AsJson, RedisUrl, Root, print_json

if TYPE_CHECKING:
    from reddit_assets.ledger.mending import Difference
    from reddit_assets.settings import Settings

__all__ = ["register"]

EPILOG = """
Examples:

\b
  reddit-assets reconcile --dry-run           what does not agree
  reddit-assets reconcile                     mends it; a second time finds nothing
"""

_SHOWN = 5


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("reconcile", epilog=EPILOG)(reconcile)


def reconcile(
    root: Root = None,
    redis_url: RedisUrl = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the differences and leave them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find where disk, ledger, leases, outbox and Dagster differ, and mend it.

    The disk is the truth. Safe while workers work, and to repeat. Dagster is compared where its
    instance is here: beside `up`, or with DAGSTER_HOME. Exit status 1 if --dry-run finds something.
    """
    from reddit_assets.cli.beside import load_beside_up

    settings = load_beside_up(root=root, redis_url=redis_url)
    found: list[Difference] = []
    for difference in _differences(settings, dry_run=dry_run):
        found.append(difference)
        if not as_json:
            typer.echo(_line(difference, dry_run=dry_run))
    if as_json:
        print_json([asdict(difference) for difference in found])
    elif not found:
        typer.echo("Everything agrees.")
    raise typer.Exit(1 if found and dry_run else 0)


def _differences(settings: Settings, *, dry_run: bool) -> list[Difference]:
    from reddit_assets.cli.beside import use_dagster_of_up
    from reddit_assets.cli.progress import note
    from reddit_assets.corpus.scan import SubredditStatus
    from reddit_assets.errors import SettingsError
    from reddit_assets.workspace import Workspace

    workspace = Workspace.load(settings)
    statuses: list[SubredditStatus] = []
    try:
        use_dagster_of_up(settings)
    except SettingsError as error:
        note(f"Dagster is left out. {error}")
    from reddit_assets.platform.services.agreement import with_dagster, with_queues

    found = list(with_queues(workspace, statuses, dry_run=dry_run))
    if os.environ.get("DAGSTER_HOME"):
        from dagster import DagsterInstance

        with DagsterInstance.get() as instance:
            found += with_dagster(workspace, instance, statuses, dry_run=dry_run)
    return found


def _line(difference: Difference, *, dry_run: bool) -> str:
    count = len(difference.keys)
    named = [key for key in difference.keys if key]
    shown = ", ".join(named[:_SHOWN]) + (" …" if len(named) > _SHOWN else "")
    mended = f"would be {difference.mending}" if dry_run else difference.mending
    detail = f" ({shown})" if shown else ""
    return f"{difference.where}: {count:,} {difference.said}: {mended}{detail}"
