"""The records that looks at the trees and their snapshot exchange."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Closed", "Known", "Row", "Shard"]


class Known(NamedTuple):
    """What decides whether a subreddit's folders must be listed.

    Attributes:
        times: times of change of its three folders.
        trusted: whether the same times mean the same content.
        listed_at: when they were listed, seconds since the epoch.
    """

    times: bytes
    trusted: bool
    listed_at: float


class Shard(NamedTuple):
    """A shard's folder in one of the trees.

    Attributes:
        times, trusted, listed_at: as of :class:`Known`.
        keys: cluster keys of the subreddits in it.
    """

    times: bytes
    trusted: bool
    listed_at: float
    keys: list[str]


class Row(NamedTuple):
    """A subreddit as a look has found it.

    Attributes:
        packed: its listing; ``None`` if it is as it was.
        verdicts: those on it, where they are kept (:mod:`~reddit_assets.corpus.kept`).
        open: whether something of it is not done, or there is more to say than counts.
        fresh, adopted: files of these verdicts.
        clustered, kept: 1 if its cluster is fresh, or adopted.
        bytes: of its chain files.
        deep: whether its outputs were read in full.
    """

    cluster_key: str
    known: Known
    packed: bytes | None
    verdicts: bytes | None
    open: bool
    files: int
    fresh: int
    adopted: int
    clustered: int
    kept: int
    bytes: int
    litter: int
    deep: bool = False


class Closed(NamedTuple):
    """Sums over subreddits of which everything is done: as of :class:`Row`."""

    subreddits: int = 0
    files: int = 0
    fresh: int = 0
    adopted: int = 0
    clustered: int = 0
    kept: int = 0
    bytes: int = 0
    litter: int = 0
