"""Which Dagster asset a partition belongs to."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["asset_path"]


def asset_path(asset: str, partition: str, shards: Collection[str] = ()) -> tuple[str, ...]:
    """The path of the asset key that ``partition`` of ``asset`` belongs to.

    Args:
        asset: ``chains``, ``embeddings`` or ``clusters``.
        partition: a file's or cluster's key.
        shards: the shards that have assets of their own.
    """
    shard = partition.split("/", 1)[0]
    return (asset, shard) if shard in shards else (asset,)
