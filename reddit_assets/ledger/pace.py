"""How fast a queue's jobs get done, from the samples of its counters that the reaper keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Pace", "Sample"]

# As `reap.lua` writes them.
_COUNTERS = ("done", "failed", "rows", "tokens", "bytes", "milliseconds")


@dataclass(frozen=True, slots=True)
class Sample:
    """The counters at one moment.

    Attributes:
        at: seconds since 1970, by the server's clock.
        bytes: of the inputs of jobs that were done.
        milliseconds: of computing.
    """

    at: float
    done: int = 0
    failed: int = 0
    rows: int = 0
    tokens: int = 0
    bytes: int = 0
    milliseconds: int = 0

    @classmethod
    def parse(cls, line: str) -> Sample:
        """From a line of the list ``samples``."""
        at, *numbers = line.split()
        return cls(int(at) / 1000, *(int(number) for number in numbers[: len(_COUNTERS)]))

    @classmethod
    def of(cls, at: float, totals: Mapping[str, int]) -> Sample:
        """From a queue's counters as they are now."""
        return cls(at, *(totals.get(name, 0) for name in _COUNTERS))


@dataclass(frozen=True, slots=True)
class Pace:
    """What was done in a span of time.

    Attributes:
        seconds: length of the span; 0 if nothing is known of it.
        bytes: of the inputs of jobs that were done.
    """

    seconds: float = 0.0
    done: int = 0
    failed: int = 0
    rows: int = 0
    tokens: int = 0
    bytes: int = 0

    def per_second(self, name: str) -> float:
        """``done``, ``rows``, ``tokens`` or ``bytes`` per second; 0 if nothing is known."""
        return getattr(self, name) / self.seconds if self.seconds > 0 else 0.0

    @classmethod
    def between(cls, samples: Sequence[Sample], now: Sample, *, window: float) -> Pace:
        """Over the last ``window`` seconds, without an idle time at its beginning."""
        known = [*(s for s in samples if now.at - window <= s.at <= now.at), now]
        begin = known[0]
        for earlier, later in pairwise(known):
            begin = earlier
            if later.done != earlier.done or later.failed != earlier.failed:
                break
        # Counters fall when the queue is made again; the samples fall with it, except by chance.
        differences = (max(0, getattr(now, name) - getattr(begin, name)) for name in _COUNTERS[:-1])
        return cls(now.at - begin.at, *differences)
