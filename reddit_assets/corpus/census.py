"""How many chain files there are, within seconds: the layout of Dagster's assets depends on it."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass, field

from reddit_assets.corpus.layout import SUFFIX, Layout
from reddit_assets.corpus.subreddits import SubredditFilter
from reddit_assets.corpus.walk import folders_of

__all__ = ["Census", "count_files"]


@dataclass(frozen=True, slots=True)
class Census:
    """Files per subreddit.

    Attributes:
        files: by cluster key, of the subreddits that were counted.
        subreddits: how many there are.
    """

    files: dict[str, int] = field(default_factory=dict)
    subreddits: int = 0

    @property
    def complete(self) -> bool:
        """Whether every subreddit was counted."""
        return len(self.files) == self.subreddits

    @property
    def total(self) -> int:
        """The number of files, projected from the subreddits that were counted."""
        counted = sum(self.files.values())
        return round(counted * self.subreddits / len(self.files)) if self.files else 0


def count_files(layout: Layout, wanted: SubredditFilter, seconds: float = 4.0) -> Census:
    """Count names alone, in subreddits drawn at random until all are counted or time is up.

    Folders that cannot be listed count as empty: a scan says what is wrong with them.

    Raises:
        UnreadableFileError: the tree of chain files itself cannot be listed.
    """
    deadline = time.monotonic() + seconds
    keys = [key for key in folders_of(layout.chains, refuse=lambda _: None) if wanted(key)]
    random.Random(0).shuffle(keys)
    files: dict[str, int] = {}
    for key in keys:
        try:
            names = os.listdir(layout.chains / key)
        except OSError:
            names = []
        files[key] = sum(name.endswith(SUFFIX) for name in names)
        if time.monotonic() > deadline:
            break
    return Census(files, len(keys))
