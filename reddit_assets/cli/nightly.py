"""``reddit-assets nightly``: the nightly by hand."""

from __future__ import annotations

import os

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
    """Look at everything now: what the nightly schedule does, and the job of this name.

    Looks at every file, reads new outputs and a share of the others in full; finds missing,
    corrupt, stale, orphaned and leftover files; queues what must be made again; reports to Dagster
    what it does not have; evaluates the checks; materializes `corpus`. Exit status 1 if the run
    fails.
    """
    from reddit_assets.cli.beside import load_beside_up, use_dagster_of_up
    from reddit_assets.cli.progress import note
    from reddit_assets.cli.scan import report_fields
    from reddit_assets.errors import StartupError

    settings = load_beside_up(root=root, redis_url=redis_url)
    use_dagster_of_up(settings)
    # The definitions read the environment, as they do everywhere.
    os.environ.update(settings.environment())
    from dagster import DagsterInstance

    from reddit_assets.definitions import defs
    from reddit_assets.platform.names import NIGHTLY
    from reddit_assets.platform.resources import Platform
    from reddit_assets.workspace import Workspace

    platform = Platform(Workspace.load(settings))
    note("Looking at everything; the run is on the page, too (job nightly).")
    done = defs.resolve_job_def(NIGHTLY).execute_in_process(
        instance=DagsterInstance.get(),
        resources={"platform": platform},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    found = platform.rescan.latest
    if found is None:
        failures = [event.message or "" for event in done.all_events if event.is_failure]
        raise StartupError(
            f"The run {done.run_id} failed: {' '.join(failures) or 'no reason is given'}",
            hint="Its log is on Dagster's page.",
        )
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
        raise typer.Exit(0 if done.success else 1)
    for sentence in found.checks:
        typer.echo(sentence)
    for evaluation in done.get_asset_check_evaluations():
        outcome = "passed" if evaluation.passed else "FAILED"
        typer.echo(f"{evaluation.check_name} {outcome}: {evaluation.description}")
    jobs = sum(jobs.queued for jobs in found.report.jobs.values())
    typer.echo(
        f"{len(found.statuses):,} subreddits; {len(found.corrupt):,} corrupt, "
        f"{len(found.orphans):,} orphaned and {len(found.temporary):,} leftover files; "
        f"{jobs:,} jobs queued."
    )
    raise typer.Exit(0 if done.success else 1)
