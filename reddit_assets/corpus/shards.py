"""Which subreddits there are, without listing a shard's folder again whose times are the same.

A folder's time changes when a folder in it comes or goes, so a million files' hundred thousand
subreddits are known from the times of some hundred shards. What is in a shard that holds more than
folders (litter, links, names that cannot be keys) is looked at each time.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from reddit_assets.corpus.snapshot_rows import Known, Shard
from reddit_assets.corpus.walk import Passed, Refuse, keys_below
from reddit_assets.errors import RedditAssetsError

__all__ = ["Place", "Shards", "folder_times", "is_trusted"]

Place = tuple[str, str]
"""A tree and the name of a shard in it."""

# Times of change are as coarse as two seconds (FAT, some shares).
_COARSE_NS = 2_000_000_000


def folder_times(path: str) -> tuple[int, int]:
    """When a folder changed, in nanoseconds; zeros if there is none.

    The inode's time as well: tools that copy trees set the content's back.
    """
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_ctime_ns


def is_trusted(known: Known | Shard | None, times: bytes, now: float) -> bool:
    """Whether folders that have these times still will mean that nothing has changed.

    Args:
        known: what was kept of them.
        times: packed as ``q``, nanoseconds.
        now: when they are listed, seconds since the epoch.
    """
    newest = max(struct.unpack(f"{len(times) // 8}q", times))
    old = newest < now * 1e9 - _COARSE_NS
    if known is None or not old:
        return old
    # A change that was just seen is looked at once more: clocks of hosts differ.
    confirmed = known.trusted or now - known.listed_at >= _COARSE_NS / 1e9
    return known.times == times and confirmed


class Shards:
    """The shards' folders in the three trees, as a walk finds them.

    Args:
        known: what earlier walks have found.
        due: those to list, whatever their times.

    Attributes:
        found: those that were listed now.
        there: all that there are.
        lied: whether one changed without a change of its times.
    """

    def __init__(self, known: Mapping[Place, Shard], due: Collection[Place]) -> None:
        self._known, self._due = known, due
        self.found: dict[Place, Shard] = {}
        self.there: set[Place] = set()
        self.lied = False

    def of(self, tree: str) -> Callable[..., list[str]]:
        """As :func:`~reddit_assets.corpus.walk.keys_below`, for the tree of this name."""

        def below(
            root: Path, entry: os.DirEntry[str], refuse: Refuse, passed: Passed | None
        ) -> list[str]:
            if not entry.is_dir(follow_symlinks=False):
                return keys_below(root, entry, refuse, passed)
            place = (tree, entry.name)
            self.there.add(place)
            known = self._known.get(place)
            times = struct.pack("2q", *folder_times(entry.path))
            same = known is not None and known.trusted and known.times == times
            if known is not None and same and place not in self._due:
                return list(known.keys)
            now, problems, more = time.time(), list[RedditAssetsError](), Passed()
            keys = keys_below(root, entry, problems.append, more)
            for problem in problems:
                refuse(problem)
            if passed is not None:
                passed.update(more)
            plain = not (problems or more.counts or more.litter or more.links)
            if plain and known is not None and same and set(keys) != set(known.keys):
                self.lied |= struct.pack("2q", *folder_times(entry.path)) == times
            self.found[place] = Shard(times, plain and is_trusted(known, times, now), now, keys)
            return keys

        return below
