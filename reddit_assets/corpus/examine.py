"""Subreddits as a look finds them: folders listed, outputs judged, on several processes if many."""

from __future__ import annotations

import gc
import struct
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TYPE_CHECKING

from reddit_assets.corpus.kept import pack_status
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.listing import Listing, read_listing
from reddit_assets.corpus.shards import folder_times, is_trusted
from reddit_assets.corpus.snapshot import Snapshot
from reddit_assets.corpus.snapshot_rows import Known, Row
from reddit_assets.corpus.texts import MOSTLY
from reddit_assets.corpus.verdicts import SubredditStatus, Verdict

if TYPE_CHECKING:
    from reddit_assets.corpus.scan import Scanner

__all__ = ["CHUNK", "examined", "row_of", "times_of"]

CHUNK = 250
"""Subreddits that are looked at together."""

# From how many on further processes help: each takes a second to start.
_MANY = 5_000


def times_of(layout: Layout, key: str) -> bytes:
    """Times of change of a subreddit's folders in the three trees."""
    return struct.pack(
        "6q",
        *folder_times(f"{layout.chains}/{key}"),
        *folder_times(f"{layout.embeddings}/{key}"),
        *folder_times(f"{layout.clusters}/{key}"),
    )


_Task = tuple[str, Known | None, bytes | None]


def examined(
    judge: Scanner,
    snapshot: Snapshot,
    known: dict[str, Known],
    todo: Sequence[str],
    processes: int,
) -> Generator[tuple[list[Row], bool], None, None]:
    """What is found, chunk by chunk, and whether a folder's time was seen to lie."""

    def chunks() -> Iterator[list[_Task]]:
        for start in range(0, len(todo), CHUNK):
            keys = todo[start : start + CHUNK]
            before = snapshot.packed([key for key in keys if key in known])
            yield [(key, known.get(key), before.get(key)) for key in keys]

    if len(todo) < _MANY or processes < 2:
        for chunk in chunks():
            yield _examine(judge, chunk)
        return
    try:
        # Not fork: a code server has threads.
        pool = ProcessPoolExecutor(processes, get_context("spawn"), gc.disable)
    except OSError:  # no semaphores
        yield from (_examine(judge, chunk) for chunk in chunks())
        return
    with pool:
        yield from _in_order(pool, judge, chunks(), 2 * processes + 1)


def _in_order(
    pool: ProcessPoolExecutor, judge: Scanner, chunks: Iterable[list[_Task]], ahead: int
) -> Generator[tuple[list[Row], bool], None, None]:
    """Chunks examined by the pool; here, where no process can be started or one died."""
    waiting: deque[tuple[list[_Task], Future[tuple[list[Row], bool]]]] = deque()
    broken = False

    def first() -> tuple[list[Row], bool]:
        nonlocal broken
        chunk, future = waiting.popleft()
        try:
            return future.result()
        except BrokenProcessPool:
            broken = True
            return _examine(judge, chunk)

    try:
        for chunk in chunks:
            if not broken:
                try:
                    waiting.append((chunk, pool.submit(_examine_apart, judge, chunk)))
                except (BrokenProcessPool, OSError):
                    broken = True
            while waiting and (broken or len(waiting) >= ahead):
                yield first()
            if broken:
                yield _examine(judge, chunk)
        while waiting:
            yield first()
    finally:
        for _, future in waiting:
            future.cancel()


def _examine_apart(judge: Scanner, tasks: Sequence[_Task]) -> tuple[list[Row], bool]:
    """In a process without automatic collection, which would walk a chunk's rows again and again.

    Readers of parquet are cycles: a night at a million files kept 1 GB of them.
    """
    done = _examine(judge, tasks)
    gc.collect(0)  # what was made since the last one
    return done


def _examine(judge: Scanner, tasks: Sequence[_Task]) -> tuple[list[Row], bool]:
    rows, lies = [], False
    for key, known, before in tasks:
        row, lied = _examine_one(judge, key, known, before)
        rows.append(row)
        lies |= lied
    return rows, lies


def _examine_one(
    judge: Scanner, key: str, known: Known | None, before: bytes | None
) -> tuple[Row, bool]:
    now = time.time()
    times = times_of(judge.layout, key)
    former = None if before is None else Listing.unpack(key, before)
    listing = read_listing(judge.layout, key, former, deep=judge.options.deep)
    status = judge.judge(listing)
    packed = listing.pack()
    same_times = known is not None and known.times == times
    trusted = not listing.troubled and is_trusted(known, times, now)
    # Where nothing interfered: a file may come between our look at the times and the listing, and
    # what cannot be listed looks empty.
    lied = (
        known is not None
        and known.trusted
        and same_times
        and former is not None
        and not (listing.troubled or former.troubled)
        and times_of(judge.layout, key) == times
        and (former.chains.keys(), former.made.keys())
        != (listing.chains.keys(), listing.made.keys())
    )
    new = None if packed == before else packed
    return row_of(key, Known(times, trusted, now), status, listing, new, judge.options.deep), lied


def row_of(
    key: str,
    known: Known,
    status: SubredditStatus,
    listing: Listing,
    packed: bytes | None,
    deep: bool = False,
) -> Row:
    """A subreddit for the snapshot.

    Args:
        packed: its listing; ``None`` if it is as it was.
        deep: whether its outputs were read in full.
    """
    verdicts = [file.verdict for file in status.files]
    fresh, adopted = verdicts.count(Verdict.FRESH), verdicts.count(Verdict.ADOPTED)
    cluster = status.cluster.verdict if status.cluster is not None else None
    done = fresh + adopted == len(verdicts) and (cluster is None or cluster.done)
    empty = any(file.empty_texts > MOSTLY for file in status.files)
    more = listing.noteworthy or listing.troubled or not verdicts
    is_open = not done or empty or more
    kept = is_open and not (more or listing.passed.litter)
    return Row(
        key,
        known,
        packed,
        pack_status(status) if kept else None,
        is_open,
        len(verdicts),
        fresh,
        adopted,
        int(cluster is Verdict.FRESH),
        int(cluster is Verdict.ADOPTED),
        sum(stamp.size for stamp in listing.chains.values()),
        listing.passed.litter,
        deep,
    )
