"""What the assets' ops do in a run: check chain files, have embeddings and clusters made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from dagster import AssetExecutionContext, AssetRecordsFilter, Failure, MetadataValue

from reddit_assets.corpus.chainfile import ChainFile
from reddit_assets.corpus.fingerprints import Stamp
from reddit_assets.corpus.scan import Scanner
from reddit_assets.errors import BadFileError, BadKeyError, RedditAssetsError
from reddit_assets.ledger.job import Job, Kind, Result
from reddit_assets.platform.names import AssetSet
from reddit_assets.platform.reporting import records
from reddit_assets.platform.reporting.events import chains_event
from reddit_assets.platform.reporting.inputs import materializer, report_inputs
from reddit_assets.platform.run_logic import Lease, wait_for_jobs
from reddit_assets.platform.telling import as_failure
from reddit_assets.workspace import Workspace

__all__ = ["check_chains", "have_made"]

_RESUME_TAG = "dagster/is_resume_retry"


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
        Failure: jobs became dead letters (the others are recorded), or Redis is not there.
    """
    log: Any = context.log
    try:
        report_inputs(context.instance, workspace.settings, workspace.layout)
        key = assets.embeddings if kind is Kind.EMBED else assets.clusters
        keys = list(context.partition_keys)
        done = _done_before(context, key, keys)
        if done:
            log.info(f"{len(done)} partitions were recorded before the run was resumed.")
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
            log=log,
        )
    except RedditAssetsError as error:
        raise as_failure(error) from None
    if outcome.failed:
        raise Failure(
            description=outcome.summary(),
            metadata={
                "failed": MetadataValue.json(
                    {name: result.error for name, result in list(outcome.failed.items())[:200]}
                )
            },
            allow_retries=False,
        )


def _done_before(context: AssetExecutionContext, key: Any, keys: Sequence[str]) -> set[str]:
    """Partitions that the runs recorded which this one resumes ("from failure")."""
    run = context.run
    if run.tags.get(_RESUME_TAG) != "true" or run.parent_run_id is None:
        return set()
    ancestors: set[str] = set()
    parent: str | None = run.parent_run_id
    while parent is not None and parent not in ancestors:
        ancestors.add(parent)
        former = context.instance.get_run_by_id(parent)
        parent = former.parent_run_id if former is not None else None
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
    """Forced jobs, each with the stamp that a scan would give it: no scan queues it anew."""
    scanner = workspace.scanner()
    return [_job(workspace, scanner, kind, key) for key in keys]


def _job(workspace: Workspace, scanner: Scanner, kind: Kind, key: str) -> Job:
    if kind is Kind.EMBED:
        try:
            stamp = str(Stamp.of(workspace.layout.chain_path(key).stat()))
        except (OSError, BadKeyError):
            stamp = ""  # the worker says what is wrong with it
        return Job(kind, key, stamp, force=True)
    cluster = scanner.subreddit(key).cluster
    return Job(kind, key, cluster.stamp if cluster is not None else "", force=True)


def check_chains(context: AssetExecutionContext, assets: AssetSet) -> None:
    """Open, check and fingerprint the run's chain files, here, and record each.

    Raises:
        Failure: files that cannot be used, each with its reason (the others are recorded).
    """
    log: Any = context.log
    try:
        workspace = Workspace.load()
        lease = Lease.of(workspace, Kind.EMBED, context.run_id)
        lease.keep()
        bad: dict[str, str] = {}
        keys = list(context.partition_keys)
        told = time.monotonic()
        try:
            for number, key in enumerate(keys, 1):
                try:
                    with ChainFile(workspace.layout.chain_path(key)) as chain:
                        facts = {
                            "rows": chain.rows,
                            "bytes": chain.source.size,
                            "text_column": chain.text_column,
                            "path": str(chain.path),
                            "seen_by": "run",
                        }
                        event = chains_event(assets, key, chain.source.fingerprint, facts)
                    context.log_event(event)
                except (BadFileError, BadKeyError) as error:
                    bad[key] = str(error)
                    log.error(f"{key}: {error}")
                lease.keep()
                if time.monotonic() - told > 10:
                    told = time.monotonic()
                    log.info(f"{number} of {len(keys)} chain files checked.")
        finally:
            lease.give_back()
    except RedditAssetsError as error:
        raise as_failure(error) from None
    if bad:
        lines = [f"{key}: {reason}" for key, reason in list(bad.items())[:50]]
        raise Failure(
            description=f"{len(bad)} of {len(keys)} partitions failed:\n" + "\n".join(lines),
            metadata={"failed": MetadataValue.json(dict(list(bad.items())[:200]))},
            allow_retries=False,
        )
