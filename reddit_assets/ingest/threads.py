"""Threads from messages: which is whose parent, how deep, in what order. Arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Messages", "Threads", "build"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Messages:
    """Messages of whole threads, any order, doubles included; each array of shape (rows,).

    Attributes:
        thread: number of the thread; two threads never share one.
        kind: 0 a submission, 1 a comment.
        section: number of the section of the dump that it is from.
        num: id, unique among the submissions and among the comments of a thread, doubles apart.
        parent: of a comment, ``num`` of the comment it answers; -1 the submission; -2 neither.
        retrieved: when it was last looked at: of doubles the latest wins, then the later row.
    """

    thread: Ints
    kind: Ints
    section: Ints
    created: Ints
    num: Ints
    parent: Ints
    retrieved: Ints


@dataclass(frozen=True)
class Threads:
    """The messages without doubles, in the order of thread, section, kind, time and id.

    Attributes:
        rows: which of the given rows each is.
        section: the first section that has the message.
        above: place in these arrays of the parent; -1 of a root.
        depth: 0 of a root.
        position: place in its thread.
        size: messages of the thread up to the end of the section.
        orphans: comments whose parent was never seen; they are roots.
        doubles: rows that were left out.
    """

    rows: Ints
    section: Ints
    above: Ints
    depth: Ints
    position: Ints
    size: Ints
    orphans: NDArray[np.bool_]
    doubles: int


def build(given: Messages) -> Threads:
    """Leave out doubles, find parents, and measure depths and positions.

    A parent must be in the same section or an earlier one: what a later month brings changes no
    earlier row. Where messages are each other's ancestors, the oldest of them is a root.
    """
    rows, section = _without_doubles(given)
    created, num, kind = given.created[rows], given.num[rows], given.kind[rows]
    order = np.lexsort((num, created, kind, section, given.thread[rows]))
    rows, section = rows[order], section[order]
    thread, kind = given.thread[rows], given.kind[rows]
    above = _parents(thread, kind, given.num[rows], given.parent[rows])
    later = (above >= 0) & (section[above] > section)
    above[later] = -1
    depth = _depths(above, given.created[rows], given.num[rows])
    position, size = _positions(thread, section)
    orphans = (kind == 1) & (above < 0)
    return Threads(rows, section, above, depth, position, size, orphans, len(given.num) - len(rows))


def _without_doubles(given: Messages) -> tuple[Ints, Ints]:
    """Rows to keep, and the first section that has each."""
    rows = len(given.num)
    order = np.lexsort(
        (np.arange(rows), given.section, given.retrieved, given.num, given.kind, given.thread)
    )
    last = np.ones(rows, bool)
    thread, kind, num = given.thread[order], given.kind[order], given.num[order]
    last[:-1] = (thread[1:] != thread[:-1]) | (kind[1:] != kind[:-1]) | (num[1:] != num[:-1])
    if last.all() or not rows:
        return order, given.section[order]
    begins = np.concatenate([np.zeros(1, np.int64), np.flatnonzero(last)[:-1] + 1])
    first = np.minimum.reduceat(given.section[order], begins)
    return order[last], first


def _parents(thread: Ints, kind: Ints, num: Ints, parent: Ints) -> Ints:
    """Place of each row's parent; -1 where it was never seen."""
    above = np.full(len(num), -1, np.int64)
    submissions = np.flatnonzero(kind == 0)
    wanted = np.flatnonzero((kind == 1) & (parent == -1))
    if len(submissions) and len(wanted):
        # Rows are ordered by thread.
        at = np.searchsorted(thread[submissions], thread[wanted])
        at = np.minimum(at, len(submissions) - 1)
        found = thread[submissions[at]] == thread[wanted]
        above[wanted[found]] = submissions[at[found]]
    comments = np.flatnonzero(kind == 1)
    wanted = np.flatnonzero((kind == 1) & (parent >= 0))
    if len(comments) and len(wanted):
        by_num = comments[np.lexsort((thread[comments], num[comments]))]
        at = _search(num[by_num], thread[by_num], parent[wanted], thread[wanted])
        found = at >= 0
        above[wanted[found]] = by_num[at[found]]
    return above


def _search(nums: Ints, threads: Ints, num: Ints, thread: Ints) -> Ints:
    """Where (num, thread) is in the sorted pairs; -1 if nowhere."""
    at = np.searchsorted(nums, num)
    inside = np.minimum(at, len(nums) - 1)
    found = (at < len(nums)) & (nums[inside] == num)
    # The same id in several threads happens only in data that somebody made up.
    while True:
        off = found & (threads[inside] < thread)
        if not off.any():
            break
        inside[off] += 1
        found &= inside < len(nums)
        inside = np.minimum(inside, len(nums) - 1)
        found &= nums[inside] == num
    found &= threads[inside] == thread
    return np.where(found, inside, -1)


def _depths(above: Ints, created: Ints, num: Ints) -> Ints:
    """Steps to the root, by doubling the step: chains may be tens of thousands deep.

    Cuts circles: ``above`` of the oldest message in each becomes -1.
    """
    while True:
        depth = (above >= 0).astype(np.int64)
        jump = above.copy()
        for _ in range(max(1, len(above).bit_length() + 1)):
            moving = np.flatnonzero(jump >= 0)
            if not len(moving):
                return depth
            target = jump[moving]
            depth[moving] += depth[target]
            jump[moving] = jump[target]
        _cut_circles(above, np.flatnonzero(jump >= 0), created, num)


def _cut_circles(above: Ints, stuck: Ints, created: Ints, num: Ints) -> None:
    seen: set[int] = set()
    for start in stuck.tolist():
        trail: dict[int, int] = {}
        row = start
        while row >= 0 and row not in seen and row not in trail:
            trail[row] = len(trail)
            row = int(above[row])
        if row in trail:
            circle = [at for at, place in trail.items() if place >= trail[row]]
            above[min(circle, key=lambda at: (int(created[at]), int(num[at])))] = -1
        seen.update(trail)


def _positions(thread: Ints, section: Ints) -> tuple[Ints, Ints]:
    """Place of each row in its thread, and the thread's size at the end of its section."""
    rows = len(thread)
    if not rows:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    new_thread = np.ones(rows, bool)
    new_thread[1:] = thread[1:] != thread[:-1]
    begins = np.flatnonzero(new_thread)
    position = np.arange(rows) - begins[np.cumsum(new_thread) - 1]
    new_part = new_thread.copy()
    new_part[1:] |= section[1:] != section[:-1]
    parts = np.flatnonzero(new_part)
    ends = np.append(parts[1:], rows) - 1
    return position, (position[ends] + 1)[np.cumsum(new_part) - 1]
