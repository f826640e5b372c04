"""What the assets' ops do in a run: check chain files, have embeddings and clusters made."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetMaterialization,
    Failure,
    MetadataValue,
)

from reddit_assets.corpus.chainfile import ChainFile
from reddit_assets.corpus.fingerprints import Stamp
from reddit_assets.corpus.scan import Scanner
from reddit_assets.errors import BadFileError, BadKeyError, RedditAssetsError
from reddit_assets.ledger.job import Job, Kind, Result
from reddit_assets.platform.backfills import FEW, SIZE_TAG, partitions_of
from reddit_assets.platform.names import AssetSet
from reddit_assets.platform.reporting import records, runs
from reddit_assets.platform.reporting.events import chains_event
from reddit_assets.platform.reporting.inputs import materializer, report_inputs
from reddit_assets.platform.run_logic import (
    NAMED_FAILURES,
    Lease,
    failed_partitions,
    wait_for_jobs,
)
from reddit_assets.workspace import Workspace

__all__ = ["check_chains", "have_made"]

_RESUME_TAG = "dagster/is_resume_retry"

_PROGRESS_SECONDS = 10.0
# Events of checked chain files stored at a time.
_BATCH = 500


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
    partitions = assets.files if kind is Kind.EMBED else assets.subreddits
    keys = partitions_of(context, key, partitions)
    done = _done_before(context, key)
    if done:
        context.log.info(f"{len(done)} partitions were recorded before the run was resumed.")
        keys = [partition for partition in keys if partition not in done]
    make = materializer(context.instance, workspace.layout, workspace.buckets)

    def record(results: Sequence[Result]) -> None:
        records.report(context.instance, make.chains(results))
        runs.record(context, make.outputs(results))

    announced = _announce(context, key, keys)
    try:
        outcome = wait_for_jobs(
            workspace.queues[kind],
            workspace.layout,
            lease,
            _jobs(workspace, kind, keys),
            record=record,
            log=context.log,
        )
    except RedditAssetsError:
        if not announced:
            _name_failed(context, key, keys)
        raise
    if not announced:
        _name_failed(context, key, outcome.failed)
    _raise_if(outcome.failed, outcome.total)


def _announce(context: AssetExecutionContext, key: AssetKey, keys: Sequence[str]) -> bool:
    """Whether Dagster knows which partitions the run is to make.

    It does, unless the run is a large one or makes only some of its range: what fails is named
    afterwards then, and few partitions are announced here.
    """
    if SIZE_TAG not in context.run.tags:
        return True
    if len(keys) > FEW:
        return False
    _name(context, key, keys)
    return True


def _name_failed(context: AssetExecutionContext, key: AssetKey, keys: Iterable[str]) -> None:
    """Let Dagster show partitions as failed, unless the run has made them."""
    made = runs.materialized(context.instance, context.run_id, key)
    _name(context, key, [partition for partition in keys if partition not in made])


def _name(context: AssetExecutionContext, key: AssetKey, keys: Sequence[str]) -> None:
    step = context.get_step_execution_context().step.key
    runs.plan(context.instance, context.run, key, keys, step)


def _raise_if(failed: Mapping[str, str], total: int) -> None:
    if failed:
        raise Failure(
            description=failed_partitions(failed, total),
            metadata={"failed": MetadataValue.json(dict(list(failed.items())[:200]))},
            allow_retries=False,
        )


def _done_before(context: AssetExecutionContext, key: AssetKey) -> set[str]:
    """Partitions recorded by the runs that this one resumes ("from failure")."""
    run = context.run
    if run.tags.get(_RESUME_TAG) != "true":
        return set()
    ancestors: set[str] = set()
    done: set[str] = set()
    parent = run.parent_run_id
    while parent is not None and parent not in ancestors:
        ancestors.add(parent)
        done |= runs.materialized(context.instance, parent, key)
        resumed = context.instance.get_run_by_id(parent)
        parent = resumed.parent_run_id if resumed is not None else None
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
    keys = partitions_of(context, assets.chains, assets.files)
    announced = _announce(context, assets.chains, keys)
    said = time.monotonic()
    checked: list[AssetMaterialization] = []
    for number, key in enumerate(keys, 1):
        try:
            checked.append(_checked(assets, key, workspace))
        except (BadFileError, BadKeyError) as error:
            bad[key] = str(error)
            if len(bad) <= NAMED_FAILURES:
                context.log.error(f"{key}: {error}")
        late = time.monotonic() - said > _PROGRESS_SECONDS
        if late or len(checked) >= _BATCH or number == len(keys):
            runs.record(context, checked)
            checked = []
        if late:
            said = time.monotonic()
            context.log.info(f"{number} of {len(keys)} chain files checked.")
    if not announced:
        _name_failed(context, assets.chains, bad)
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
