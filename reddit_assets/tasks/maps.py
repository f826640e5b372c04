"""The map of a clustered subreddit, as bytes to be written."""

from __future__ import annotations

import html
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reddit_assets.corpus.layout import MAP_POSTS_NAME
from reddit_assets.engines.clustering.map import (
    PICTURE_POINTS,
    POSTS,
    MapPosts,
    Wording,
    map_page,
    map_png,
    map_rows,
    post_chars,
)
from reddit_assets.engines.clustering.meaning import Meaning, Posts
from reddit_assets.engines.clustering.results import Clustering

__all__ = ["PICTURE_ROWS", "DrawnMap", "draw_map"]

#: A picture of the map is made for subreddits of at least this many rows.
PICTURE_ROWS = 200


class LinkedPosts(Posts, Protocol):
    """Posts that can be opened."""

    def links(self, rows: NDArray[np.int64]) -> list[str]:
        """Addresses of some rows; empty where there is none."""


@dataclass(frozen=True, slots=True)
class DrawnMap:
    """A map as files.

    Attributes:
        page: HTML.
        posts: what goes beside the page; ``None`` where the page holds all.
        png: a small picture, or ``None`` for a small subreddit.
    """

    page: bytes
    posts: bytes | None
    png: bytes | None


def draw_map(
    name: str,
    posts: LinkedPosts,
    clustering: Clustering,
    ids: NDArray[np.int32],
    meaning: Meaning,
    *,
    born: Collection[int],
    seed: int,
    wording: Wording = POSTS,
    facts: str | None = None,
) -> DrawnMap:
    """The page with its posts, and the picture where there are enough rows for one.

    Args:
        name: of the subreddit.
        ids: int32 (rows,), the persistent id of each row's cluster, −1 noise.
        meaning: of the clusters.
        born: ids of the clusters that are new tonight.
        seed: of the sample that is drawn where there are very many rows.
        wording: what the page calls the rows.
        facts: the line below the name, instead of the usual one.
    """
    rows = len(clustering.labels)
    chosen = map_rows(rows, clustering.labels, seed)
    made = map_page(
        name,
        clustering.x[chosen],
        clustering.y[chosen],
        ids[chosen],
        MapPosts(
            _texts(posts, chosen),
            _known(posts.scores(), chosen),
            _known(posts.dates(), chosen),
            posts.links(chosen),
        ),
        meaning.rows,
        meaning.themes,
        rows,
        born=born,
        beside=MAP_POSTS_NAME,
        topics=meaning.topics,
        wording=wording,
        facts=facts,
    )
    png = None
    if rows >= PICTURE_ROWS:
        drawn = map_rows(rows, clustering.labels, seed, PICTURE_POINTS)
        x, y = clustering.x[drawn], clustering.y[drawn]
        png = map_png(name, x, y, clustering.themes[drawn], meaning.rows)
    beside = None if made.posts is None else made.posts.encode("ascii")
    return DrawnMap(made.page.encode("utf-8", "replace"), beside, png)


def _texts(posts: LinkedPosts, rows: NDArray[np.int64]) -> list[str]:
    """What the map shows of some rows, cut before they are held."""
    limit, texts = post_chars(len(rows)), []
    for said in posts.texts(rows, limit + 1):
        whole = html.unescape("\n\n".join(filter(None, said))).strip()
        texts.append(whole if len(whole) <= limit else f"{whole[:limit]}…")
    return texts


def _known(values: NDArray[np.float64] | None, rows: NDArray[np.int64]) -> list[float | None]:
    """Values of some rows; ``None`` where there is none."""
    if values is None:
        return [None] * len(rows)
    return [float(value) if np.isfinite(value) else None for value in values[rows]]
