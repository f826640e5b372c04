"""What does not agree within a queue, or between a queue and the disk; and putting it right.

Each step decides again, in one script, at the moment of mending: on a busy queue a difference that
has gone by then is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import redis

from reddit_assets.errors import RedditAssetsError
from reddit_assets.ledger.connection import redis_errors
from reddit_assets.ledger.intake import id_of_line, unlisted
from reddit_assets.ledger.job import Lane, partition_of
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.ledger.scripts import chunks

__all__ = ["Difference", "mend_queue"]

_SETS = ("queued", "delayed", "leases", "dead")


@dataclass(frozen=True, slots=True)
class Difference:
    """What does not agree.

    Attributes:
        where: a kind of jobs, or Dagster.
        said: what it is, about ``keys``.
        mending: what is done about it.
    """

    where: str
    said: str
    mending: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    key: str
    state: str
    lane: str
    id: str
    free: bool  # awaited by no run, and not forced


def mend_queue(
    queue: JobQueue,
    unwanted: Callable[[str], bool],
    *,
    dry_run: bool,
    lost_seconds: float,
    retry_seconds: float,
) -> Iterator[Difference]:
    """Differences within a queue, and jobs that nobody needs any more.

    Args:
        unwanted: whether a key's output is there, or its input is gone.
        dry_run: only look.
        lost_seconds: a job taken by a plain consumer counts as lost after so long.
        retry_seconds: as of ``JobQueue.reap``.
    """

    def found(said: str, mending: str, keys: Iterable[str]) -> Iterator[Difference]:
        if ordered := tuple(sorted(keys)):
            yield Difference(queue.kind.value, said, mending, ordered)

    yield from found(
        "entries that are not where their state says",
        "put in their place",
        _misplaced(queue, mend=not dry_run),
    )
    expired = _due(queue, "leases")
    yield from found("leases that ran out and nobody took back", "queued again", expired)
    due = _due(queue, "delayed")
    yield from found("jobs whose wait is over and nobody queued", "queued", due)
    if not dry_run:
        for _ in range(0, len(expired) + len(due), 500):
            queue.reap(retry_seconds=retry_seconds)
    entries = list(_entries(queue))
    gone = {
        entry.key: entry.id
        for entry in entries
        if entry.state in ("queued", "delayed") and entry.free and _sure(unwanted, entry.key)
    }
    yield from found("jobs whose outputs are there or whose inputs are gone", "removed", gone)
    if not dry_run:
        queue.close(gone)
    lost = _lost(queue, entries, lost_seconds)
    lost = {key: job_id for key, job_id in lost.items() if key not in gone}
    yield from found("queued jobs whose copies are in no list", "pushed again", lost)
    if not dry_run:
        for chunk in chunks(lost.items()):
            queue.run_script("repush", *(part for pair in chunk for part in pair))
    forgotten = [
        entry.key
        for entry in entries
        if entry.state == "dead" and partition_of(entry.key) and _sure(unwanted, entry.key)
    ]
    yield from found("dead letters that no longer matter", "removed", forgotten)
    if not dry_run:
        queue.purge(forgotten)


def _sure(unwanted: Callable[[str], bool], key: str) -> bool:
    """Whether it is surely unwanted; what cannot be judged now stays."""
    try:
        return unwanted(key)
    except RedditAssetsError:
        return False


def _entries(queue: JobQueue) -> Iterator[_Entry]:
    members = [key for name in _SETS for key in _members(queue, name)]
    for key, (state, lane, job_id, runs, force) in queue.fields(
        members, "state", "lane", "id", "runs", "force"
    ):
        if state is not None:
            free = not (runs or "").strip() and force != "1"
            yield _Entry(key, state, lane or Lane.PUBLIC, job_id or "", free)


def _members(queue: JobQueue, name: str) -> list[str]:
    with redis_errors(queue.client):
        return list(queue.client.zrange(f"{queue.prefix}{name}", 0, -1))


def _misplaced(queue: JobQueue, *, mend: bool) -> list[str]:
    """Members of sets without an entry, and entries in the wrong set or in none."""
    prefix = f"{queue.prefix}job:"
    keys = {key for name in _SETS for key in _members(queue, name)}
    with redis_errors(queue.client), suppress(redis.exceptions.NoPermissionError):
        # A worker's account may not list keys: entries that are in no set then stay unseen.
        names = queue.client.scan_iter(match=f"{prefix}*", count=5000)
        keys |= {name.removeprefix(prefix) for name in names}
    flag = "1" if mend else "0"
    return [key for chunk in chunks(sorted(keys)) for key in queue.run_script("mend", flag, *chunk)]


def _due(queue: JobQueue, name: str) -> list[str]:
    """Members whose time is over by more than the reaper's usual pause."""
    with redis_errors(queue.client):
        seconds, _ = queue.client.time()
        horizon = (seconds - 1) * 1000
        return list(queue.client.zrangebyscore(f"{queue.prefix}{name}", "-inf", horizon))


def _lost(queue: JobQueue, entries: Iterable[_Entry], lost_seconds: float) -> dict[str, str]:
    """Ids by key of queued jobs whose copies are in no list."""
    lanes: dict[str, dict[str, str]] = {}
    for entry in entries:
        if entry.state == "queued" and entry.lane != Lane.PUBLIC:
            lanes.setdefault(entry.lane, {})[entry.key] = entry.id
    lost = unlisted(queue, lost_seconds)
    for lane, ids in lanes.items():
        with redis_errors(queue.client):
            lines = queue.client.lrange(f"{queue.prefix}lane:{lane}", 0, -1)
        there = {id_of_line(line) if line.startswith("{") else line[:16] for line in lines}
        missing = {key: job_id for key, job_id in ids.items() if job_id not in there}
        # Taken by a worker since we read the entries: no longer queued.
        for key, (state, job_id) in queue.fields(missing, "state", "id"):
            if state == "queued" and job_id == missing[key]:
                lost[key] = missing[key]
    return lost
