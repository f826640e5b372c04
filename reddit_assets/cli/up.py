"""``reddit-assets up``: everything on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reddit_assets.cli.options import (
    AsJson,
    Backend,
    Device,
    Model,
    ModelDir,
    Precision,
    Root,
    Subreddits,
    Threads,
    flag,
    print_json,
)

__all__ = ["register"]

EPILOG = """
Examples:

\b
  reddit-assets up --root data
  reddit-assets up --root demo --backend onnx --exit-when-done --json
  REDIS_URL=redis://queue:6379/0 reddit-assets up --root data --port 3001

Ctrl+C stops every part within 10 seconds. What was done stays; the next start goes on from there.
"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("up", epilog=EPILOG)(up)


def up(
    root: Root = None,
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, help="Port of the Dagster page.")
    ] = 3000,
    maps_port: Annotated[
        int | None,
        typer.Option(
            "--maps-port",
            min=1,
            max=65535,
            help="Port of the maps; unset takes the one after the page's.",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Embedding workers; they share the cores.")
    ] = 1,
    exit_when_done: Annotated[
        bool, typer.Option("--exit-when-done", help="End when everything on disk is done.")
    ] = False,
    as_json: AsJson = False,
    subreddits: Subreddits = None,
    backend: Backend = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    model: Model = None,
    model_dir: ModelDir = None,
    state_dir: Annotated[Path | None, flag("state_dir")] = None,
) -> None:
    """Run everything on this machine: queue, storage, Dagster's page and daemon, workers.

    Starts an embedded Valkey and Postgres unless REDIS_URL and DAGSTER_POSTGRES_URL name real
    ones. With --exit-when-done: exit status 0 when every file is embedded, clustered and
    materialized in Dagster, 1 when jobs were given up or no worker starts.
    """
    from reddit_assets.cli.names import require_subreddits
    from reddit_assets.cli.progress import live_line
    from reddit_assets.local.up import Plan, run_up
    from reddit_assets.settings import load_settings

    settings = load_settings(
        root=root,
        subreddits=subreddits,
        backend=backend,
        device=device,
        precision=precision,
        threads=threads,
        model=model,
        model_dir=model_dir,
        state_dir=state_dir,
    )
    plan = Plan(port=port, maps_port=maps_port, workers=workers, exit_when_done=exit_when_done)
    require_subreddits(settings)
    with live_line() as (say, show):
        status, summary = run_up(settings, plan, say, show)
    if as_json:
        print_json(summary.fields())
        raise typer.Exit(status)
    if summary.done:
        work = "There was nothing to do" if summary.idle else "Done"
        typer.echo(
            f"{work}: {summary.files:,} files ({summary.rows:,} rows) embedded, "
            f"{summary.cluster_files:,} subreddits clustered, in {summary.seconds:.0f} s."
        )
    if summary.adopted_files or summary.adopted_clusters:
        typer.echo(
            f"Of these, the earlier system made and we adopted {summary.adopted_files:,} embedding "
            f"files and {summary.adopted_clusters:,} clusters."
        )
    if summary.blocked:
        typer.echo(summary.blocked, err=True)
    for letter in summary.dead_letters:
        typer.echo(f"Failed: {letter['kind']} {letter['key']}: {letter['reason']}")
    if summary.ignored:
        shown = ", ".join(f"{count:,} {why}" for why, count in sorted(summary.ignored.items()))
        typer.echo(f"Ignored: {shown}.")
    for problem in summary.problems:
        typer.echo(f"Cannot be used: {problem}")
    raise typer.Exit(status)
