"""The sensors: each calls a service and shows its sentences.

Without ``from __future__ import annotations``: Dagster reads the types of resources.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dagster import (
    AssetKey,
    AssetSelection,
    DefaultSensorStatus,
    ResourceParam,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)

from reddit_assets.platform.dagster_errors import skip, tick_errors
from reddit_assets.platform.names import CORPUS, DUMPS, MODEL, SETTINGS, AssetSet
from reddit_assets.platform.resources import Platform

if TYPE_CHECKING:
    from reddit_assets.platform.services.tick import Service

__all__ = ["make_sensors", "state_of"]


def make_sensors(discovery_seconds: int, sets: Sequence[AssetSet]) -> list[SensorDefinition]:
    """All sensors, switched on. Each names the assets that it keeps up to date.

    Args:
        discovery_seconds: between two looks at the disk.
        sets: the assets.
    """
    often = min(30, discovery_seconds)
    chains, embeddings, clusters = (
        [getattr(one, name) for one in sets] for name in ("chains", "embeddings", "clusters")
    )
    outputs = [*embeddings, *clusters]
    return [
        _sensor(
            "discovery",
            "Finds new and changed chain files: adds partitions and queues embeddings.",
            discovery_seconds,
            lambda platform: platform.discover,
            [*chains, *embeddings, MODEL],
        ),
        _sensor(
            "dump_discovery",
            "Finds new and changed public dumps below dumps/, and has them ingested.",
            discovery_seconds,
            lambda platform: platform.dumps,
            [DUMPS],
        ),
        _sensor(
            "cluster_readiness",
            "Queues the clusters of subreddits whose files all have fresh embeddings.",
            discovery_seconds,
            lambda platform: platform.readiness,
            [*clusters, SETTINGS],
        ),
        _sensor(
            "dead_runs",
            "Fails runs whose process died and withdraws their jobs.",
            often,
            lambda platform: platform.watchdog,
            outputs,
        ),
        _sensor(
            "dead_letters",
            "Shows jobs that were given up as failed partitions, with the reason, and clears them.",
            often,
            lambda platform: platform.dead_letters,
            outputs,
        ),
        _sensor(
            "reconciliation",
            "Reports outputs on the disk that Dagster does not know, adopted ones too.",
            discovery_seconds,
            lambda platform: platform.reconcile,
            outputs,
        ),
        _sensor(
            "hourly",
            "Materializes corpus every hour, and when the work has ended: a quick look, no run.",
            2 * discovery_seconds,
            lambda platform: platform.glance,
            [CORPUS],
        ),
    ]


def _sensor(
    name: str,
    description: str,
    seconds: int,
    service_of: Callable[[Platform], "Service"],
    assets: Sequence[AssetKey],
) -> SensorDefinition:
    @sensor(
        name=name,
        description=f"{description} It asks workers, not runs: 0 runs requested is right.",
        minimum_interval_seconds=seconds,
        default_status=DefaultSensorStatus.RUNNING,
        asset_selection=AssetSelection.assets(*assets),
    )
    def look(context: SensorEvaluationContext, platform: ResourceParam[Platform]) -> SkipReason:
        with tick_errors():
            platform.workspace.require_defined()
            tick = service_of(platform).tick(context.instance, state_of(context.cursor))
        # A list of ticks shows the beginnings of their cursors, and hides what they say behind a
        # click. What was queued comes first.
        said = skip(sorted(tick.sentences, key=lambda sentence: not sentence.startswith("Jobs:")))
        context.update_cursor(f"{said.skip_message}\n{tick.cursor or ''}")
        return said

    return look


def state_of(cursor: str | None) -> str | None:
    """What a service returned, without what its tick said."""
    return (cursor or "").rpartition("\n")[2] or None
