"""The sensors: each reads a few lines and calls a function that a test can call without Dagster."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from dagster import (
    DefaultSensorStatus,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)

from reddit_assets.platform.telling import sentences, skip

if TYPE_CHECKING:
    from reddit_assets.corpus.facts import ProvenanceCache
    from reddit_assets.workspace import Workspace

__all__ = ["make_sensors"]


def make_sensors(discovery_seconds: int) -> list[SensorDefinition]:
    """All sensors, switched on.

    Args:
        discovery_seconds: between two looks at the disk.
    """

    @cache
    def provenances() -> ProvenanceCache:
        from reddit_assets.corpus.facts import ProvenanceCache

        return ProvenanceCache()

    def load() -> Workspace:
        from reddit_assets.workspace import Workspace

        return Workspace.load(provenances=provenances())

    on: dict[str, Any] = {"default_status": DefaultSensorStatus.RUNNING}

    @sensor(
        name="discovery",
        description="Finds new and changed chain files: adds partitions and queues embeddings.",
        minimum_interval_seconds=discovery_seconds,
        **on,
    )
    def discovery(context: SensorEvaluationContext) -> SkipReason:
        from reddit_assets.platform.services.discover import Cursor, discover

        with sentences():
            told, cursor = discover(
                load(),
                context.instance,
                Cursor.parse(context.cursor),
            )
        context.update_cursor(cursor.text())
        return skip(told)

    @sensor(
        name="cluster_readiness",
        description="Queues the clusters of subreddits whose files all have fresh embeddings.",
        minimum_interval_seconds=discovery_seconds,
        **on,
    )
    def cluster_readiness(context: SensorEvaluationContext) -> SkipReason:
        from reddit_assets.platform.services.discover import Cursor, make_ready

        with sentences():
            told, cursor = make_ready(
                load(),
                context.instance,
                Cursor.parse(context.cursor),
            )
        context.update_cursor(cursor.text())
        return skip(told)

    @sensor(
        name="dead_runs",
        description="Fails runs whose process died and withdraws their jobs.",
        minimum_interval_seconds=min(30, discovery_seconds),
        **on,
    )
    def dead_runs(context: SensorEvaluationContext) -> SkipReason:
        from reddit_assets.platform.services.watchdog import bury_dead_runs

        with sentences():
            told = bury_dead_runs(load(), context.instance)
        return skip(told or ["All runs that wait for workers are alive."])

    @sensor(
        name="dead_letters",
        description="Shows dead letters as failed checks of their partitions, and heals them.",
        minimum_interval_seconds=min(30, discovery_seconds),
        **on,
    )
    def dead_letters(context: SensorEvaluationContext) -> SkipReason:
        from reddit_assets.platform.services.dead_letters import report_dead_letters

        with sentences():
            told, cursor = report_dead_letters(load(), context.instance, context.cursor)
        context.update_cursor(cursor)
        return skip(told)

    @sensor(
        name="reconciliation",
        description="Reports outputs on the disk that Dagster does not know, adopted ones too.",
        minimum_interval_seconds=2 * discovery_seconds,
        **on,
    )
    def reconciliation(context: SensorEvaluationContext) -> SkipReason:
        from reddit_assets.platform.services.reconcile import reconcile

        with sentences():
            workspace = load()
            told, after = reconcile(
                workspace,
                context.instance,
                after=json.loads(context.cursor or "null"),
                budget_seconds=workspace.settings.tick_seconds / 2,
            )
        context.update_cursor(json.dumps(after))
        return skip(told)

    return [discovery, cluster_readiness, dead_runs, dead_letters, reconciliation]
