"""One queue: what producers, workers and operators do with jobs.

Every step that changes a job's place is one atomic script (``lua/``); the protocol and what it
promises are in ``docs/reliability.md``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import Failure
from reddit_assets.ledger.base import chunks
from reddit_assets.ledger.connection import redis_errors
from reddit_assets.ledger.job import Claim, Job, Lane, Result, new_token
from reddit_assets.ledger.operations import Operations, QueueCounts

__all__ = ["Enqueued", "JobQueue", "QueueCounts", "Reaped"]

# A payload above this is not a job: it is refused before it is decoded.
LARGEST_PAYLOAD = 64 * 1024


@dataclass(slots=True)
class Enqueued:
    """What became of jobs that were to be queued.

    Attributes:
        queued: new in the queue.
        superseded: were queued, and are now queued for the run as well.
        anew: being computed now, and queued again afterwards.
        already: queued or being computed already.
        blocked: dead letters; someone must retry them.
    """

    queued: int = 0
    superseded: int = 0
    anew: int = 0
    already: int = 0
    blocked: int = 0

    def add(self, letters: str) -> None:
        """Count a script's answers."""
        self.queued += letters.count("q")
        self.superseded += letters.count("s")
        self.anew += letters.count("n")
        self.already += letters.count("a")
        self.blocked += letters.count("d")

    def __add__(self, other: Enqueued) -> Enqueued:
        return Enqueued(
            self.queued + other.queued,
            self.superseded + other.superseded,
            self.anew + other.anew,
            self.already + other.already,
            self.blocked + other.blocked,
        )


@dataclass(frozen=True, slots=True)
class Reaped:
    """A lease that expired."""

    key: str
    token: str
    worker: str
    dead: bool


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
        name = f"{self.prefix}worker:{worker}"
        with redis_errors(self.client):
            pipeline = self.client.pipeline(transaction=True)
            pipeline.hset(name, mapping=dict(facts))
            pipeline.pexpire(name, int(seconds * 1000))
            pipeline.execute()

    def leave(self, worker: str) -> None:
        """The worker has stopped."""
        with redis_errors(self.client):
            pipeline = self.client.pipeline(transaction=True)
            pipeline.delete(f"{self.prefix}worker:{worker}")
            pipeline.zrem(f"{self.prefix}workers", worker)
            pipeline.execute()

    def claim(self, worker: str, count: int, lease_seconds: float) -> list[Claim] | None:
        """Lease up to ``count`` jobs; ``None`` while the queue is paused."""
        tokens = [new_token() for _ in range(count)]
        answer = self.run_script(
            "claim", worker, int(lease_seconds * 1000), LARGEST_PAYLOAD, *tokens
        )
        if answer == "paused":
            return None
        claims = []
        for start in range(0, len(answer), 9):
            key, job_id, token, payload, stamp, force, attempts, recoveries, tombs = answer[
                start : start + 9
            ]
            claims.append(
                Claim(
                    kind=self.kind,
                    key=key,
                    id=job_id,
                    token=token,
                    job=json.loads(payload),
                    stamp=stamp,
                    force=force == "1",
                    attempts=int(attempts),
                    recoveries=int(recoveries),
                    tombs=tuple(tombs.split()),
                )
            )
        return claims

    def adopt(self, claim: Claim, key: str, stamp: str) -> Claim | None:
        """Give a foreign producer's job its key; ``None`` if another copy is in work or dead."""
        job_id = new_token()
        answer = self.run_script("adopt", claim.key, claim.token, key, job_id, stamp)
        if answer is None:
            return None
        tombs, attempts, recoveries = answer
        return Claim(
            kind=self.kind,
            key=key,
            id=job_id,
            token=claim.token,
            job=claim.job,
            stamp=stamp,
            attempts=int(attempts),
            recoveries=int(recoveries),
            tombs=tuple(tombs.split()),
        )

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
    ) -> bool:
        """End a job that succeeded; ``False`` if the token no longer holds it."""
        return bool(
            self.run_script(
                "acknowledge",
                claim.key,
                claim.token,
                result.to_json(),
                rows,
                tokens,
                int(seconds * 1000),
            )
        )

    def fail(
        self, claim: Claim, failure: Failure, *, max_attempts: int, retry_seconds: float
    ) -> str:
        """Note a failed attempt; ``delayed``, ``dead``, ``queued`` (wanted anew) or ``lost``."""
        result = Result(
            job=claim.id,
            asset=self.kind.asset,
            partition=claim.key,
            ok=False,
            error=failure.error,
            hint=failure.hint,
            error_type=failure.type,
            host=failure.host,
            traceback=failure.traceback,
        )
        return str(
            self.run_script(
                "fail",
                claim.key,
                claim.token,
                failure.to_json(),
                "1" if failure.permanent else "0",
                max_attempts,
                int(retry_seconds * 1000),
                result.to_json(),
            )
        )

    def release(self, claims: Iterable[Claim]) -> int:
        """Give claimed jobs back to the head of their lanes; the number given back."""
        arguments = [part for claim in claims for part in (claim.key, claim.token)]
        return int(self.run_script("release", *arguments)) if arguments else 0

    def reap(self, *, max_recoveries: int, limit: int = 500) -> list[Reaped]:
        """Take back expired leases and queue the retries that are due."""
        answer = self.run_script("reap", max_recoveries, limit)
        return [
            Reaped(key, token, worker, outcome == "dead")
            for key, token, worker, outcome in zip(*[iter(answer)] * 4, strict=True)
        ]

    def lead(self, worker: str, seconds: float) -> bool:
        """Become or stay the one that reaps; it falls free after ``seconds`` without this call."""
        name = f"{self.prefix}reaper"
        with redis_errors(self.client):
            if self.client.set(name, worker, nx=True, px=int(seconds * 1000)):
                return True
            if self.client.get(name) != worker:
                return False
            return bool(self.client.pexpire(name, int(seconds * 1000)))

    # --- rescans -------------------------------------------------------------------------
    def unlisted(self, older_than_seconds: float) -> dict[str, str]:
        """Public jobs that a plain consumer has taken: queued, but no longer in the list.

        Args:
            older_than_seconds: only those queued at least so long ago.

        Returns:
            Their ids by key.
        """
        with redis_errors(self.client):
            seconds, microseconds = self.client.time()
            horizon = (seconds - older_than_seconds) * 1000 + microseconds // 1000
            keys = self.client.zrangebyscore(f"{self.prefix}queued", "-inf", horizon)
            candidates: dict[str, str] = {}
            for chunk in chunks(keys):
                pipeline = self.client.pipeline(transaction=False)
                for key in chunk:
                    pipeline.hmget(f"{self.prefix}job:{key}", "state", "lane", "id")
                for key, (state, lane, job_id) in zip(chunk, pipeline.execute(), strict=True):
                    if state == "queued" and lane == Lane.PUBLIC:
                        candidates[key] = job_id
            if not candidates:
                return {}
            listed: set[str] = set()
            start, step = 0, 10_000
            while payloads := self.client.lrange(self.kind.value, start, start + step - 1):
                listed.update(_id_of(payload) for payload in payloads)
                # Consumers pop from the head while we read: overlap, so that none is skipped.
                start += step // 2
        return {key: job_id for key, job_id in candidates.items() if job_id not in listed}

    def tombs(self, keys: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The tokens of dead leases by key: their temporary files may still be there."""
        found: dict[str, tuple[str, ...]] = {}
        with redis_errors(self.client):
            for chunk in chunks(keys):
                pipeline = self.client.pipeline(transaction=False)
                for key in chunk:
                    pipeline.hget(f"{self.prefix}job:{key}", "tombs")
                for key, text in zip(chunk, pipeline.execute(), strict=True):
                    if text:
                        found[key] = tuple(text.split())
        return found

    def close(self, ids: dict[str, str]) -> int:
        """Remove queued entries whose outputs are there already; the number removed."""
        return sum(
            int(self.run_script("close", "queued", *(part for pair in chunk for part in pair)))
            for chunk in chunks(ids.items())
        )

    def repush(self, ids: dict[str, str]) -> int:
        """Push again what :meth:`unlisted` found and nobody made; the number pushed."""
        return sum(
            int(self.run_script("repush", *(part for pair in chunk for part in pair)))
            for chunk in chunks(ids.items())
        )


def _id_of(payload: str) -> str:
    try:
        job = json.loads(payload)
    except ValueError:
        return ""
    return str(job.get("id", "")) if isinstance(job, dict) else ""


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
                    payload = job.payload(layout, job_id)
                    # A root that is not UTF-8 travels as the bytes it is.
                    sent = (
                        payload if payload.isascii() else payload.encode(errors="surrogateescape")
                    )
                    arguments += (job.queue_key, job_id, job.stamp, sent)
            yield arguments
