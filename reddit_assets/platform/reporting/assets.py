"""Which Dagster asset a partition belongs to."""

from __future__ import annotations

from urllib.parse import quote

from reddit_assets.corpus.buckets import Buckets
from reddit_assets.corpus.keys import cluster_key_of

__all__ = ["asset_path", "bucket_of", "page_path"]

_IN_BUCKETS = ("chains", "embeddings", "clusters")


def bucket_of(asset: str, partition: str, buckets: Buckets) -> str | None:
    """The bucket of a partition; ``None`` in the flat layout, and for assets that have none."""
    if asset not in _IN_BUCKETS:
        return None
    return buckets.of(partition if asset == "clusters" else cluster_key_of(partition))


def asset_path(asset: str, partition: str, buckets: Buckets) -> tuple[str, ...]:
    """The path of the asset key that ``partition`` of ``asset`` belongs to.

    Args:
        asset: ``chains``, ``embeddings`` or ``clusters``.
        partition: a file's or cluster's key.
    """
    bucket = bucket_of(asset, partition, buckets)
    return (asset,) if bucket is None else (asset, bucket)


def page_path(asset: str, partition: str, buckets: Buckets) -> str:
    """The path of a partition's page on Dagster's webserver."""
    path = "/".join(quote(part, safe="") for part in asset_path(asset, partition, buckets))
    return f"/assets/{path}?view=partitions&partition={quote(partition, safe='')}"
