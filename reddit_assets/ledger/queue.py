"""One queue: what producers, workers and operators do with jobs.

Every step that changes a job's place is one atomic script (``lua/``); the protocol and what it
promises are in ``docs/reliability.md``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import Failure
from reddit_assets.ledger.connection import redis_errors
from reddit_assets.ledger.intake import LARGEST_LINE, Claimed, Line, line_of_job
from reddit_assets.ledger.job import Claim, Job, Lane, Result, new_token
from reddit_assets.ledger.operations import Operations, QueueCounts
from reddit_assets.ledger.scripts import chunks, request_of

__all__ = ["Enqueued", "JobQueue", "QueueCounts", "Reaped"]


@dataclass(slots=True)
class Enqueued:
    """What became of jobs that were to be queued.

    Attributes:
        queued: new in the queue.
        superseded: were queued, and are now queued for the run as well.
        again: being computed now, and queued again afterwards.
        already: queued or being computed already.
        blocked: dead letters; someone must retry them.
    """

    queued: int = 0
    superseded: int = 0
    again: int = 0
    already: int = 0
    blocked: int = 0

    def add(self, letters: str) -> None:
        """Count a script's answers."""
        self.queued += letters.count("q")
        self.superseded += letters.count("s")
        self.again += letters.count("n")
        self.already += letters.count("a")
        self.blocked += letters.count("d")

    def __add__(self, other: Enqueued) -> Enqueued:
        return Enqueued(
            self.queued + other.queued,
            self.superseded + other.superseded,
            self.again + other.again,
            self.already + other.already,
            self.blocked + other.blocked,
        )


@dataclass(frozen=True, slots=True)
class Reaped:
    """A lease that expired.

    Attributes:
        outcome: ``queued`` if it was not started; ``suspect``, or ``delayed`` after several times.
    """

    key: str
    token: str
    worker: str
    outcome: str


class JobQueue(Operations):
    """The jobs of one kind.

    Args:
        client: a connection made by :func:`~reddit_assets.ledger.connection.connect`.
        kind: which queue.

    Every method raises QueueUnavailableError when Redis cannot be reached; those that add data
    raise QueueFullError when its memory is used up, and then have written nothing.
    """

    # --- producers -----------------------------------------------------------------------
    def enqueue(
        self,
        jobs: Iterable[Job],
        layout: Layout,
        *,
        lane: str = Lane.PUBLIC,
        run: str = "",
        urgent: bool = False,
    ) -> Enqueued:
        """Queue jobs that are not queued, in work or dead already.

        Args:
            lane: where scans put them; a run's jobs go to the run's own lane.
            run: the Dagster run that waits for the results; open it first.
            urgent: before all other jobs.
        """
        lane = f"run:{run}" if run else str(Lane.URGENT) if urgent else str(lane)
        total = Enqueued()
        # The next call is built while Redis works on this one.
        with ThreadPoolExecutor(1, "enqueue") as sender:
            pending: Future[str] | None = None
            for arguments in _calls(jobs, layout, lane, run, "1" if urgent else "0"):
                if pending is not None:
                    total.add(pending.result())
                pending = sender.submit(self.run_script, "enqueue", *arguments)
            if pending is not None:
                total.add(pending.result())
        return total

    # --- workers -------------------------------------------------------------------------
    def announce(self, worker: str, facts: dict[str, str | int | float], seconds: float) -> None:
        """Let people see a worker: host, process, backend, ….

        Args:
            seconds: how long the facts stay without being renewed.
        """
        pairs = [part for pair in facts.items() for part in pair]
        self.run_script("announce", worker, int(seconds * 1000), *pairs)

    def leave(self, worker: str) -> None:
        """The worker has stopped."""
        with redis_errors(self.client):
            pipeline = self.client.pipeline(transaction=False)
            pipeline.delete(f"{self.prefix}worker:{worker}")
            pipeline.zrem(f"{self.prefix}workers", worker)
            pipeline.execute()

    def take(
        self, worker: str, lease_seconds: float, tokens: Sequence[str], *, alone: bool
    ) -> tuple[Claimed, list[Line]]:
        """Lease up to one job per token, for :class:`~reddit_assets.ledger.intake.Intake`.

        Returns:
            Our own jobs, and the lines that still have to be read.
        """
        answer = self.run_script(
            "claim",
            worker,
            request_of("claim", tokens),
            int(lease_seconds * 1000),
            LARGEST_LINE,
            "1" if alone else "0",
            *tokens,
        )
        if answer == "paused":
            return Claimed(paused=True), []
        more, suspects, *rest = answer
        claimed, lines = Claimed(more=bool(more), suspects=bool(suspects)), []
        for key, token, text, size, *fields in zip(*[iter(rest)] * 12, strict=True):
            if size >= 0:
                lines.append(Line(key, token, text, size))
            else:
                claimed.claims.append(self._claim(worker, key, token, fields))
        return claimed, lines

    def _claim(self, worker: str, key: str, token: str, fields: Sequence[str]) -> Claim:
        """From ``lease_fields`` of the scripts."""
        job_id, stamp, force, attempts, crashes, evictions, suspect, tombs = fields
        return Claim(
            kind=self.kind,
            key=key,
            id=job_id,
            token=token,
            worker=worker,
            stamp=stamp,
            force=force == "1",
            attempts=int(attempts),
            crashes=int(crashes),
            evictions=int(evictions),
            suspect=suspect == "1",
            tombs=tuple(tombs.split()),
        )

    def adopt(
        self,
        worker: str,
        line: Line,
        *,
        key: str,
        copy: str,
        job_id: str,
        stamp: str,
        payload: str | bytes,
    ) -> Claim | None:
        """Give a leased line its place in the ledger.

        Args:
            key: the job that it means.
            copy: the id of our copy that it is; empty if another producer pushed it.
            job_id, stamp, payload: of the new entry, if it makes one.

        Returns:
            ``None`` if the line is dropped: another copy is in work, dead, or a suspect.
        """
        fields = self.run_script("adopt", line.key, line.token, key, copy, job_id, stamp, payload)
        return None if fields is None else self._claim(worker, key, line.token, fields)

    def refuse(self, line: Line, failure: Failure, *, together: bool = False) -> None:
        """Make a leased line a dead letter: it is not a job.

        Args:
            together: one dead letter for all lines that are refused for the same reason.
        """
        _, sha = line.key.split(":")
        if together:
            sha = hashlib.sha1(failure.error.encode(), usedforsecurity=False).hexdigest()
        dead, error = f"malformed:{sha}", failure.to_json()
        self.run_script("refuse", line.key, line.token, dead, error, "1" if together else "0")

    def renew(
        self, worker: str, claims: Sequence[tuple[Claim, bool]], lease_seconds: float
    ) -> set[str]:
        """Extend leases.

        Args:
            claims: each with whether it is being computed by now.

        Returns:
            The tokens that no longer hold their jobs.
        """
        arguments: list[Any] = [worker, int(lease_seconds * 1000)]
        for claim, started in claims:
            arguments += (claim.key, claim.token, "1" if started else "0")
        kept = self.run_script("renew", *arguments)
        return {claim.token for (claim, _), held in zip(claims, kept, strict=True) if not held}

    def acknowledge(
        self,
        claim: Claim,
        result: Result,
        *,
        rows: int = 0,
        tokens: int = 0,
        seconds: float = 0.0,
        size: int = 0,
    ) -> bool:
        """End a job that succeeded; ``False`` if the token no longer holds it.

        Args:
            rows, tokens, seconds: what was computed.
            size: bytes of its input.
        """
        return bool(
            self._once(
                "acknowledge",
                [claim],
                claim.key,
                claim.token,
                result.to_json(),
                rows,
                tokens,
                int(seconds * 1000),
                size,
            )
        )

    def fail(
        self, claim: Claim, failure: Failure, *, max_attempts: int, retry_seconds: float
    ) -> str:
        """Note a failed attempt; ``delayed``, ``dead``, ``queued`` (wanted again) or ``lost``."""
        return str(
            self._once(
                "fail",
                [claim],
                claim.key,
                claim.token,
                failure.to_json(),
                "1" if failure.permanent else "0",
                max_attempts,
                int(retry_seconds * 1000),
                self._failed(claim, failure),
            )
        )

    def crashed(
        self, claims: Sequence[tuple[Claim, bool]], failure: Failure, *, max_crashes: int
    ) -> dict[str, str]:
        """Note that the process that computed these jobs died.

        Args:
            claims: all that it had, each with whether it was being computed.
            failure: why, for a job that has crashed ``max_crashes`` times, each time alone.

        Returns:
            By token: ``queued`` (it was not started), ``suspect`` (it will run alone), ``dead``
            or ``lost``.
        """
        arguments: list[Any] = []
        for claim, started in claims:
            result = self._failed(claim, failure)
            arguments += (claim.key, claim.token, "1" if started else "0", result)
        if not claims:
            return {}
        held = [claim for claim, _ in claims]
        answers = self._once("crashed", held, max_crashes, failure.to_json(), *arguments)
        return {claim.token: answer for claim, answer in zip(held, answers, strict=True)}

    def release(self, claims: Iterable[Claim], *, delay_seconds: float = 0.0) -> int:
        """Give claimed jobs back unharmed; the number given back.

        Args:
            delay_seconds: they wait this long, and go behind all others then; without a delay
                they go to the head of their lanes.
        """
        held = list(claims)
        arguments = [part for claim in held for part in (claim.key, claim.token)]
        if not held:
            return 0
        return int(self._once("release", held, int(delay_seconds * 1000), *arguments))

    def _once(self, name: str, claims: Sequence[Claim], *arguments: Any) -> Any:
        """Run a script that does its work once, however often the call is sent."""
        request = request_of(name, (claim.token for claim in claims))
        return self.run_script(name, claims[0].worker, request, *arguments)

    def _failed(self, claim: Claim, failure: Failure) -> str:
        """What the waiting runs learn if the job dies."""
        return Result(
            job=claim.id,
            asset=self.kind.asset,
            partition=claim.key,
            ok=False,
            error=failure.error,
            hint=failure.hint,
            error_type=failure.type,
            host=failure.host,
            traceback=failure.traceback,
        ).to_json()

    def reap(self, *, retry_seconds: float, limit: int = 500) -> list[Reaped]:
        """Take back expired leases and queue the retries that are due.

        Args:
            retry_seconds: the first wait of a job that has outlived several workers.
            limit: largest number of either per call.
        """
        answer = self.run_script("reap", int(retry_seconds * 1000), limit)
        return [Reaped(*four) for four in zip(*[iter(answer)] * 4, strict=True)]

    def lead(self, worker: str, seconds: float) -> bool:
        """Become or stay the one that reaps; the place is free after ``seconds`` without this call.

        Not ``redis.lock``, whose holder must keep a lock object; here the worker's name is enough.
        """
        return bool(self.run_script("lead", worker, int(seconds * 1000)))

    # --- rescans -------------------------------------------------------------------------
    def queued_publicly(self, older_than_seconds: float) -> dict[str, str]:
        """The ids by key of jobs that wait in the public list for at least this long."""
        found: dict[str, str] = {}
        with redis_errors(self.client):
            seconds, microseconds = self.client.time()
            horizon = (seconds - older_than_seconds) * 1000 + microseconds // 1000
            keys = self.client.zrangebyscore(f"{self.prefix}queued", "-inf", horizon)
        for key, (state, lane, job_id) in self.fields(keys, "state", "lane", "id"):
            if state == "queued" and lane == Lane.PUBLIC:
                found[key] = job_id or ""
        return found

    def tombs(self, keys: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The tokens of dead leases by key: their temporary files may still be there."""
        return {key: tuple(text.split()) for key, (text,) in self.fields(keys, "tombs") if text}

    def close(self, ids: dict[str, str]) -> int:
        """Remove queued entries whose outputs are there already; the number removed."""
        return sum(
            int(self.run_script("close", "queued", *(part for pair in chunk for part in pair)))
            for chunk in chunks(ids.items())
        )


def _calls(
    jobs: Iterable[Job], layout: Layout, lane: str, run: str, head: str
) -> Iterator[list[str | bytes]]:
    """The arguments of ``enqueue.lua``, one list per call."""
    for chunk in chunks(jobs):
        for force in sorted({job.force for job in chunk}):
            arguments: list[str | bytes] = [lane, run, "1" if force else "0", head]
            for job in chunk:
                if job.force == force:
                    job_id = new_token()
                    line = line_of_job(layout, job.kind, job.key, job_id)
                    arguments += (job.key, job_id, job.stamp, line)
            yield arguments
