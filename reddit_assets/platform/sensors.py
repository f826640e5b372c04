"""The sensors: each calls a service and shows its sentences.

Without ``from __future__ import annotations``: Dagster reads the types of resources.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from dagster import (
    DefaultSensorStatus,
    ResourceParam,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)

from reddit_assets.platform.dagster_errors import skip, tick_errors
from reddit_assets.platform.resources import Platform

if TYPE_CHECKING:
    from reddit_assets.platform.services.tick import Service

__all__ = ["make_sensors"]


def make_sensors(discovery_seconds: int) -> list[SensorDefinition]:
    """All sensors, switched on.

    Args:
        discovery_seconds: between two looks at the disk.
    """
    often = min(30, discovery_seconds)
    return [
        _sensor(
            "discovery",
            "Finds new and changed chain files: adds partitions and queues embeddings.",
            discovery_seconds,
            lambda platform: platform.discover,
        ),
        _sensor(
            "cluster_readiness",
            "Queues the clusters of subreddits whose files all have fresh embeddings.",
            discovery_seconds,
            lambda platform: platform.readiness,
        ),
        _sensor(
            "dead_runs",
            "Fails runs whose process died and withdraws their jobs.",
            often,
            lambda platform: platform.watchdog,
        ),
        _sensor(
            "dead_letters",
            "Shows dead letters as failed checks of their partitions, and clears them.",
            often,
            lambda platform: platform.dead_letters,
        ),
        _sensor(
            "reconciliation",
            "Reports outputs on the disk that Dagster does not know, adopted ones too.",
            2 * discovery_seconds,
            lambda platform: platform.reconcile,
        ),
    ]


def _sensor(
    name: str, description: str, seconds: int, service_of: Callable[[Platform], "Service"]
) -> SensorDefinition:
    @sensor(
        name=name,
        description=description,
        minimum_interval_seconds=seconds,
        default_status=DefaultSensorStatus.RUNNING,
    )
    def look(context: SensorEvaluationContext, platform: ResourceParam[Platform]) -> SkipReason:
        with tick_errors():
            tick = service_of(platform).tick(context.instance, context.cursor)
        if tick.cursor is not None:
            context.update_cursor(tick.cursor)
        return skip(tick.sentences)

    return look
