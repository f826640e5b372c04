"""What a worker shows: a live line on a terminal, plain lines elsewhere; and its metrics."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from typing import Any

from rich.console import Console
from rich.status import Status

from reddit_assets.errors import Failure, printable
from reddit_assets.ledger.job import Kind
from reddit_assets.tasks.messages import Finished
from reddit_assets.worker import metrics

__all__ = ["Display"]

log = logging.getLogger("reddit_assets.worker")

_RATE_SECONDS = 60.0


class _Rate:
    """Rows per second over the last minute."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque()
        self._began = time.monotonic()

    def add(self, rows: int) -> None:
        now = time.monotonic()
        self._steps.append((now, rows))
        while self._steps[0][0] < now - _RATE_SECONDS:
            self._steps.popleft()

    def per_second(self) -> float:
        """Asked by another thread than the one that adds."""
        now = time.monotonic()
        seconds = max(1.0, min(_RATE_SECONDS, now - self._began))
        return sum(rows for at, rows in list(self._steps) if at >= now - _RATE_SECONDS) / seconds


class Display:
    """Progress of one worker.

    Args:
        console: where the live line goes; plain lines go to the log.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._status: Status | None = None
        self._began = time.monotonic()
        self._done: Counter[Kind] = Counter()
        self._rows: Counter[Kind] = Counter()
        self._failed: Counter[Kind] = Counter()
        self._rates = {kind: _Rate() for kind in Kind}
        self._currents: dict[Kind, str] = {}
        self._tokens = 0
        self._current = ""
        self._trouble = ""

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._status = self._console.status("Loading the engine …")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
        log.info("Done: %s.", self.summary())

    def figures(self, kind: Kind) -> dict[str, str | int | float]:
        """What others should see: jobs done and failed, rows per second, the job in work."""
        return {
            "done": self._done[kind],
            "failed": self._failed[kind],
            "rows_per_second": round(self._rates[kind].per_second(), 1),
            "current": printable(self._currents.get(kind, "")),
        }

    def summary(self) -> str:
        """Files, rows and rates so far, in words."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        parts = []
        if self._done[Kind.EMBED] or not self._done:
            rows = self._rows[Kind.EMBED]
            parts.append(
                f"{self._done[Kind.EMBED]:,} files embedded ({rows:,} rows, "
                f"{rows / seconds:,.0f} rows/s, {self._tokens / seconds:,.0f} tokens/s)"
            )
        if self._done[Kind.CLUSTER]:
            parts.append(f"{self._done[Kind.CLUSTER]:,} subreddits clustered")
        if self._done[Kind.INGEST]:
            parts.append(f"{self._done[Kind.INGEST]:,} dumps ingested")
        if self._failed:
            parts.append(f"{self._failed.total():,} failed")
        return ", ".join(parts)

    def ready(self, kind: Kind, facts: dict[str, Any]) -> None:
        """The engine is loaded."""
        self._began = time.monotonic()
        shown = [
            f"{name} {facts[name]}"
            for name in ("backend", "device", "precision", "threads", "tokenizer", "reduction")
            if facts.get(name) is not None
        ]
        log.info("Ready to %s: %s.", kind, ", ".join(shown) or "engine loaded")
        self._refresh()

    def holding(self, kind: Kind, jobs: int) -> None:
        """Jobs in this worker's hands now."""
        metrics.HELD.labels(kind).set(jobs)

    def started(self, kind: Kind, key: str) -> None:
        """A job is being computed."""
        self._current = self._currents[kind] = key
        self._refresh()

    def progressed(self, kind: Kind, rows: int) -> None:
        """Rows of a job are done."""
        self._rows[kind] += rows
        if rows:
            self._rates[kind].add(rows)
        metrics.ROWS.labels(kind).inc(rows)
        self._refresh()

    def stage(self, kind: Kind, stage: str, seconds: float) -> None:
        """A job has taken so long in a stage: ahead, work, compute or publish."""
        metrics.STAGES.labels(kind, stage).observe(seconds)

    def finished(self, kind: Kind, key: str, event: Finished, size: int = 0) -> None:
        """A job of ``size`` bytes of input is acknowledged."""
        outcome = event.result.outcome
        self._done[kind] += 1
        self._tokens += event.tokens
        metrics.JOBS.labels(kind, outcome).inc()
        metrics.TOKENS.labels(kind).inc(event.tokens)
        metrics.SECONDS.labels(kind).inc(event.seconds)
        metrics.BYTES.labels(kind).inc(size)
        self.stage(kind, "compute", event.seconds)
        if outcome == "made":
            rate = event.rows / event.seconds if event.seconds else 0.0
            what = f"{event.rows:,} rows in {event.seconds:.2f} s ({rate:,.0f} rows/s)"
        else:
            what = "was fresh already"
        facts = {
            "kind": kind,
            "key": key,
            "job": event.result.job,
            "outcome": outcome,
            "rows": event.rows,
            "seconds": event.seconds,
        }
        log.info("%s %s: %s", kind, key, what, extra=facts)
        self._refresh()

    def failed(self, kind: Kind, key: str, failure: Failure, outcome: str, job: str = "") -> None:
        """An attempt failed; ``outcome`` says what becomes of the job, whose id is ``job``."""
        self._failed[kind] += 1
        metrics.FAILURES.labels(kind, failure.type or "unknown").inc()
        metrics.JOBS.labels(kind, outcome).inc()
        text = f"{failure.error} {failure.hint}".strip()
        facts = {"kind": kind, "key": key, "job": job, "outcome": outcome, "reason": failure.type}
        log.error("%s %s failed (%s): %s", kind, key, outcome, text, extra=facts)
        self._refresh()

    def trouble(self, kind: Kind, key: str, failure: Failure, rest: float) -> None:
        """The host is at fault, and the job is given back unharmed. One line per cause."""
        if failure.hint != self._trouble:  # the error names the file, too
            text = f"{failure.error} {failure.hint}".strip()
            log.error(
                "%s %s is given back; the next try is in %.0f s: %s",
                kind,
                key,
                rest,
                text,
                extra={"kind": kind, "key": key, "reason": failure.type},
            )
        self._trouble = failure.hint

    def note(self, text: str) -> None:
        """Something worth knowing."""
        log.info("%s", text)

    def warn(self, text: str) -> None:
        """Something worth a look."""
        log.warning("%s", text)

    def _refresh(self) -> None:
        if self._status is not None:
            current = f" — {self._current}" if self._current else ""
            self._status.update(f"{self.summary()}{current}")
