"""Which subreddits' chain files are to be made again, in groups that fit into memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from reddit_assets.corpus.oserrors import reading
from reddit_assets.ingest.journal import Journal
from reddit_assets.ingest.pieces import damaged
from reddit_assets.ingest.store import Record, Store

__all__ = ["GROUP_ROWS", "Group", "find_groups"]

GROUP_ROWS = 150_000
_GAP_ROWS = 30_000
"""Rows that are read beside those wanted, at most: row groups are read whole anyway."""


@dataclass(frozen=True)
class Group:
    """Consecutive subreddits; one alone if it is large.

    Attributes:
        places: their folders.
        digests: of each one's inputs.
        known: how many chunks of each there were; -1 if it is new.
        fresh: subreddits between them that are as they should be.
        ranges: rows in each dump, those of ``fresh`` as well.
        rows: all of these.
    """

    places: tuple[str, ...]
    digests: tuple[str, ...]
    known: tuple[int, ...]
    fresh: frozenset[str]
    ranges: tuple[tuple[int, int], ...]
    rows: int


@dataclass(frozen=True, slots=True)
class _Subreddit:
    """Its rows in each dump: number of the dump, first row, rows."""

    place: str
    digest: str
    parts: tuple[tuple[int, int, int], ...]
    rows: int
    fresh: bool


def find_groups(
    store: Store, records: Sequence[Record], journal: Journal, chains: Path
) -> tuple[list[Group], set[str]]:
    """The subreddits to make again, in groups; and all subreddits.

    Raises:
        BadFileError: the index of a dump is damaged.
    """
    groups: list[Group] = []
    held: list[_Subreddit] = []
    size = gap = 0  # rows in hand, and those at the end that need not be made
    places = set()

    def close() -> None:
        nonlocal size, gap
        while held and held[-1].fresh:
            held.pop()
        if held:
            groups.append(_group(held, len(records), journal))
        held.clear()
        size = gap = 0

    for subreddit in _subreddits(store, records, journal, chains):
        places.add(subreddit.place)
        if size + subreddit.rows > GROUP_ROWS:
            close()
        if subreddit.fresh and not held:
            continue
        held.append(subreddit)
        size += subreddit.rows
        gap = gap + subreddit.rows if subreddit.fresh else 0
        if gap > _GAP_ROWS:
            close()
    close()
    return groups, places


def _subreddits(
    store: Store, records: Sequence[Record], journal: Journal, chains: Path
) -> list[_Subreddit]:
    """All of them, in the order of their rows in the dumps' files."""
    inputs: dict[str, list[tuple[int, int, int, int]]] = {}
    for number, record in enumerate(records):
        path = store.index(record)
        with reading(path), damaged(path):
            index = pq.read_table(path).to_pydict()
        columns = (index["first"], index["rows"], index["digest"])
        for place, first, rows, digest in zip(index["place"], *columns, strict=True):
            inputs.setdefault(place, []).append((number, first, rows, digest))
    names = [f"{record.section}/{record.key}" for record in records]
    found = []
    for place in sorted(inputs, key=str.encode):
        parts = inputs[place]
        said = "\n".join(f"{names[number]}:{rows}:{digest}" for number, _, rows, digest in parts)
        digest = hashlib.blake2b(said.encode(), digest_size=12).hexdigest()
        found.append(
            _Subreddit(
                place,
                digest,
                tuple(part[:3] for part in parts),
                sum(part[2] for part in parts),
                journal.has(place, digest) and _all_there(chains / place, journal.chunks(place)),
            )
        )
    return found


def _all_there(folder: Path, chunks: int) -> bool:
    return all(
        os.path.exists(f"{folder}/chains_chunk_{number}.parquet") for number in range(chunks)
    )


def _group(held: Sequence[_Subreddit], dumps: int, journal: Journal) -> Group:
    first, rows = [0] * dumps, [0] * dumps
    for subreddit in held:
        for number, start, count in subreddit.parts:
            if not rows[number]:
                first[number] = start
            rows[number] += count
    wanted = [subreddit for subreddit in held if not subreddit.fresh]
    places = tuple(subreddit.place for subreddit in wanted)
    return Group(
        places,
        tuple(subreddit.digest for subreddit in wanted),
        tuple(journal.chunks(place) if journal.knows(place) else -1 for place in places),
        frozenset(subreddit.place for subreddit in held if subreddit.fresh),
        tuple((start, start + count) for start, count in zip(first, rows, strict=True)),
        sum(rows),
    )
