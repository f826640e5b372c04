"""What people and monitors ask of a queue: counts, workers, pauses, dead letters."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from reddit_assets.ledger.base import QueueBase, chunks
from reddit_assets.ledger.connection import redis_errors
from reddit_assets.ledger.job import DeadLetter

__all__ = ["Operations", "QueueCounts"]

_UNFINISHED = ("queued", "delayed", "leased")


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """Where a queue's jobs are.

    Attributes:
        public: length of the list that plain consumers read.
        queued, delayed, leased, dead: ledger entries by state.
        outbox: results that Dagster does not have yet.
        runs: Dagster runs that wait for results.
        workers: workers seen in the last minute.
        totals: counters since the queue was made.
    """

    public: int
    queued: int
    delayed: int
    leased: int
    dead: int
    outbox: int
    runs: int
    workers: int
    paused: bool
    totals: dict[str, int]

    @property
    def unfinished(self) -> bool:
        """Whether something is queued, delayed or in work."""
        return bool(self.public or self.queued or self.delayed or self.leased)

    @property
    def idle(self) -> bool:
        """Whether nothing is unfinished or unreported."""
        return not (self.unfinished or self.outbox)


class Operations(QueueBase):
    """Looking at a queue and steering it."""

    def pause(self) -> None:
        """Nothing new is claimed; work in progress finishes."""
        with redis_errors(self.client):
            self.client.set(f"{self.prefix}paused", "1")

    def resume(self) -> None:
        """Claiming goes on."""
        with redis_errors(self.client):
            self.client.delete(f"{self.prefix}paused")

    def identity(self) -> str:
        """A random name, made once: the same by whatever address the queue is reached."""
        with redis_errors(self.client):
            self.client.set(f"{self.prefix}identity", secrets.token_hex(8), nx=True)
            return str(self.client.get(f"{self.prefix}identity"))

    def counts(self) -> QueueCounts:
        """Where the jobs are."""
        p = self.prefix
        with redis_errors(self.client):
            seconds, _ = self.client.time()
            pipeline = self.client.pipeline(transaction=True)
            pipeline.llen(self.kind.value)
            for name in ("queued", "delayed", "leases", "dead"):
                pipeline.zcard(p + name)
            pipeline.xlen(p + "outbox")
            pipeline.zcard(p + "runs")
            pipeline.zcount(p + "workers", (seconds - 60) * 1000, "+inf")
            pipeline.exists(p + "paused")
            pipeline.hgetall(p + "counters")
            *numbers, paused, totals = pipeline.execute()
        public, queued, delayed, leased, dead, outbox, runs, workers = numbers
        return QueueCounts(
            public=public,
            queued=queued,
            delayed=delayed,
            leased=leased,
            dead=dead,
            outbox=outbox,
            runs=runs,
            workers=workers,
            paused=bool(paused),
            totals={name: int(value) for name, value in totals.items()},
        )

    def workers(self) -> dict[str, dict[str, str]]:
        """The facts of every worker that announced itself and is alive."""
        with redis_errors(self.client):
            names = self.client.zrange(f"{self.prefix}workers", 0, -1)
            pipeline = self.client.pipeline(transaction=False)
            for name in names:
                pipeline.hgetall(f"{self.prefix}worker:{name}")
            return {
                name: facts for name, facts in zip(names, pipeline.execute(), strict=True) if facts
            }

    def dead_keys(self) -> set[str]:
        """The keys of all dead letters."""
        with redis_errors(self.client):
            return set(self.client.zrange(f"{self.prefix}dead", 0, -1))

    def dead_letters(self, keys: Iterable[str] | None = None) -> list[DeadLetter]:
        """The dead letters, oldest first; only those of ``keys`` if given."""
        letters = []
        with redis_errors(self.client):
            found = self.client.zrange(f"{self.prefix}dead", 0, -1, withscores=True)
            wanted = None if keys is None else set(keys)
            chosen = [(key, died) for key, died in found if wanted is None or key in wanted]
            for chunk in chunks(chosen):
                pipeline = self.client.pipeline(transaction=False)
                for key, _ in chunk:
                    pipeline.hgetall(f"{self.prefix}job:{key}")
                for (key, died), entry in zip(chunk, pipeline.execute(), strict=True):
                    error = json.loads(entry.get("error", "{}"))
                    letters.append(
                        DeadLetter(
                            kind=self.kind,
                            key=key,
                            error=error.get("error", ""),
                            hint=error.get("hint", ""),
                            error_type=error.get("type", ""),
                            host=error.get("host", ""),
                            attempts=int(entry.get("attempts", 0)),
                            recoveries=int(entry.get("recoveries", 0)),
                            died_at=died / 1000,
                            payload=entry.get("payload", ""),
                            traceback=error.get("traceback", ""),
                            stamp=entry.get("stamp", ""),
                        )
                    )
        return letters

    def unfinished(self, keys: Iterable[str]) -> set[str]:
        """Those of ``keys`` that are queued, delayed or in work."""
        found: set[str] = set()
        with redis_errors(self.client):
            for chunk in chunks(keys):
                pipeline = self.client.pipeline(transaction=False)
                for key in chunk:
                    pipeline.hget(f"{self.prefix}job:{key}", "state")
                states = zip(chunk, pipeline.execute(), strict=True)
                found.update(key for key, state in states if state in _UNFINISHED)
        return found

    def retry(self, keys: Iterable[str]) -> int:
        """Queue dead letters again; the number queued."""
        return sum(int(self.run_script("retry", *chunk)) for chunk in chunks(keys))

    def purge(self, keys: Iterable[str]) -> int:
        """Forget dead letters; the next scan queues those again whose outputs are missing."""
        return sum(
            int(self.run_script("close", "dead", *(part for key in chunk for part in (key, ""))))
            for chunk in chunks(keys)
        )
