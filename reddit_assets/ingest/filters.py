"""Which messages of a dump are wanted, from the settings."""

from __future__ import annotations

import datetime
import fnmatch
import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from reddit_assets.corpus.subreddits import SubredditFilter
from reddit_assets.errors import SettingsError
from reddit_assets.settings import Settings

__all__ = ["Filters"]

_PATTERN = re.compile(r"[*?\[]")
_REMOVED = ("[removed]", "[deleted]", "[ Removed by Reddit ]", "[removed by reddit]")


@dataclass(frozen=True)
class Filters:
    """What is taken (``subreddits``, ``since``, ``until``), and what is only thread structure.

    Attributes:
        since, until: seconds since 1970; the second one is excluded.
        removed: ``structure``, ``keep`` or ``drop``.
        bots: names and patterns, in lower case.
    """

    subreddits: str = ""
    since: int = -(2**62)
    until: int = 2**62
    min_score: int | None = None
    min_length: int = 0
    removed: str = "structure"
    bots: tuple[str, ...] = ()

    @classmethod
    def from_settings(cls, settings: Settings) -> Filters:
        """
        Raises:
            SettingsError: dates or the list of bots cannot be read.
        """
        since, until = _dates(settings.ingest_dates)
        SubredditFilter.parse(settings.subreddits)
        return cls(
            settings.subreddits,
            since,
            until,
            settings.ingest_min_score,
            settings.ingest_min_length,
            settings.ingest_removed,
            _names(settings.ingest_bots),
        )

    @property
    def fingerprint(self) -> str:
        """Changes with what they let pass."""
        return hashlib.blake2b(repr(asdict(self)).encode(), digest_size=8).hexdigest()

    # --- each returns bool (rows,) -------------------------------------------------------
    def wanted_places(self, places: pa.Array) -> NDArray[np.bool_]:
        """Rows of wanted subreddits; ``places`` are cluster keys."""
        if not self.subreddits:
            return np.ones(len(places), bool)
        encoded = places.dictionary_encode()
        wanted = SubredditFilter.parse(self.subreddits)
        each = np.array([wanted(place) for place in encoded.dictionary.to_pylist()], bool)
        return each[encoded.indices.to_numpy(zero_copy_only=False)]

    def by_bots(self, authors: pa.Array) -> NDArray[np.bool_]:
        """Rows whose author is on the list."""
        if not self.bots:
            return np.zeros(len(authors), bool)
        encoded = pc.fill_null(authors, "").dictionary_encode()
        names = {name for name in self.bots if not _PATTERN.search(name)}
        patterns = [fnmatch.translate(name) for name in self.bots if name not in names]
        matches = re.compile("|".join(patterns) or r"(?!)").match
        lower = (name.lower() for name in encoded.dictionary.to_pylist())
        each = np.array([name in names or bool(matches(name)) for name in lower], bool)
        return each[encoded.indices.to_numpy(zero_copy_only=False)]

    @staticmethod
    def without_text(body: pa.Array, selftext: pa.Array) -> NDArray[np.bool_]:
        """Rows whose text its author or a moderator has taken away."""
        gone = pa.array(_REMOVED)
        either = pc.or_(pc.is_in(body, gone), pc.is_in(selftext, gone))
        return either.to_numpy(zero_copy_only=False)


def _dates(text: str) -> tuple[int, int]:
    if not text:
        return Filters.since, Filters.until
    first, dots, last = (part.strip() for part in text.partition(".."))
    try:
        since = _midnight(first) if first else Filters.since
        end = last if dots else first
        until = _midnight(end) + 86_400 if end else Filters.until
    except ValueError:
        raise SettingsError(
            f"{text!r} is not a range of dates.", hint="Write it like 2020-01-01..2023-12-31."
        ) from None
    return since, until


def _midnight(day: str) -> int:
    date = datetime.date.fromisoformat(day)
    return int(datetime.datetime(date.year, date.month, date.day, tzinfo=datetime.UTC).timestamp())


def _names(text: str) -> tuple[str, ...]:
    if text.startswith("@"):
        try:
            lines = Path(text[1:]).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"The list of bots {text[1:]} cannot be read: {error}.",
                hint="Check REDDIT_INGEST_BOTS.",
            ) from None
    else:
        lines = text.split(",")
    names = (line.strip().lower() for line in lines)
    return tuple(sorted({name for name in names if name and not name.startswith("#")}))
