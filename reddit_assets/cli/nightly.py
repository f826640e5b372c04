"""``reddit-assets nightly``: the deep rescan by hand."""

from __future__ import annotations

import typer

from reddit_assets.cli.options import AsJson, RedisUrl, Root, print_json

__all__ = ["register"]

EPILOG = """
Examples:

\b
  reddit-assets nightly --root demo           beside a running `up`
  DAGSTER_HOME=/var/lib/reddit-assets/dagster_home reddit-assets nightly --json
"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("nightly", epilog=EPILOG)(nightly)


def nightly(root: Root = None, redis_url: RedisUrl = None, as_json: AsJson = False) -> None:
    """Rescan everything as the nightly schedule does.

    Reads every output's metadata; finds missing, corrupt, stale, orphaned and leftover files;
    queues what must be made again; reports to Dagster what it does not have.
    """
    from reddit_assets.cli.beside import load_beside_up, use_dagster_of_up
    from reddit_assets.cli.progress import note
    from reddit_assets.cli.scan import report_fields

    settings = load_beside_up(root=root, redis_url=redis_url)
    use_dagster_of_up(settings)
    from dagster import DagsterInstance

    from reddit_assets.platform.resources import Platform
    from reddit_assets.workspace import Workspace

    found = Platform(Workspace.load(settings)).rescan.run(DagsterInstance.get(), note)
    if as_json:
        print_json(
            {
                **report_fields(found.report),
                "corrupt": found.corrupt,
                "orphans": [str(path) for path in found.orphans],
                "temporary": [str(path) for path in found.temporary],
                "removed": [str(path) for path in found.removed],
                "forgotten": found.forgotten,
            }
        )
        return
    jobs = found.report.embed.queued + found.report.cluster.queued
    typer.echo(
        f"{len(found.statuses):,} subreddits; {len(found.corrupt):,} corrupt, "
        f"{len(found.orphans):,} orphaned and {len(found.temporary):,} leftover files; "
        f"{jobs:,} jobs queued."
    )
