"""How the last nightly run ended."""

from __future__ import annotations

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from reddit_assets.alerts import Night

__all__ = ["latest_failure"]

_NIGHTLY = "nightly"


def latest_failure(instance: DagsterInstance, page: str | None = None) -> Night | None:
    """The latest nightly run if it has failed.

    Args:
        page: address of the webserver, for a link.
    """
    for run in instance.get_runs(RunsFilter(job_name=_NIGHTLY), limit=1):
        if run.status is DagsterRunStatus.FAILURE:
            link = f"{page.rstrip('/')}/runs/{run.run_id}" if page else ""
            return Night(run.run_id, link)
    return None
