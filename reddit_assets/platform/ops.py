"""What the assets' ops do in a run: check chain files, have embeddings and clusters made."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from dagster import (
    AssetExecutionContext,
    AssetMaterialization,
    AssetRecordsFilter,
    Failure,
    MetadataValue,
)

from reddit_assets.corpus.chainfile import ChainFile
from reddit_assets.corpus.fingerprints import Stamp
from reddit_assets.corpus.scan import Scanner
from reddit_assets.errors import BadFileError, BadKeyError
from reddit_assets.ledger.job import Job, Kind, Result
from reddit_assets.platform.names import AssetSet
from reddit_assets.platform.reporting import records
from reddit_assets.platform.reporting.events import chains_event
from reddit_assets.platform.reporting.inputs import materializer, report_inputs
from reddit_assets.platform.run_logic import Lease, failed_partitions, wait_for_jobs
from reddit_assets.workspace import Workspace

__all__ = ["check_chains", "have_made"]

_RESUME_TAG = "dagster/is_resume_retry"

_PROGRESS_SECONDS = 10.0


def have_made(
    context: AssetExecutionContext,
    assets: AssetSet,
    kind: Kind,
    workspace: Workspace,
    lease: Lease,
) -> None:
    """Have the run's partitions made by workers and record one materialization for each.

    Args:
        lease: of the run, held by the caller.

    Raises:
        Failure: jobs became dead letters (the others are recorded).
        RedditAssetsError: Redis is not there, or its memory is used up.
    """
    report_inputs(context.instance, workspace.settings, workspace.layout)
    key = assets.embeddings if kind is Kind.EMBED else assets.clusters
    keys = list(context.partition_keys)
    done = _done_before(context, key, keys)
    if done:
        context.log.info(f"{len(done)} partitions were recorded before the run was resumed.")
        keys = [partition for partition in keys if partition not in done]
    make = materializer(context.instance, workspace.layout, workspace.shards)

    def record(results: Sequence[Result]) -> None:
        records.report(context.instance, make.chains(results))
        for event in make.outputs(results):
            context.log_event(event)

    outcome = wait_for_jobs(
        workspace.queues[kind],
        workspace.layout,
        lease,
        _jobs(workspace, kind, keys),
        record=record,
        log=context.log,
    )
    _raise_if(outcome.failed, outcome.total)


def _raise_if(failed: Mapping[str, str], total: int) -> None:
    if failed:
        raise Failure(
            description=failed_partitions(failed, total),
            metadata={"failed": MetadataValue.json(dict(list(failed.items())[:200]))},
            allow_retries=False,
        )


def _done_before(context: AssetExecutionContext, key: Any, keys: Sequence[str]) -> set[str]:
    """Partitions recorded by the runs that this one resumes ("from failure")."""
    run = context.run
    if run.tags.get(_RESUME_TAG) != "true" or run.parent_run_id is None:
        return set()
    ancestors: set[str] = set()
    parent: str | None = run.parent_run_id
    while parent is not None and parent not in ancestors:
        ancestors.add(parent)
        resumed = context.instance.get_run_by_id(parent)
        parent = resumed.parent_run_id if resumed is not None else None
    wanted, done = list(keys), set()
    for start in range(0, len(wanted), 500):
        found = context.instance.fetch_materializations(
            AssetRecordsFilter(key, asset_partitions=wanted[start : start + 500]), limit=1000
        )
        done |= {
            record.partition_key
            for record in found.records
            if record.run_id in ancestors and record.partition_key is not None
        }
    return done


def _jobs(workspace: Workspace, kind: Kind, keys: Sequence[str]) -> list[Job]:
    """Forced jobs, each with the stamp that a scan would give it: no scan queues it again."""
    scanner = workspace.scanner()
    return [_job(workspace, scanner, kind, key) for key in keys]


def _job(workspace: Workspace, scanner: Scanner, kind: Kind, key: str) -> Job:
    if kind is Kind.EMBED:
        try:
            found = Stamp.of(workspace.layout.chain_path(key).stat())
            stamp = found.job_stamp(scanner.options.text_columns)
        except (OSError, BadKeyError):
            stamp = ""  # the worker says what is wrong with it
        return Job(kind, key, stamp, force=True)
    cluster = scanner.subreddit(key).cluster
    return Job(kind, key, cluster.stamp if cluster is not None else "", force=True)


def check_chains(context: AssetExecutionContext, assets: AssetSet, workspace: Workspace) -> None:
    """Open, check and fingerprint the run's chain files, here, and record each.

    The caller holds the run's lease: one file may take longer than the lease lasts.

    Raises:
        Failure: files that cannot be used, each with its reason (the others are recorded).
    """
    bad: dict[str, str] = {}
    keys = list(context.partition_keys)
    said = time.monotonic()
    for number, key in enumerate(keys, 1):
        try:
            context.log_event(_checked(assets, key, workspace))
        except (BadFileError, BadKeyError) as error:
            bad[key] = str(error)
            context.log.error(f"{key}: {error}")
        if time.monotonic() - said > _PROGRESS_SECONDS:
            said = time.monotonic()
            context.log.info(f"{number} of {len(keys)} chain files checked.")
    _raise_if(bad, len(keys))


def _checked(assets: AssetSet, key: str, workspace: Workspace) -> AssetMaterialization:
    with ChainFile(workspace.layout.chain_path(key), workspace.settings.text_columns) as chain:
        facts = {
            "rows": chain.rows,
            "bytes": chain.source.size,
            "text_column": chain.text_column,
            "path": str(chain.path),
            "seen_by": "run",
        }
        return chains_event(assets, key, chain.source.fingerprint, facts)
