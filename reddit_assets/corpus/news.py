"""What is new in clusters: born, merged, split, growing, fading, gone.

A cluster grows or fades where it won clearly more or fewer posts than others of its size.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reddit_assets.corpus.cluster_table import find_table
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.nights import ClusterBefore, Night, moment, read_before

__all__ = [
    "KINDS",
    "CorpusNews",
    "Event",
    "SubredditNews",
    "corpus_news",
    "news_of",
    "read_news",
]

#: What can be new of a cluster, in the order in which it is shown.
KINDS = ("born", "merged", "split", "growing", "fading", "gone")
#: Standard deviations of a Poisson count by which the posts that a cluster won must differ from
#: what is usual for its size, and the least number of posts.
SURPRISE, LEAST = 3.0, 3
#: Letters of an example in a narrow table.
SHOWN = 70
#: Clusters that are set aside at most to see what is usual.
ASIDE = 50


@dataclass(frozen=True)
class Event:
    """One piece of news.

    Attributes:
        what: one of :data:`KINDS`.
        posts, before: posts of the cluster now and at the beginning.
        new, lost: posts that came and that vanished in between.
        expected: posts that it would have won if it grew like the others.
        at: the night, for a growing or fading cluster the last one; seconds since 1970.
        parents: names of the clusters that it comes from.
    """

    what: str
    cluster_id: int
    name: str
    posts: int
    before: int
    new: int
    lost: int
    expected: float
    at: float
    parents: tuple[str, ...] = ()
    example: str = ""

    @property
    def rate(self) -> float | None:
        """Growth per post that it had; ``None`` where it had none."""
        return (self.new - self.lost) / self.before if self.before else None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        rate = self.rate
        return {
            "what": self.what,
            "cluster_id": self.cluster_id,
            "name": self.name,
            "posts": self.posts,
            "before": self.before,
            "new": self.new,
            "lost": self.lost,
            "rate": None if rate is None else round(rate, 4),
            "expected": round(self.expected, 1),
            "at": moment(self.at),
            "parents": list(self.parents),
            "example": self.example,
        }

    @property
    def growth(self) -> str:
        """Posts won or lost, and what it would have won if it grew like the others."""
        won = self.new - self.lost
        if self.what in ("growing", "fading"):
            return f"{won:+,} ({self.expected:+,.0f} expected)"
        return f"{won:+,}" if won else ""

    def row(self) -> dict[str, Any]:
        """For a narrow table that people read."""
        return {
            "cluster_id": self.cluster_id,
            "cluster": self.name,
            "what": self.what + (f" from {' + '.join(self.parents)}" if self.parents else ""),
            "posts": self.posts,
            "growth": self.growth,
            "example": f"{self.example[:SHOWN]}…" if len(self.example) > SHOWN else self.example,
        }


@dataclass(frozen=True)
class SubredditNews:
    """The news of some nights of a subreddit, the oldest night first, the largest news first."""

    key: str
    nights: tuple[Night, ...]
    events: tuple[Event, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "key": self.key,
            "nights": [night.facts() for night in self.nights],
            "events": [event.to_json() for event in self.events],
        }


def news_of(nights: Sequence[Night], clusters: Mapping[int, ClusterBefore]) -> tuple[Event, ...]:
    """The news of consecutive nights.

    A cluster grows (fades) where it won more (fewer) posts than one of its size usually does, by
    three standard deviations of a Poisson count. What is usual is the rate of all clusters but
    those that stand out, which are set aside one after the other, the most conspicuous first.

    Args:
        nights: the oldest first; a first night has no news.
        clusters: as they are after the last of them, by id.
    """
    nights = [night for night in nights if not night.first]
    found = [*_fates(nights, clusters), *_gone(nights)]
    known = {event.cluster_id for event in found}
    sums = {
        number: _Sum.of(number, cluster.size, nights)
        for number, cluster in clusters.items()
        if number not in known
    }
    usual = _usual(list(sums.values()))
    for number, won in sums.items():
        surprise, expected = won.surprise(*usual), usual[0] * won.first
        if abs(surprise) < SURPRISE or abs(won.net - expected) < LEAST:
            continue
        one = clusters[number]
        what = "growing" if surprise > 0 else "fading"
        example = won.example or one.example
        counts = (one.size, won.first, won.new, won.lost, expected, nights[-1].at)
        found.append(Event(what, number, one.name, *counts, example=example))
    return tuple(sorted(found, key=_order))


@dataclass(frozen=True)
class _Sum:
    """Posts that a cluster had at first, won and lost."""

    first: int
    new: int
    lost: int
    example: str

    @classmethod
    def of(cls, number: int, size: int, nights: Sequence[Night]) -> _Sum:
        # Where nothing came and nothing went, a record leaves the cluster out.
        known = [night for night in nights if number in night.counts]
        counts = [night.counts[number] for night in known]
        return cls(
            counts[0][0] if counts else size,
            sum(new for _, _, new, _ in counts),
            sum(lost for _, _, _, lost in counts),
            next((n.examples[number] for n in reversed(known) if number in n.examples), ""),
        )

    @property
    def net(self) -> int:
        return self.new - self.lost

    def surprise(self, rate: float, turnover: float) -> float:
        """Standard deviations from what is usual."""
        return (self.net - rate * self.first) / math.sqrt(turnover * self.first + 1)


def _usual(sums: list[_Sum]) -> tuple[float, float]:
    """Posts won, and posts that came or went, per post of a cluster that does not stand out."""
    for _ in range(min(ASIDE, len(sums) // 2) + 1):
        first = max(1, sum(each.first for each in sums))
        rate = sum(each.net for each in sums) / first
        turnover = sum(each.new + each.lost for each in sums) / first
        odd = max(sums, key=lambda each: abs(each.surprise(rate, turnover)), default=None)
        if odd is None or abs(odd.surprise(rate, turnover)) < SURPRISE:
            break
        sums = [each for each in sums if each is not odd]
    return rate, turnover


def _order(event: Event) -> tuple[int, int, int]:
    return KINDS.index(event.what), -max(event.posts, event.before), event.cluster_id


def _fates(nights: Sequence[Night], clusters: Mapping[int, ClusterBefore]) -> Iterable[Event]:
    """Births, splits and mergers of clusters that are still there; the first fate counts."""
    seen: set[int] = set()
    for night in nights:
        for number, (fate, parents) in night.fates.items():
            if number in seen or number not in clusters:
                continue
            seen.add(number)
            # A night's counts leave out where nothing came or went; a merger keeps its own record.
            was = night.before.get(number)
            before = night.counts.get(number, (was.size if was else 0,))[0]
            new = sum(each.counts.get(number, (0, 0, 0, 0))[2] for each in nights)
            lost = sum(each.counts.get(number, (0, 0, 0, 0))[3] for each in nights)
            yield Event(
                fate,
                number,
                clusters[number].name,
                clusters[number].size,
                before,
                new,
                lost,
                0.0,
                night.at,
                tuple(night.before[of].name for of in parents if of in night.before),
                night.examples.get(number) or clusters[number].example,
            )


def _gone(nights: Sequence[Night]) -> Iterable[Event]:
    for night in nights:
        for number in night.gone:
            one = night.before.get(number, ClusterBefore(f"cluster {number}", 0))
            lost = night.counts.get(number, (0, 0, 0, 0))[3]
            yield Event(
                "gone", number, one.name, 0, one.size, 0, lost, 0.0, night.at, (), one.example
            )


def read_news(
    layout: Layout, key: str, *, since: float | None = None, nights: int | None = None
) -> SubredditNews:
    """The news of a subreddit.

    Args:
        key: ``<shard>/<subreddit>``.
        since: seconds since 1970; nights before it are left out.
        nights: how many nights to sum at most; ``None`` sums all that are kept.
    """
    table = read_before(layout.cluster_dir(key))
    chosen = [night for night in table.nights if since is None or night.at >= since]
    chosen = chosen[-nights:] if nights is not None else chosen
    return SubredditNews(key, tuple(chosen), news_of(chosen, table.clusters))


@dataclass(frozen=True)
class CorpusNews:
    """The news of all subreddits that were clustered lately.

    Attributes:
        found: those with a record of a night.
        unread: subreddits for which there was no time.
    """

    found: tuple[SubredditNews, ...] = ()
    unread: int = 0

    def counts(self) -> dict[str, int]:
        """Pieces of news by kind, as far as there are any."""
        counted = Counter(event.what for one in self.found for event in one.events)
        return {kind: counted[kind] for kind in KINDS if counted[kind]}

    def largest(self, each: int | None = None) -> list[tuple[str, Event]]:
        """Cluster key and event, the kinds in order, the largest of each first.

        Args:
            each: of every kind at most.
        """
        events = [(one.key, event) for one in self.found for event in one.events]
        chosen = []
        for kind in KINDS:
            mine = [pair for pair in events if pair[1].what == kind]
            chosen += sorted(mine, key=lambda pair: _order(pair[1]))[:each]
        return chosen


def corpus_news(
    layout: Layout, keys: Iterable[str], since: float, seconds: float | None = None
) -> CorpusNews:
    """The news of all subreddits that were clustered since then.

    Only tables written since are opened, about a millisecond each.

    Args:
        keys: cluster keys.
        since: seconds since 1970.
        seconds: time after which no more tables are opened; the latest come first.
    """
    written: list[tuple[float, str]] = []
    for key in keys:
        try:
            changed = find_table(layout.cluster_dir(key)).stat().st_mtime
        except OSError:
            continue  # not clustered, or not any more
        if changed >= since:
            written.append((changed, key))
    written.sort(reverse=True)
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    found: list[SubredditNews] = []
    for at, (_, key) in enumerate(written):
        if time.monotonic() > deadline:
            return CorpusNews(tuple(found), len(written) - at)
        news = read_news(layout, key, since=since)
        if news.nights:
            found.append(news)
    return CorpusNews(tuple(found))
