"""The public lists, which the earlier system's producers and consumers share with us.

Only this file knows their names and the JSON in them. Whatever a line holds, it ends as a claim, as
a dead letter, or as an older copy of our own that is dropped.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reddit_assets.corpus.fingerprints import Stamp
from reddit_assets.corpus.keys import check_key
from reddit_assets.corpus.layout import SUFFIX, Layout
from reddit_assets.errors import BadJobError, BadKeyError, ElsewhereError, Failure, printable
from reddit_assets.ledger.connection import redis_errors
from reddit_assets.ledger.job import Claim, Kind, new_token, read_object
from reddit_assets.ledger.paths import inside, key_of_paths
from reddit_assets.ledger.scripts import chunks

if TYPE_CHECKING:
    from reddit_assets.ledger.queue import JobQueue

__all__ = [
    "LARGEST_LINE",
    "PUBLIC_LISTS",
    "Claimed",
    "Intake",
    "Line",
    "id_of_line",
    "key_of_job",
    "line_of_job",
    "repush",
    "unlisted",
]

PUBLIC_LISTS = {
    Kind.EMBED: "phase4_todo_queue",
    Kind.CLUSTER: "phase4_cluster_queue",
    Kind.INGEST: "ingest_queue",
}

# Parts that a key may have; of dumps, the folders below dumps/ as well.
_PARTS = {Kind.EMBED: (2, 3), Kind.CLUSTER: (1, 2), Kind.INGEST: tuple(range(1, 9))}

LARGEST_LINE = 64 * 1024
"""A line of more bytes than this is not a job: it is refused unread."""

_OWN_ID = re.compile(r"[0-9a-f]{16}")
_OWN_TAIL = re.compile(r'"id": "([0-9a-f]{16})", "key": "[^"\\]+"}\Z')  # as in claim.lua

_encode = json.JSONEncoder(ensure_ascii=False).encode


# --- our lines ---------------------------------------------------------------------------
def line_of_job(layout: Layout, kind: Kind, key: str, job_id: str) -> str | bytes:
    """A job as the lists hold it: the earlier system's fields, then ours, which it ignores."""
    job = {"id": job_id, "key": check_key(key, parts=_PARTS[kind])}
    if kind is Kind.INGEST:
        pass  # no other program knows such jobs: the key says all
    elif kind is Kind.EMBED:
        # Not through Path: a scan builds a million of these.
        job = {
            "input_path": f"{layout.chains}/{key}{SUFFIX}",
            "output_path": f"{layout.embeddings}/{key}{SUFFIX}",
            **job,
        }
    else:
        job = {"subreddit_path": str(layout.subreddit_path(key)), **job}
    line = _encode(job)
    # A root that is not UTF-8 travels as the bytes it is.
    return line if line.isascii() else line.encode(errors="surrogateescape")


def id_of_line(line: str) -> str:
    """The id of our copy that a line is; empty if it is none."""
    own = _OWN_TAIL.search(line)
    if own:
        return own[1]
    try:
        return _own_id(read_object(line))
    except BadJobError:
        return ""


def _own_id(job: Mapping[str, object]) -> str:
    found, key = job.get("id"), job.get("key")
    own = isinstance(found, str) and isinstance(key, str) and _OWN_ID.fullmatch(found)
    return str(found) if own else ""


# --- their lines -------------------------------------------------------------------------
def key_of_job(layout: Layout, kind: Kind, job: Mapping[str, object]) -> str:
    """The key that a job of the list means, checked against this host's roots.

    A ``key`` counts; without one (the earlier system's producers send none) the paths do.

    Raises:
        ElsewhereError: the paths lie below roots of another host, and no such file is here.
        BadJobError: fields are missing or of wrong types, or the job leads outside the roots (also
            through ``..`` or a symbolic link).
    """
    try:
        key = job.get("key")
        if key is None:
            key = key_of_paths(layout, kind, job)
        if not isinstance(key, str):
            raise BadJobError(f"The job's key is {type(key).__name__}, not text.")
        check_key(key, parts=_PARTS[kind])
    except BadKeyError as error:
        raise BadJobError(error.message, hint=error.hint) from None
    if kind is Kind.INGEST:
        return key
    places = [(layout.embeddings, ""), (layout.clusters, "")]
    if kind is Kind.EMBED:
        places = [(layout.chains, SUFFIX), (layout.embeddings, SUFFIX)]
    for tree, suffix in places:
        if not inside(os.path.realpath(tree / (key + suffix)), os.path.realpath(tree)):
            raise BadJobError(
                f"The job {key} leads outside {tree} through a symbolic link.",
                hint="Replace the link by the file or folder itself.",
            )
    return key


# --- claiming ----------------------------------------------------------------------------
@dataclass(slots=True)
class Claimed:
    """What a call of :meth:`Intake.claim` got.

    Attributes:
        claims: leased to the caller.
        paused: nothing new may be claimed.
        more: lines were refused or dropped, and jobs may lie behind them; ask again at once.
        suspects: a job waits that must run alone: ask with ``alone`` when nothing is in hand.
    """

    claims: list[Claim] = field(default_factory=list)
    paused: bool = False
    more: bool = False
    suspects: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A leased line of the public list that is none of our copies.

    Attributes:
        key, token: what it is leased as.
        text: what it holds; empty if it is too large.
        size: in bytes.
    """

    key: str
    token: str
    text: str
    size: int


class Intake:
    """Claims jobs, and makes jobs or dead letters of the lines that others pushed.

    Args:
        queue: where the jobs come from.
        layout: this host's trees.
    """

    def __init__(self, queue: JobQueue, layout: Layout) -> None:
        self.queue = queue
        self.layout = layout
        self._unanswered: list[str] = []

    def claim(self, worker: str, count: int, lease_seconds: float, *, alone: bool) -> Claimed:
        """Lease up to ``count`` jobs.

        Args:
            alone: nothing else is in the worker's computing process: a suspect may be taken, and
                comes without others.
        """
        # A call whose answer never came is asked again, so that its leases find their holder.
        tokens = self._unanswered or [new_token() for _ in range(count)]
        self._unanswered = tokens
        claimed, lines = self.queue.take(worker, lease_seconds, tokens, alone=alone)
        accepted = [self._accept(worker, line) for line in lines]
        self._unanswered = []
        claimed.claims += [claim for claim in accepted if claim is not None]
        # Lines that became no claims may hide jobs behind them.
        claimed.more = claimed.more or None in accepted
        return claimed

    def _accept(self, worker: str, line: Line) -> Claim | None:
        """The job that a line means; ``None`` if it is refused or dropped."""
        try:
            if line.size > LARGEST_LINE:
                raise BadJobError(f"The entry is larger than {LARGEST_LINE} bytes.")
            job = read_object(line.text)
            key = key_of_job(self.layout, self.queue.kind, job)
        except BadJobError as error:
            hint = error.hint or "Correct its producer, then purge the entry."
            failure = Failure(
                printable(error.message), printable(hint), type(error).__name__, permanent=True
            )
            self.queue.refuse(line, failure, together=isinstance(error, ElsewhereError))
            return None
        job_id = new_token()
        return self.queue.adopt(
            worker,
            line,
            key=key,
            copy=_own_id(job),
            job_id=job_id,
            stamp=self._stamp(key),
            payload=line_of_job(self.layout, self.queue.kind, key, job_id),
        )

    def _stamp(self, key: str) -> str:
        if self.queue.kind is Kind.EMBED:
            with suppress(OSError):  # a missing file is the task's to report, in one place
                return str(Stamp.of(self.layout.chain_path(key).stat()))
        return ""


# --- lost and pushed again ---------------------------------------------------------------
def unlisted(queue: JobQueue, older_than_seconds: float) -> dict[str, str]:
    """Public jobs that a plain consumer has taken: queued, but no longer in the list.

    Args:
        older_than_seconds: only those queued at least this long ago.

    Returns:
        Their ids by key.
    """
    candidates = queue.queued_publicly(older_than_seconds)
    if not candidates:
        return {}
    listed: set[str] = set()
    start, step = 0, 10_000
    with redis_errors(queue.client):
        while lines := queue.client.lrange(queue.public, start, start + step - 1):
            listed.update(id_of_line(line) for line in lines)
            # Consumers pop from the head while we read: overlap, so that none is skipped.
            start += step // 2
    return {key: job_id for key, job_id in candidates.items() if job_id not in listed}


def repush(queue: JobQueue, ids: Mapping[str, str]) -> int:
    """Push again what :func:`unlisted` found and nobody made; the number pushed."""
    return sum(
        int(queue.run_script("repush", *(part for pair in chunk for part in pair)))
        for chunk in chunks(ids.items())
    )
