"""What a sensor's tick gives and takes: sentences, and where to go on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from dagster import DagsterInstance

if TYPE_CHECKING:
    from reddit_assets.corpus.scan import Scanner
    from reddit_assets.workspace import Workspace

__all__ = ["Cursor", "Place", "Service", "Tick"]


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
class Place:
    """Where telling Dagster of changes goes on.

    Attributes:
        seen_by: what has seen the changes.
        since: Dagster has everything up to this generation of it.
        until: the generation that the pass in progress began at.
        after: the subreddit after which that pass goes on; ``None``: none is in progress.
        open_ends: it has met what has to be told again.
    """

    seen_by: str = ""
    since: int = 0
    until: int = 0
    after: str | None = None
    open_ends: bool = False

    @classmethod
    def parse(cls, record: object) -> Place:
        """From JSON or a record of it; an unreadable one is the beginning."""
        try:
            record = json.loads(record) if isinstance(record, str) else record
            return cls(**record) if isinstance(record, dict) else cls()
        except (ValueError, TypeError):
            return cls()

    def begun(self, workspace: Workspace, scanner: Scanner) -> Place:
        """This place, with a pass in progress.

        What another snapshot has seen, with other buckets or another filter, is told wholly: other
        buckets are other assets, and a wider filter has subreddits that were seen long ago.
        """
        snapshot = scanner.look()
        seen_by = f"{snapshot.id}{workspace.buckets.id}{scanner.filter_id}"
        place = self if self.seen_by == seen_by else Place(seen_by)
        return place if place.after is not None else replace(place, until=snapshot.generation)

    def moved(self, after: str | None, *, open_ends: bool = False) -> Place:
        """Where a pass goes on that got to the subreddit ``after``; ``None``: to its end."""
        open_ends = open_ends or self.open_ends
        if after is not None:
            return replace(self, after=after, open_ends=open_ends)
        return Place(self.seen_by, self.since if open_ends else self.until)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a look at the disk goes on.

    Attributes:
        after: cluster key behind which the next look begins; ``None``: at the beginning.
        swept: when plain consumers' losses were last looked for.
        told: which changes Dagster has been told of.
    """

    after: str | None = None
    swept: float = 0.0
    told: Place = field(default_factory=Place)

    @classmethod
    def parse(cls, text: str | None) -> Cursor:
        """From a sensor's cursor; an unreadable one counts as none."""
        try:
            record = json.loads(text or "{}")
            return cls(
                record.get("after"),
                float(record.get("swept", 0.0)),
                Place.parse(record.get("told")),
            )
        except (ValueError, TypeError, AttributeError):
            return cls()

    def text(self) -> str:
        """As a sensor's cursor."""
        return json.dumps(asdict(self))
