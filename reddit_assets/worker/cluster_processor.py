"""Cluster tasks: a subreddit's embedding files in, its clustered file and map out."""

from __future__ import annotations

from reddit_assets.catalog.layout import Layout
from reddit_assets.settings import Settings

__all__ = ["ClusterProcessor"]


class ClusterProcessor:
    """One subreddit after the other; compiled code is warm before the first."""

    def __init__(self, settings: Settings, layout: Layout) -> None:
        raise NotImplementedError
