"""Progress of a command: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["Bar", "live_line", "note", "printer", "progress"]

PLAIN_SECONDS = 5.0
PLAIN_WIDTH = 130


class Bar:
    """Where a command reports its steps. Both kinds write to standard error."""

    def step(self, text: str, count: int = 1) -> None:
        """``count`` more are done, the latest being ``text``."""
        raise NotImplementedError


class _Live(Bar):
    def __init__(self, bars: Progress, title: str, total: int | None) -> None:
        self._bars = bars
        self._task = bars.add_task(title, total=total, current="")

    def step(self, text: str, count: int = 1) -> None:
        self._bars.update(self._task, advance=count, current=text)


class _Plain(Bar):
    def __init__(self, title: str, total: int | None) -> None:
        self._title, self._total = title, total
        self._done = 0
        self._said = time.monotonic()

    def step(self, text: str, count: int = 1) -> None:
        self._done += count
        if self._done == self._total or time.monotonic() - self._said >= PLAIN_SECONDS:
            self._said = time.monotonic()
            of = "" if self._total is None else f" of {self._total:,}"
            note(f"{self._title}: {self._done:,}{of} ({text})")


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator[Bar]:
    """A bar of ``total`` steps, or of unknown length."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Plain(title, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[current]}"),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        yield _Live(bars, title, total)


@contextmanager
def live_line() -> Iterator[tuple[Callable[[str], None], Callable[[str], None] | None]]:
    """How to say a sentence and, in a terminal, how to show a line that is written over.

    Elsewhere there is no such line (``None``).
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield note, None
        return
    with console.status("Starting …") as status:
        yield (
            lambda text: console.print(text, markup=False),
            lambda text: status.update(escape(text)),
        )


def note(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


def printer() -> Console:
    """For tables on standard output: as wide as the terminal, and wide in a file or pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)
