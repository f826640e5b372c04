"""The nights of a subreddit's clusters, as ``clusters.table`` records them.

A night is one clustering that was published. Its record holds counts of posts that came and went;
what is news of them is decided when it is read (:mod:`.news`), so any number of nights can be
summed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reddit_assets.corpus.cluster_table import find_table
from reddit_assets.corpus.provenance import PROVENANCE_KEY

__all__ = ["EXAMPLE", "Before", "ClusterBefore", "Night", "kept_nights", "moment", "read_before"]

#: Nights that a table keeps, and the letters of JSON that they may take; the oldest go first.
NIGHTS, LETTERS = 30, 400_000
#: Letters of an example.
EXAMPLE = 140


def moment(at: float) -> str:
    """Seconds since 1970 as programs and people read them: ISO 8601, UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True)
class ClusterBefore:
    """A cluster as the table has it: what the next night compares with."""

    name: str
    size: int
    keywords: tuple[str, ...] = ()
    example: str = ""


@dataclass(frozen=True)
class Night:
    """A night's record.

    Attributes:
        at: when, seconds since 1970.
        rows: posts, those of no cluster included.
        new, lost: posts that came and that vanished.
        full: all rows were clustered, instead of new ones placed.
        moved_share: of the posts of both nights; ``None`` where there was no night before.
        counts: posts before, posts now, new and lost ones, by cluster id; where any came or went.
        fates: what became of clusters that do not just continue: fate and parents, by id.
        before: name and posts of clusters that are no more or are parents, by id.
        examples: a post of clusters that are news, by id: a new one where there is one.
    """

    at: float
    rows: int
    new: int = 0
    lost: int = 0
    full: bool = True
    moved_share: float | None = None
    counts: Mapping[int, tuple[int, int, int, int]] = field(default_factory=dict)
    fates: Mapping[int, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    before: Mapping[int, ClusterBefore] = field(default_factory=dict)
    gone: tuple[int, ...] = ()
    examples: Mapping[int, str] = field(default_factory=dict)

    @property
    def first(self) -> bool:
        """Whether there was nothing to compare with."""
        return self.moved_share is None

    def facts(self) -> dict[str, Any]:
        """What a program is shown of the night as a whole."""
        return {**self._plain(), "at": moment(self.at)}

    def _plain(self) -> dict[str, Any]:
        names = ("at", "rows", "new", "lost", "full", "moved_share")
        return {name: getattr(self, name) for name in names}

    def to_json(self) -> dict[str, Any]:
        """Short: a table of thousands of clusters keeps thirty nights."""
        return {
            **self._plain(),
            "counts": [[number, *four] for number, four in self.counts.items()],
            "fates": [[number, fate, list(of)] for number, (fate, of) in self.fates.items()],
            "before": [[n, one.name, one.size, one.example] for n, one in self.before.items()],
            "gone": list(self.gone),
            "examples": [[number, text] for number, text in self.examples.items()],
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Night:
        """Raises KeyError, TypeError, ValueError: it is no night's record."""
        moved = said["moved_share"]
        return cls(
            at=float(said["at"]),
            rows=int(said["rows"]),
            new=int(said["new"]),
            lost=int(said["lost"]),
            full=bool(said["full"]),
            moved_share=None if moved is None else float(moved),
            counts={int(n): (int(a), int(b), int(c), int(d)) for n, a, b, c, d in said["counts"]},
            fates={int(n): (str(fate), tuple(map(int, of))) for n, fate, of in said["fates"]},
            before={
                int(n): ClusterBefore(str(name), int(size), example=str(example))
                for n, name, size, example in said["before"]
            },
            gone=tuple(map(int, said["gone"])),
            examples={int(number): str(text) for number, text in said["examples"]},
        )


def kept_nights(nights: Sequence[Night]) -> list[dict[str, Any]]:
    """The latest nights as JSON, as many as a table keeps."""
    kept: list[dict[str, Any]] = []
    letters = 0
    for night in reversed(nights[-NIGHTS:]):
        said = night.to_json()
        letters += len(json.dumps(said))
        if kept and letters > LETTERS:
            break
        kept.append(said)
    return kept[::-1]


@dataclass(frozen=True)
class Before:
    """What a subreddit's table holds.

    Attributes:
        rows: posts, those of no cluster included.
        nights: the oldest first; none in a table of an earlier version.
        clusters: by id.
        named: how and for what the clusters were named, as the table has it.
    """

    rows: int = 0
    nights: tuple[Night, ...] = ()
    clusters: Mapping[int, ClusterBefore] = field(default_factory=dict)
    named: Mapping[str, Any] = field(default_factory=dict)


def read_before(folder: Path) -> Before:
    """What the table in a subreddit's folder says; nothing where there is none of ours."""
    names = ["cluster_id", "name", "size", "keywords", "representative_texts"]
    try:
        table = pq.read_table(find_table(folder), columns=names)
        said = json.loads((table.schema.metadata or {})[PROVENANCE_KEY])
        nights = tuple(Night.from_json(night) for night in said.get("nights", []))
        rows = int(said["rows"])
        clusters = {
            row["cluster_id"]: ClusterBefore(
                row["name"],
                row["size"],
                tuple(row["keywords"]),
                row["representative_texts"][0][:EXAMPLE] if row["representative_texts"] else "",
            )
            for row in table.to_pylist()
        }
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return Before()
    return Before(rows, nights, clusters, said.get("named") or {})
