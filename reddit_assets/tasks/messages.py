"""What a worker's parent and its computing child say to each other. All of it can be pickled.

The parent sends claims (:class:`~reddit_assets.ledger.job.Claim`), :class:`Recall`, and ``None`` to
end the child; the child answers with events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from reddit_assets.errors import Failure
from reddit_assets.ledger.job import Claim, Result

__all__ = [
    "Broken",
    "Event",
    "Failed",
    "Finished",
    "Progress",
    "Ready",
    "Recall",
    "Recalled",
    "Started",
    "Task",
    "one_by_one",
]


class Task(Protocol):
    """Computes the jobs of one kind, in the child.

    Attributes:
        silent: whether it may compute for longer than the stall limit without saying anything.
            Its life is then judged by the processor time that it uses.
    """

    silent: ClassVar[bool]

    def facts(self) -> dict[str, object]:
        """Backend, device, versions, … for people to see; ``model``: its fingerprint, if any."""
        ...

    def run(self, claims: Iterator[Claim | None], emit: Callable[[Event], None]) -> None:
        """Work until ``claims`` ends.

        ``claims`` yields ``None``, again and again, while no claim is waiting: finish what is in
        hand. Every claim ends in one ``Finished`` or ``Failed`` event.
        """
        ...


@dataclass(frozen=True, slots=True)
class Recall:
    """To the child: give back the claims that you have not started."""


class Event:
    """From the child."""


@dataclass(frozen=True, slots=True)
class Ready(Event):
    """The engine is loaded and has checked itself. ``facts`` and ``silent`` are its task's."""

    facts: dict[str, Any]
    silent: bool


@dataclass(frozen=True, slots=True)
class Broken(Event):
    """The child cannot work on this host; it ends."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Recalled(Event):
    """These claims were not started and will not be."""

    tokens: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Started(Event):
    """The job is being read and computed from now on."""

    token: str


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """Rows done since the last such event; none: the job is being read or checked."""

    token: str
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The outputs lie under their temporary names, synced; or they were fresh already.

    Attributes:
        files: temporary file and final name, in the order of publishing; empty if nothing was made.
        result: what is acknowledged once the files are published.
        seconds: of computing.
    """

    token: str
    result: Result
    files: tuple[tuple[Path, Path], ...] = ()
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """The attempt failed; its temporary files are gone."""

    token: str
    failure: Failure


def one_by_one(
    claims: Iterator[Claim | None],
    emit: Callable[[Event], None],
    make: Callable[[Claim], Finished],
) -> None:
    """:meth:`Task.run` of a task that has one job in hand at a time.

    Args:
        make: does a job; what it raises is the job's failure.
    """
    for claim in claims:
        if claim is None:
            continue
        emit(Started(claim.token))
        try:
            emit(make(claim))
        except Exception as error:
            emit(Failed(claim.token, Failure.of(error)))
