"""The map of a subreddit: a page that opens from disk without a network, and a small picture."""

from reddit_assets.engines.clustering.map.page import (
    FULL,
    MAX_POINTS,
    POSTS,
    MapPage,
    MapPosts,
    Wording,
    map_page,
    map_rows,
    post_chars,
)
from reddit_assets.engines.clustering.map.picture import PICTURE_POINTS, PNG_BYTES, map_png

__all__ = [
    "FULL",
    "MAX_POINTS",
    "PICTURE_POINTS",
    "PNG_BYTES",
    "POSTS",
    "MapPage",
    "MapPosts",
    "Wording",
    "map_page",
    "map_png",
    "map_rows",
    "post_chars",
]
