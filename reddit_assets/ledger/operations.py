"""What people and monitors ask of a queue: counts, workers, pauses, dead letters."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from reddit_assets.errors import BadJobError
from reddit_assets.ledger.base import QueueBase
from reddit_assets.ledger.connection import redis_errors
from reddit_assets.ledger.job import DeadLetter, Kind, read_object
from reddit_assets.ledger.pace import Pace, Sample
from reddit_assets.ledger.scripts import chunks

__all__ = ["Operations", "QueueCounts"]

_CLEARED = 1_000  # Lines of the public list that one call takes.
_UNFINISHED = ("queued", "delayed", "leased")


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """Where a queue's jobs are.

    Attributes:
        public: length of the list that plain consumers read.
        queued, delayed, leased, dead: ledger entries by state.
        outbox: results that Dagster does not have yet.
        rejected: entries set aside because they were no results (the last thousand).
        runs: Dagster runs that wait for results.
        workers: workers seen in the last minute.
        totals: counters since the queue was made.
        oldest_seconds: how long the oldest job has been queued; 0 if none is.
    """

    public: int
    queued: int
    delayed: int
    leased: int
    dead: int
    outbox: int
    rejected: int
    runs: int
    workers: int
    paused: bool
    totals: dict[str, int]
    oldest_seconds: float = 0.0

    @property
    def unfinished(self) -> bool:
        """Whether something is queued, delayed or in work."""
        return bool(self.public or self.queued or self.delayed or self.leased)

    @property
    def rows_per_second(self) -> float | None:
        """Rows per second and worker so far; ``None`` before the first job."""
        milliseconds = self.totals.get("milliseconds", 0)
        return 1000 * self.totals.get("rows", 0) / milliseconds if milliseconds else None

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

    def clear(self) -> tuple[int, int]:
        """Forget what waits: the whole public list, and the ledger's waiting jobs.

        Works in many small steps, so that Redis answers others meanwhile. What is being computed
        goes on. Dead letters stay, and so do jobs that a Dagster run waits for.

        Returns:
            How many lines of the public list and how many jobs were forgotten.
        """
        lines = jobs = 0
        with redis_errors(self.client):
            # Not "until it is empty": somebody may go on pushing.
            for _ in range(0, self.client.llen(self.public), _CLEARED):
                lines += len(self.client.lpop(self.public, _CLEARED) or ())
            waiting = [
                key
                for state in ("queued", "delayed")
                for key in self.client.zrange(f"{self.prefix}{state}", 0, -1)
            ]
        for chunk in chunks(waiting):
            pairs = (part for key in chunk for part in (key, ""))
            jobs += int(self.run_script("close", "queued", *pairs))
        return lines, jobs

    def identity(self) -> str:
        """A random name, made once: the same whichever address the queue is reached by."""
        with redis_errors(self.client):
            self.client.set(f"{self.prefix}identity", secrets.token_hex(8), nx=True)
            return str(self.client.get(f"{self.prefix}identity"))

    def counts(self) -> QueueCounts:
        """Where the jobs are."""
        *numbers, paused, totals, oldest = self.run_script("counts")
        public, queued, delayed, leased, dead, outbox, rejected, runs, workers = numbers
        return QueueCounts(
            public=public,
            queued=queued,
            delayed=delayed,
            leased=leased,
            dead=dead,
            outbox=outbox,
            rejected=rejected,
            runs=runs,
            workers=workers,
            paused=bool(paused),
            totals={name: int(total) for name, total in zip(*[iter(totals)] * 2, strict=True)},
            oldest_seconds=oldest / 1000,
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

    def last_seen(self) -> dict[str, float]:
        """Seconds since each worker's last sign of life, by the server's clock."""
        with redis_errors(self.client):
            found = self.client.zrange(f"{self.prefix}workers", 0, -1, withscores=True)
            now = self._now()
        return {name: max(0.0, now - seen / 1000) for name, seen in found}

    def pace(self, window_seconds: float = 600.0) -> Pace:
        """What was done lately; samples go back an hour."""
        with redis_errors(self.client):
            lines = self.client.lrange(f"{self.prefix}samples", 0, -1)
            totals = self.client.hgetall(f"{self.prefix}counters")
            now = Sample.of(self._now(), {name: int(total) for name, total in totals.items()})
        return Pace.between([Sample.parse(line) for line in lines], now, window=window_seconds)

    def lanes(self) -> dict[str, int]:
        """Lengths of the lanes that are not empty; superseded copies are counted as well."""
        with redis_errors(self.client):
            names = [*self.client.zrange(f"{self.prefix}lanes", 0, -1), "alone"]
            names = [name for name in dict.fromkeys(names) if name != "public"]
            pipeline = self.client.pipeline(transaction=False)
            pipeline.llen(self.public)
            for name in names:
                pipeline.llen(f"{self.prefix}lane:{name}")
            lengths = dict(zip(["public", *names], pipeline.execute(), strict=True))
        return {name: length for name, length in lengths.items() if length}

    def _now(self) -> float:
        seconds, microseconds = self.client.time()
        return float(seconds) + float(microseconds) / 1e6

    def dead_since(self) -> dict[str, float]:
        """When each dead letter died (seconds since 1970), oldest first, by key."""
        with redis_errors(self.client):
            found = self.client.zrange(f"{self.prefix}dead", 0, -1, withscores=True)
        return {key: died / 1000 for key, died in found}

    def dead_keys(self) -> set[str]:
        """The keys of all dead letters."""
        return set(self.dead_since())

    def dead_letters(self, keys: Iterable[str] | None = None) -> list[DeadLetter]:
        """The dead letters, oldest first; only those of ``keys`` if given.

        Each holds its traceback: to look at many, ask :meth:`dead_since` and take some keys.
        """
        died = self.dead_since()
        if keys is not None:
            wanted = set(keys)
            died = {key: at for key, at in died.items() if key in wanted}
        found = self._entries(died)
        return [_dead_letter(self.kind, key, died[key], entry) for key, entry in found]

    def unfinished(self, keys: Iterable[str]) -> set[str]:
        """Those of ``keys`` that are queued, delayed or in work."""
        return {key for key, (state,) in self.fields(keys, "state") if state in _UNFINISHED}

    def given_up(self, stamps: Mapping[str, str]) -> set[str]:
        """Those of some jobs, by key and stamp, that are dead letters: they are not queued."""
        found = self.fields(stamps, "state", "stamp")
        return {key for key, (state, stamp) in found if state == "dead" and stamp == stamps[key]}

    def fields(self, keys: Iterable[str], *names: str) -> Iterator[tuple[str, list[str | None]]]:
        """Some fields of the ledger's entries, each ``None`` where it is missing."""
        for chunk in chunks(keys):
            with redis_errors(self.client):
                pipeline = self.client.pipeline(transaction=False)
                for key in chunk:
                    pipeline.hmget(f"{self.prefix}job:{key}", *names)
                found = pipeline.execute()
            yield from zip(chunk, found, strict=True)

    def _entries(self, keys: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
        for chunk in chunks(keys):
            with redis_errors(self.client):
                pipeline = self.client.pipeline(transaction=False)
                for key in chunk:
                    pipeline.hgetall(f"{self.prefix}job:{key}")
                found = pipeline.execute()
            yield from zip(chunk, found, strict=True)

    def retry(self, keys: Iterable[str]) -> int:
        """Queue dead letters again; the number queued."""
        return sum(int(self.run_script("retry", *chunk)) for chunk in chunks(keys))

    def purge(self, keys: Iterable[str]) -> int:
        """Forget dead letters; the next scan queues those again whose outputs are missing."""
        return sum(
            int(self.run_script("close", "dead", *(part for key in chunk for part in (key, ""))))
            for chunk in chunks(keys)
        )


def _dead_letter(kind: Kind, key: str, died: float, entry: Mapping[str, str]) -> DeadLetter:
    try:
        error = read_object(entry.get("error", "{}"))
    except BadJobError as problem:
        error = {"error": f"Its reason cannot be read: {problem.message}"}
    lines = int(entry.get("lines", 1))
    said = str(error.get("error", ""))
    return DeadLetter(
        kind=kind,
        key=key,
        error=f"{lines:,} jobs like this: {said}" if lines > 1 else said,
        hint=str(error.get("hint", "")),
        error_type=str(error.get("type", "")),
        host=str(error.get("host", "")),
        attempts=int(entry.get("attempts", 0)),
        crashes=int(entry.get("crashes", 0)),
        evictions=int(entry.get("evictions", 0)),
        died_at=died,
        payload=entry.get("payload", ""),
        traceback=str(error.get("traceback", "")),
        stamp=entry.get("stamp", ""),
        lines=lines,
    )
