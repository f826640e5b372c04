"""Messages to a webhook: new dead letters, a queue that stands still, a failed night, a summary.

May import ``figures``, ``workspace``, ``ledger``, ``settings`` and ``errors``. What was said is
kept in Redis, so that neither a restart nor a second reporter says it again.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from reddit_assets.errors import QueueUnavailableError
from reddit_assets.figures import Figures, Observer, duration
from reddit_assets.ledger.connection import redis_errors
from reddit_assets.ledger.job import Kind, new_token
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.workspace import Workspace

__all__ = ["Alerter", "Night"]

log = logging.getLogger(__name__)

_LOOK_SECONDS = 60.0
_STANDSTILL_SECONDS = 3600.0
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Night:
    """The latest failed nightly run."""

    run: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class _Message:
    """What is to be said, and what is noted once it was."""

    text: str
    topic: str
    said: str


class Alerter(threading.Thread):
    """Looks once a minute and posts what is new.

    Args:
        workspace: with a webhook in its settings.
        night: the latest failed nightly run, if it is known.
        clock: seconds since 1970; for tests.
    """

    def __init__(
        self,
        workspace: Workspace,
        night: Callable[[], Night | None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(name="alerts", daemon=True)
        self._workspace = workspace
        self._settings = workspace.settings
        self._observer = Observer(workspace)
        self._night = night
        self._clock = clock
        self._queue = workspace.queues[Kind.EMBED]
        self._name = new_token()
        self._stop_event = threading.Event()
        self._trouble = ""

    def stop(self) -> None:
        """End after the current look."""
        self._stop_event.set()

    def run(self) -> None:
        """Look until stopped; no fault of a look ends it."""
        while not self._stop_event.wait(_LOOK_SECONDS):
            try:
                self.look()
            except QueueUnavailableError as error:
                log.debug("No alerts now: %s", error)
            except Exception:
                log.exception("A look for alerts failed.")

    def look(self) -> list[str]:
        """One look; the messages that were sent. Another reporter may be the one that sends.

        Raises:
            QueueUnavailableError: Redis cannot be reached.
        """
        if not self._leads():
            return []
        sent = []
        for message in self._messages(self._observer.figures()):
            if not self._post(message.text):
                break
            self._note(message.topic, message.said)
            sent.append(message.text)
        return sent

    # --- what is to be said --------------------------------------------------------------
    def _messages(self, figures: Figures) -> Iterator[_Message]:
        for kind, queue in self._workspace.queues.items():
            yield from self._dead(kind, queue)
            yield from self._standstill(kind, queue, figures)
        night = self._night()
        if night is not None and self._noted("night") != night.run:
            link = f" {night.url}" if night.url else f" Run {night.run[:8]} in Dagster says why."
            yield _Message(f"The nightly rescan has failed.{link}", "night", night.run)
        yield from self._summary(figures)

    def _dead(self, kind: Kind, queue: JobQueue) -> Iterator[_Message]:
        topic, said = f"dead:{kind.value}", float(self._noted(f"dead:{kind.value}") or 0)
        new = {key: at for key, at in queue.dead_since().items() if at > said}
        if not new:
            return
        letters = queue.dead_letters(list(new)[:_SHOWN])
        lines = [f"• {letter.key}: {letter.error} {letter.hint}".rstrip() for letter in letters]
        more = len(new) - len(letters)
        lines += [f"… and {more:,} more"] if more > 0 else []
        text = f"{len(new):,} {kind.value} jobs were given up (`reddit-assets dead list`):\n"
        yield _Message(text + "\n".join(lines), topic, repr(max(new.values())))

    def _standstill(self, kind: Kind, queue: JobQueue, figures: Figures) -> Iterator[_Message]:
        seen, topic = figures.queues.get(kind), f"standstill:{kind.value}"
        if seen is None:
            return
        counts, before = seen.counts, self._noted(topic)
        done = str(counts.totals.get("done", 0))
        moving = before.split()[0] != done if before else True
        if kind is not Kind.EMBED and seen.computing:
            moving = True  # one job may take hours, and a stalled one is killed
        if moving or not counts.unfinished or counts.paused:
            if before and before.endswith("said"):
                yield _Message(f"{kind.value} goes on.", topic, f"{done} {self._clock()} seen")
            else:
                self._note(topic, f"{done} {self._clock()} seen")
            return
        assert before is not None
        _, since, state = before.split()
        if state == "seen" and self._clock() - float(since) >= _STANDSTILL_SECONDS:
            waiting = counts.queued + counts.delayed + counts.leased
            workers = f"{len(seen.workers):,} workers are there" if seen.workers else "No worker"
            text = (
                f"No {kind.value} job has been done for {duration(self._clock() - float(since))}, "
                f"although {waiting:,} are there. {workers}. `reddit-assets status`"
            )
            yield _Message(text, topic, f"{done} {since} said")

    def _summary(self, figures: Figures) -> Iterator[_Message]:
        hour = self._settings.summary_hour
        now = datetime.fromtimestamp(self._clock(), UTC)
        if hour is None or now.hour < hour:
            return
        today, before = now.date().isoformat(), json.loads(self._noted("summary") or "{}")
        if before.get("day") == today or not figures.queues:
            return
        totals = {kind.value: queue.counts.totals for kind, queue in figures.queues.items()}
        said = json.dumps({"day": today, "totals": totals})
        if not before:  # nothing to compare with on the first day
            self._note("summary", said)
            return
        parts = []
        for kind, now_totals in totals.items():
            then = before["totals"].get(kind, {})
            more = {
                name: max(0, now_totals.get(name, 0) - then.get(name, 0))
                for name in ("done", "rows", "failed")
            }
            failed = f", {more['failed']:,} attempts failed" if more["failed"] else ""
            if any(more.values()):
                parts.append(f"{kind}: {more['done']:,} jobs done, {more['rows']:,} rows{failed}")
        done = "; ".join(parts) or "nothing was done"
        text = f"Since {before['day']}: {done}.\nNow: {figures.line()}."
        yield _Message(text, "summary", said)

    # --- sending and remembering -----------------------------------------------------------
    def _leads(self) -> bool:
        name = f"{self._queue.prefix}alerter"
        with redis_errors(self._queue.client):
            self._queue.client.set(name, self._name, nx=True, px=int(3000 * _LOOK_SECONDS))
            if self._queue.client.get(name) != self._name:
                return False
            self._queue.client.set(name, self._name, px=int(3000 * _LOOK_SECONDS))
        return True

    def _noted(self, topic: str) -> str | None:
        with redis_errors(self._queue.client):
            found = self._queue.client.hget(f"{self._queue.prefix}alerts", topic)
        return None if found is None else str(found)

    def _note(self, topic: str, said: str) -> None:
        with redis_errors(self._queue.client):
            self._queue.client.hset(f"{self._queue.prefix}alerts", topic, said)

    def _post(self, text: str) -> bool:
        """Whether the webhook took it. Its address is a secret: it is in no message of ours."""
        url = self._settings.webhook_url
        if url is None:
            return False
        try:
            answer = httpx.post(url.get_secret_value(), json={"text": text}, timeout=10.0)
            problem = "" if answer.is_success else f"status {answer.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            problem = type(error).__name__
        if problem and problem != self._trouble:
            log.warning("The webhook does not take messages (%s); they are kept.", problem)
        self._trouble = problem
        return not problem
