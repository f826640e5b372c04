"""Signals that stop a worker, and its patience with Redis until then."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from reddit_assets.errors import QueueFullError, QueueUnavailableError
from reddit_assets.worker.display import Display

__all__ = ["LONGEST_WAIT", "Stop"]

_T = TypeVar("_T")

# Waits between tries while Redis is away: doubled from the first to the second.
_FIRST_WAIT, LONGEST_WAIT = 0.2, 5.0


class Stop:
    """Whether a worker is told to stop: after the current job, or at once.

    Args:
        idle: whether the worker has nothing in hand.
    """

    def __init__(self, display: Display, idle: Callable[[], bool]) -> None:
        self._display = display
        self._idle = idle
        self._signals = 0
        self._wake = threading.Event()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM within the block asks to stop, a second one at once."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        previous = {number: signal.signal(number, self._signalled) for number in numbers}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        self._wake.set()

    @property
    def asked(self) -> bool:
        """Whether to stop, after the current job at the latest."""
        return self._signals > 0

    @property
    def at_once(self) -> bool:
        """Whether to give everything back now."""
        return self._signals > 1

    def wait(self, seconds: float) -> None:
        """Sleep; a signal ends it."""
        self._wake.wait(seconds)

    def patiently(self, step: Callable[[], _T], *, then: _T | None = None) -> _T | None:
        """Do a step against Redis, waiting until it is there.

        Returns:
            What the step returns; ``then`` if the worker is told to stop at once meanwhile.
        """
        wait, said = _FIRST_WAIT, False
        while True:
            try:
                answer = step()
                if said:
                    self._display.note("Redis is back.")
                return answer
            except (QueueUnavailableError, QueueFullError) as error:
                if not said:
                    self._display.warn(f"{error} Waiting for it.")
                    said = True
                if self.at_once:
                    return then
                self._wake.clear()
                self._wake.wait(wait)
                wait = min(wait * 2, LONGEST_WAIT)
                if self.asked and self._idle():
                    return then
