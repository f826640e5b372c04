"""Backfills of many partitions in few runs, whatever the selection.

Dagster makes one run per contiguous range of partitions: every 50th of 100,000 would be 2,000 runs,
at a second each. A run of ours stands for many ranges: its own range reaches from the first to the
last of them, and it makes those partitions of it that its backfill targets. What lies between them
is never targeted, so that Dagster's books stay right.

Dagster has no option for this. ``install`` replaces five of its functions in the daemon and the
webserver, for assets with our tag alone; ``test_platform_contracts.py`` says when an upgrade breaks
it, and ``docs/architecture.md``, *Backfills*, what was weighed.
"""

from __future__ import annotations

import functools
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dagster import (
    AssetExecutionContext,
    AssetKey,
    DagsterEvent,
    DagsterInstance,
    DagsterRun,
    PartitionsDefinition,
    RunRequest,
)
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.events import AssetMaterializationPlannedData
from dagster._core.execution import asset_backfill
from dagster._core.execution.asset_backfill import AssetBackfillData, AssetBackfillIterationResult
from dagster._core.instance.runs.run_domain import RunDomain
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    BACKFILL_ID_TAG,
    PARTITION_NAME_TAG,
)

from reddit_assets.errors import ReportingError
from reddit_assets.platform.names import ASSET_TAG, DEAD_LETTERS
from reddit_assets.platform.reporting.bulk import settle

__all__ = ["FEW", "SIZE_TAG", "install", "merge_ranges", "partitions_of"]

SIZE_TAG = "reddit_assets/partitions"
"""Tag of a run of many partitions, or of some of its range: how many."""

# A larger run does not announce each of its partitions, and leaves the check of dead letters to the
# sensor: both would store an event or a row for each before the run begins.
FEW = 100

_START, _END = ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG

# Between two looks of the daemon at its backfills; Dagster's 30 s would be a long wait for a person
# who cancels one.
_DAEMON_SECONDS = 5


# --- in a run ----------------------------------------------------------------------------
def partitions_of(
    context: AssetExecutionContext, asset: AssetKey, partitions: PartitionsDefinition
) -> list[str]:
    """The partitions of an asset that a run is to make, in order; none if it has none.

    Raises:
        ReportingError: which they are can no longer be told.
    """
    instance, tags = context.instance, context.run.tags
    if PARTITION_NAME_TAG in tags:
        return [tags[PARTITION_NAME_TAG]]
    first, last = tags.get(_START), tags.get(_END)
    if first is None or last is None:
        return []
    keys = list(partitions.get_partition_keys(dynamic_partitions_store=instance))
    gone = [end for end in (first, last) if end not in keys]
    of_backfill = SIZE_TAG in tags or BACKFILL_ID_TAG in tags
    if len(gone) == 2 or (gone and not of_backfill):
        raise ReportingError(
            f"{gone[0]} is gone, at which this run's range of partitions begins or ends: what lies "
            "in between cannot be told.",
            hint="Launch a new backfill with the partitions that are missing.",
        )
    begin = None if first in gone else keys.index(first)
    keys = keys[begin : None if last in gone else keys.index(last) + 1]
    if SIZE_TAG not in tags and not gone:
        return keys
    target = _target(instance, context.run, asset, context.repository_def.asset_graph)
    return [key for key in keys if key in target]


def _target(
    instance: DagsterInstance, run: DagsterRun, asset: AssetKey, graph: BaseAssetGraph[Any]
) -> set[str]:
    """The partitions that a run's backfill targets; a run started again has its parent's."""
    seen: DagsterRun | None = run
    while seen is not None and BACKFILL_ID_TAG not in seen.tags:
        seen = instance.get_run_by_id(seen.parent_run_id) if seen.parent_run_id else None
    backfill = instance.get_backfill(seen.tags[BACKFILL_ID_TAG]) if seen is not None else None
    if backfill is None:
        raise ReportingError(
            "The backfill that says which partitions this run makes is gone.",
            hint="Launch a new backfill with the partitions that are missing.",
        )
    with partition_loading_context(dynamic_partitions_store=instance):
        target = backfill.get_asset_backfill_data(graph).target_subset
        return set(target.get_partitions_subset(asset).get_partition_keys())


# --- in the daemon and the webserver -----------------------------------------------------
def install() -> None:
    """Replace Dagster's functions in this process. Harmless when called again."""
    if hasattr(asset_backfill.execute_asset_backfill_iteration_inner, "__wrapped__"):
        return
    _wrap(asset_backfill, "execute_asset_backfill_iteration_inner", _iteration)
    _wrap(asset_backfill, "_get_next_latest_storage_id", _latest_place)
    _wrap(asset_backfill, "get_canceling_asset_backfill_iteration_data", _canceling)
    _wrap(AssetBackfillData, "with_run_requests_submitted", _submitted)
    _wrap(RunDomain, "get_materialization_planned_events_for_asset", _planned)
    controller = sys.modules.get("dagster._daemon.controller")  # the daemon's process alone
    if controller is not None:
        interval = controller.DEFAULT_DAEMON_INTERVAL_SECONDS
        controller.DEFAULT_DAEMON_INTERVAL_SECONDS = min(_DAEMON_SECONDS, interval)  # type: ignore[attr-defined]


def _wrap(owner: Any, name: str, ours: Callable[..., Any]) -> None:
    theirs = getattr(owner, name)

    @functools.wraps(theirs)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        return ours(theirs, *args, **kwargs)

    setattr(owner, name, replaced)


def _ours(graph: Any, asset: AssetKey) -> bool:
    return bool(graph.has(asset) and ASSET_TAG in graph.get(asset).tags)


def _iteration(
    theirs: Callable[..., AssetBackfillIterationResult],
    backfill_id: str,
    asset_backfill_data: AssetBackfillData,
    asset_graph_view: Any,
    *args: Any,
    **kwargs: Any,
) -> AssetBackfillIterationResult:
    """The runs that a backfill needs next, merged."""
    result = theirs(backfill_id, asset_backfill_data, asset_graph_view, *args, **kwargs)
    if not result.run_requests:
        return result
    store = asset_graph_view.get_inner_queryer_for_back_compat()
    with partition_loading_context(dynamic_partitions_store=store):
        requests = list(
            _merged(result.run_requests, result.backfill_data, asset_graph_view.asset_graph)
        )
    return result._replace(
        run_requests=requests, reserved_run_ids=result.reserved_run_ids[: len(requests)]
    )


def _latest_place(theirs: Callable[..., int], queryer: Any) -> int:
    """Up to where a look at the log reaches: nothing before it may become visible later."""
    place = theirs(queryer)
    settle(queryer.instance.event_log_storage)
    return place


def _submitted(
    theirs: Callable[..., AssetBackfillData],
    data: AssetBackfillData,
    run_requests: Sequence[RunRequest],
    *args: Any,
) -> AssetBackfillData:
    """What a backfill has requested: of a run's range, what the backfill targets."""
    updated = theirs(data, run_requests, *args)
    if any(SIZE_TAG in request.tags for request in run_requests):
        return updated.replace_requested_subset(updated.requested_subset & updated.target_subset)
    return updated


def _canceling(
    theirs: Callable[..., AssetBackfillData], *args: Any, **kwargs: Any
) -> AssetBackfillData:
    """What a cancelled backfill has not made: no more than it targets."""
    data = theirs(*args, **kwargs)
    failed = data.failed_and_downstream_subset & data.target_subset
    return data.with_failed_and_downstream_subset(failed)


def _planned(
    theirs: Callable[..., Sequence[DagsterEvent]],
    domain: RunDomain,
    dagster_run: DagsterRun,
    asset_key: AssetKey,
    job_name: str,
    step: Any,
    asset_graph: Any,
) -> Sequence[DagsterEvent]:
    """What a run announces: one event where Dagster would store one per partition (11 ms each)."""
    if SIZE_TAG not in dagster_run.tags or not _ours(asset_graph, asset_key):
        return theirs(domain, dagster_run, asset_key, job_name, step, asset_graph)
    data = AssetMaterializationPlannedData(asset_key)
    return [DagsterEvent.build_asset_materialization_planned_event(job_name, step.key, data)]


# --- merging -----------------------------------------------------------------------------
def _merged(
    requests: Sequence[RunRequest], data: AssetBackfillData, graph: Any
) -> Iterator[RunRequest]:
    groups: dict[frozenset[AssetKey], list[RunRequest]] = {}
    for request in requests:
        assets = frozenset(request.asset_selection or ())
        if _START in request.tags and all(_ours(graph, asset) for asset in assets):
            groups.setdefault(assets, []).append(request)
        else:
            yield request
    for assets, mine in groups.items():
        node = graph.get(next(iter(assets)))
        keys = list(node.partitions_def.get_partition_keys())
        place = {key: number for number, key in enumerate(keys)}
        targeted: set[int] = set()
        for asset in assets:
            subset = data.target_subset.get_partitions_subset(asset)
            targeted.update(place[key] for key in subset.get_partition_keys() if key in place)
        ranges = sorted((place[one.tags[_START]], place[one.tags[_END]]) for one in mine)
        limit = node.backfill_policy.max_partitions_per_run or len(keys)
        for first, last, size in merge_ranges(ranges, sorted(targeted), limit):
            yield _request(mine[0], keys[first], keys[last], size, last - first + 1)


def merge_ranges(
    ranges: Sequence[tuple[int, int]], targeted: Sequence[int], limit: int
) -> Iterator[tuple[int, int, int]]:
    """Join ranges with nothing that is targeted between them: first, last, number of partitions.

    Args:
        ranges: first and last of each, in order, without overlap.
        targeted: all that the backfill wants, in order.
        limit: partitions in a range at most; no given range is longer.
    """
    first, last, size = -1, -1, 0
    for start, end in ranges:
        length = end - start + 1
        between = bisect_left(targeted, start) - bisect_right(targeted, last)
        if size and not between and size + length <= limit:
            last, size = end, size + length
            continue
        if size:
            yield first, last, size
        first, last, size = start, end, length
    if size:
        yield first, last, size


def _request(like: RunRequest, first: str, last: str, size: int, width: int) -> RunRequest:
    tags = {**like.tags, _START: first, _END: last}
    if size == width <= FEW:
        return like._replace(tags=tags)
    tags[SIZE_TAG] = f"{size:,} of {width:,}" if size < width else f"{size:,}"
    checks = [key for key in like.asset_check_keys or () if key.name != DEAD_LETTERS]
    return like._replace(tags=tags, asset_check_keys=checks)
