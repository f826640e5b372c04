"""What a sensor's tick gives and takes: sentences, and where to go on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Protocol

from dagster import DagsterInstance

__all__ = ["Cursor", "Service", "Tick"]


@dataclass(frozen=True, slots=True)
class Tick:
    """What a look came to.

    Attributes:
        sentences: what was found, done and left, and why; empty ones are left out.
        cursor: where the next look goes on, as the sensor keeps it.
    """

    sentences: list[str]
    cursor: str | None = None


class Service(Protocol):
    """What a sensor calls."""

    def tick(self, instance: DagsterInstance, cursor: str | None = None) -> Tick:
        """Look, do what is to be done, and say so.

        Args:
            cursor: what the last look returned.

        Raises:
            RedditAssetsError: settings, trees or Redis are not there.
        """


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a look at the disk goes on.

    Attributes:
        after: cluster key behind which the next look begins; ``None``: at the beginning.
        swept: when plain consumers' losses were last looked for.
        snapshot, generation: what of which snapshot Dagster has been told of.
    """

    after: str | None = None
    swept: float = 0.0
    snapshot: str = ""
    generation: int = 0

    @classmethod
    def parse(cls, text: str | None) -> Cursor:
        """From a sensor's cursor; an unreadable one counts as none."""
        try:
            record = json.loads(text or "{}")
            return cls(
                record.get("after"),
                float(record.get("swept", 0.0)),
                str(record.get("snapshot", "")),
                int(record.get("generation", 0)),
            )
        except (ValueError, TypeError, AttributeError):
            return cls()

    def text(self) -> str:
        """As a sensor's cursor."""
        return json.dumps(asdict(self))
