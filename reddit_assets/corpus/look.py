"""A look at the trees that lists only folders that may have changed, and keeps what it saw.

A folder is listed again when its times of change are others than at the last listing, when they
were too young then to be trusted, and in rotation: every folder within ``relist_seconds``, for
files that are overwritten in place and file systems whose folders' times lie. Small trees are
always looked at as a whole.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from reddit_assets.corpus.examine import CHUNK, examined, row_of, times_of
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.listing import Listing
from reddit_assets.corpus.shards import Shards
from reddit_assets.corpus.snapshot import Snapshot, SnapshotLostError
from reddit_assets.corpus.snapshot_rows import Known, Row, Shard

if TYPE_CHECKING:
    from reddit_assets.corpus.scan import Scanner

__all__ = ["LookPlan", "Looked", "Say", "look", "read_in_full"]

Say = Callable[[int, int], None]

_K = TypeVar("_K")


@dataclass(frozen=True, slots=True)
class LookPlan:
    """How much a look looks at.

    Attributes:
        whole: list every folder; ``None``: in trees of at most ``whole_files`` chain files.
        relist_seconds: within which every folder is listed.
        budget_seconds: stop after this time; the next look goes on. ``None``: to the end.
        patience_seconds: how long to wait for another process that looks, if there is an earlier
            look to go by; never longer than ``budget_seconds``. ``None``: until it has ended.
        max_age: do not look again if the last look began so many seconds ago or later.
        processes: that list folders, where there are many to list.
    """

    whole: bool | None = None
    whole_files: int = 50_000
    relist_seconds: float = 3600.0
    budget_seconds: float | None = None
    patience_seconds: float | None = None
    max_age: float = 0.0
    processes: int = 2


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look came to.

    Attributes:
        subreddits: those there are.
        listed: those whose folders were listed, and
        changed: those of them that differ from before.
        left: those for which the time did not suffice.
        whole: whether all were to be listed.
        reused: whether an earlier look was recent enough,
        busy: or had to do, since another process looks just now.
    """

    subreddits: int = 0
    listed: int = 0
    changed: int = 0
    left: int = 0
    whole: bool = True
    reused: bool = False
    busy: bool = False
    seconds: float = 0.0


def look(scanner: Scanner, snapshot: Snapshot, plan: LookPlan, say: Say | None = None) -> Looked:
    """Bring ``snapshot`` up to date. One that is damaged or cannot be kept is made again.

    Safe to interrupt at any moment: what was seen until then is kept.

    Args:
        say: takes how many subreddits of how many have been listed.

    Raises:
        UnreadableFileError: a root cannot be listed.
        WriteError: what is seen can be kept nowhere.
    """
    while True:
        try:
            return _look_alone(scanner, snapshot, plan, say)
        except SnapshotLostError as lost:
            snapshot.recover(lost)


def _look_alone(scanner: Scanner, snapshot: Snapshot, plan: LookPlan, say: Say | None) -> Looked:
    judge = scanner.canonical()
    if _recent(judge, snapshot, plan):
        return Looked(whole=False, reused=True)
    patience = plan.budget_seconds
    if plan.patience_seconds is not None and snapshot.looked_at:
        patience = min(plan.patience_seconds, math.inf if patience is None else patience)
    with snapshot.writing(patience) as alone:
        if not alone:
            return Looked(whole=False, reused=True, busy=True)
        if _recent(judge, snapshot, plan):
            return Looked(whole=False, reused=True)
        return _look(scanner, judge, snapshot, plan, say)


def _recent(judge: Scanner, snapshot: Snapshot, plan: LookPlan) -> bool:
    """Whether the last look will do."""
    return (
        0 <= time.time() - snapshot.looked_at < plan.max_age
        and snapshot.judged_by == judge.judged_by
        and snapshot.looked_for in ("", judge.filter_id)
    )


def _look(
    scanner: Scanner, judge: Scanner, snapshot: Snapshot, plan: LookPlan, say: Say | None
) -> Looked:
    began, wall = time.monotonic(), time.time()
    files, whole = snapshot.files(), plan.whole
    since = wall - (snapshot.looked_at or wall)
    if whole is None:
        whole = snapshot.times_lie or files <= plan.whole_files
    if plan.whole is None and 0 < files <= plan.whole_files:
        keys = scanner.subreddits()
    else:
        keys = _subreddits(scanner, snapshot, plan, wall, None if whole else since)
    known = snapshot.known()
    if (wanted := scanner.wanted) is not None:
        known = {key: row for key, row in known.items() if wanted(key)}
    gone = known.keys() - set(keys)
    if gone:
        snapshot.forget(gone)
    generation = snapshot.next_generation()
    if snapshot.judged_by != judge.judged_by:
        _judge_again(judge, snapshot, generation)
    due = set() if whole else _due(known, wall, since, plan.relist_seconds)
    todo = [key for key in keys if whole or _stale(scanner.layout, key, known.get(key), due)]
    if plan.budget_seconds is not None:  # what was listed longest ago comes first
        todo.sort(key=lambda key: known[key].listed_at if key in known else 0.0)
    listed = changed = 0
    with closing(examined(judge, snapshot, known, todo, plan.processes)) as found:
        for rows, lies in found:
            changed += snapshot.write(rows, generation, judge.judged_by)
            listed += len(rows)
            if lies:
                snapshot.put(lied_at=wall)
            if say is not None:
                say(listed, len(todo))
            spent = time.monotonic() - began
            if plan.budget_seconds is not None and spent > plan.budget_seconds:
                break
    seconds = time.monotonic() - began
    left = len(todo) - listed
    if not left:
        snapshot.put(looked_at=wall, look_seconds=seconds, looked_for=judge.filter_id)
    snapshot.put(generation=generation)
    return Looked(len(keys), listed, changed, left, whole, seconds=seconds)


def _subreddits(
    scanner: Scanner, snapshot: Snapshot, plan: LookPlan, now: float, since: float | None
) -> list[str]:
    """All subreddits, by the times of the shards' folders.

    Args:
        since: seconds since the last look; ``None`` lists every folder.
    """
    known = snapshot.shards()
    due = known.keys() if since is None else _due(known, now, since, plan.relist_seconds)
    shards = Shards(known, due)
    keys = scanner.subreddits(shards)
    gone = known.keys() - shards.there
    if shards.found or gone:
        snapshot.write_shards(shards.found, gone)
    if shards.lied:
        snapshot.put(lied_at=now)
    return keys


def _judge_again(judge: Scanner, snapshot: Snapshot, generation: int) -> None:
    """New verdicts from what is known, without opening an output."""
    snapshot.put(judged_by="")  # until all are judged again, they are by neither
    rows: list[Row] = []
    nothing = Known(b"", trusted=False, listed_at=0.0)
    for key, _, packed in snapshot.seen(judged=False):
        listing = Listing.unpack(key, packed or b"")
        rows.append(row_of(key, nothing, judge.judge(listing), listing, None))
        if len(rows) >= CHUNK:
            snapshot.rejudge(rows, generation)
            rows = []
    snapshot.rejudge(rows, generation)
    snapshot.put(judged_by=judge.judged_by)


def _due(known: Mapping[_K, Known | Shard], now: float, since: float, interval: float) -> set[_K]:
    """Whose turn it is: the share of the interval that has passed, and all that are overdue."""
    share = math.ceil(len(known) * min(1.0, max(0.0, since) / interval))
    oldest = heapq.nsmallest(share, known, key=lambda key: known[key].listed_at)
    late = (k for k, row in known.items() if not now - interval < row.listed_at <= now)
    return {*oldest, *late}


def _stale(layout: Layout, key: str, known: Known | None, due: set[str]) -> bool:
    return known is None or not known.trusted or key in due or times_of(layout, key) != known.times


def read_in_full(scanner: Scanner, snapshot: Snapshot, share: float, processes: int) -> int:
    """Read rows and columns of outputs: of those that have changed since, and of a share of all.

    What is wrong with them stays in the snapshot, until they change. Clustered files record no
    number of rows: of them only what pyarrow needs to open them is read.

    Returns:
        The number of subreddits whose outputs were read.
    """
    judge = scanner.canonical()
    judge.options = replace(judge.options, deep=True)
    try:
        todo = snapshot.to_read_in_full(share, scanner.wanted)
        with closing(examined(judge, snapshot, snapshot.known(), todo, processes)) as found:
            for rows, _ in found:
                # Others look in between: a row that was read before theirs has other times than
                # the folder then, and is listed again.
                with snapshot.writing():
                    generation = snapshot.next_generation()
                    snapshot.write(rows, generation, judge.judged_by)
                    snapshot.put(generation=generation)
    except SnapshotLostError as lost:
        snapshot.recover(lost)
        return 0
    return len(todo)
