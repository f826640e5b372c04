"""Which subreddits are wanted: names and patterns to include or exclude."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from reddit_assets.corpus.keys import subreddit_of
from reddit_assets.errors import SettingsError

__all__ = ["SubredditFilter"]


@dataclass(frozen=True, slots=True)
class SubredditFilter:
    """Patterns on a subreddit's name or its whole cluster key (``as/Ask*``).

    Without an include pattern every subreddit is included; an exclude pattern always wins.
    Names are compared with case.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> SubredditFilter:
        """From ``AskReddit,Cook*,!books``: commas between patterns, ``!`` before excluded ones.

        Raises:
            SettingsError: a pattern is empty after its ``!``.
        """
        include: list[str] = []
        exclude: list[str] = []
        for item in (piece.strip() for piece in text.split(",")):
            if not item:
                continue
            if item == "!":
                raise SettingsError(
                    f"The subreddit filter {text!r} has a ! without a name.",
                    hint="Write !NAME to exclude a subreddit.",
                )
            (exclude if item.startswith("!") else include).append(item.lstrip("!"))
        return cls(tuple(include), tuple(exclude))

    def __call__(self, cluster_key: str) -> bool:
        """Whether the subreddit is wanted."""
        names = (subreddit_of(cluster_key), cluster_key)

        def matches(pattern: str) -> bool:
            return any(fnmatch.fnmatchcase(name, pattern) for name in names)

        if any(matches(pattern) for pattern in self.exclude):
            return False
        return not self.include or any(matches(pattern) for pattern in self.include)
