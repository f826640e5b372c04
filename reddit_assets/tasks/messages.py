"""What parent and child say to each other. All of it can be pickled."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reddit_assets.errors import Failure
from reddit_assets.ledger.job import Kind

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
]


@dataclass(frozen=True, slots=True)
class Task:
    """A claimed job as the child needs it.

    Attributes:
        key: partition key of the file, or cluster key of the subreddit.
        token: names the temporary files.
        force: make the output even if it is fresh.
        excluded: files that a cluster is made without.
        stamp: what the input looked like when the job was queued; of a cluster it also names the
            clustering settings.
        verify: rows to compute again and compare, instead of making the output.
    """

    kind: Kind
    key: str
    token: str
    job_id: str
    force: bool = False
    excluded: tuple[str, ...] = ()
    stamp: str = ""
    verify: int = 0


@dataclass(frozen=True, slots=True)
class Recall:
    """To the child: give back the tasks that you have not started."""


class Event:
    """From the child."""


@dataclass(frozen=True, slots=True)
class Ready(Event):
    """The engine is loaded and has checked itself.

    Attributes:
        facts: backend, device, precision, … for people to see.
    """

    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Broken(Event):
    """The child cannot work on this host; it ends."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Recalled(Event):
    """These tasks were not started and will not be."""

    tokens: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Started(Event):
    """The job is being read and computed from now on."""

    token: str


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """Rows done since the last such event."""

    token: str
    rows: int


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The outputs lie under their temporary names, synced; or they were fresh already.

    Attributes:
        files: temporary file and final name, in the order of publishing.
        data_version: of the output.
        source_version: content fingerprint of the chain file.
    """

    token: str
    files: tuple[tuple[Path, Path], ...]
    data_version: str
    source_version: str = ""
    outcome: str = "made"
    metadata: dict[str, Any] = field(default_factory=dict)
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """The attempt failed; its temporary files are gone."""

    token: str
    failure: Failure
