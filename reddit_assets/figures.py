"""How far everything is: what is done and left, who works on it, how long it will take.

``status``, ``up``, the metrics and the alerts take their figures from here, so that all agree.
May import ``workspace``, ``corpus``, ``ledger``, ``settings`` and ``errors``.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from reddit_assets.corpus.scan import FileStatus, SubredditStatus, Verdict
from reddit_assets.corpus.snapshot_rows import Closed
from reddit_assets.errors import QueueUnavailableError, RedditAssetsError
from reddit_assets.ledger.job import WORK, Kind
from reddit_assets.ledger.operations import QueueCounts
from reddit_assets.ledger.pace import Pace
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.workspace import Workspace

__all__ = ["Figures", "Observer", "QueueFigures", "Tally", "Trees", "WorkerFigures", "duration"]

# A look at a large tree takes long: it may take at most this share of the time.
_LOOKING_SHARE = 0.1
# Where another process looks, figures are what it knew before, rather than late.
_PATIENCE_SECONDS = 2.0


def duration(seconds: float) -> str:
    """A time as people say it: `40 s`, `12 min`, `5.5 h`, `3 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.0f} days"


@dataclass(slots=True)
class Tally:
    """Wanted outputs of one kind; each is counted once, dead letters as failed.

    Attributes:
        done: can be used as they are.
        adopted: those of the done that the earlier system made.
        settling: their inputs were just written.
        waiting: their inputs are not there yet, or cannot be read now.
        failed: dead letters: nothing happens until somebody retries them.
        bytes, bytes_left: of the inputs, in all and of what is neither done nor failed.
    """

    done: int = 0
    adopted: int = 0
    missing: int = 0
    stale: int = 0
    settling: int = 0
    waiting: int = 0
    failed: int = 0
    bytes: int = 0
    bytes_left: int = 0

    @property
    def total(self) -> int:
        """How many are wanted."""
        return self.done + self.left + self.failed

    @property
    def left(self) -> int:
        """Those that will be made by themselves."""
        return self.missing + self.stale + self.settling + self.waiting

    def add(self, verdict: Verdict, size: int, *, dead: bool) -> None:
        """Count an output.

        Args:
            size: bytes of its input.
            dead: whether its job is a dead letter.
        """
        self.bytes += size
        if verdict.done:
            self.done += 1
            self.adopted += verdict is Verdict.ADOPTED
        elif dead:
            self.failed += 1
        else:
            self.bytes_left += size
            setattr(self, verdict.value, getattr(self, verdict.value) + 1)


@dataclass(slots=True)
class Trees:
    """What is on the disk. Count subreddits into it with :meth:`add`.

    Attributes:
        outputs: embedding files and clustered files.
        oldest: when the chain file changed that has waited longest, seconds since 1970.
        seconds: how long the look took.
    """

    outputs: dict[Kind, Tally] = field(default_factory=lambda: {kind: Tally() for kind in WORK})
    oldest: float | None = None
    seconds: float = 0.0

    def add(self, status: SubredditStatus, dead: Mapping[Kind, Container[str]]) -> None:
        """Count a subreddit.

        Args:
            dead: keys of dead letters.
        """
        size = 0
        for file in status.files:
            failed = file.key in dead.get(Kind.EMBED, ())
            self.outputs[Kind.EMBED].add(file.verdict, file.stamp.size, dead=failed)
            size += file.stamp.size
            if not (file.verdict.done or failed):
                self._waits(file)
        if status.files and status.cluster is not None:
            failed = status.cluster_key in dead.get(Kind.CLUSTER, ())
            # Of a subreddit all of whose files have failed, nothing is left to cluster.
            failed |= bool(status.cluster.excluded) and not status.cluster.inputs
            self.outputs[Kind.CLUSTER].add(status.cluster.verdict, size, dead=failed)

    def add_finished(self, closed: Closed) -> None:
        """Count subreddits of which everything is done."""
        for kind, fresh, adopted in (
            (Kind.EMBED, closed.fresh, closed.adopted),
            (Kind.CLUSTER, closed.clustered, closed.kept),
        ):
            tally = self.outputs[kind]
            tally.done += fresh + adopted
            tally.adopted += adopted
            tally.bytes += closed.bytes

    def _waits(self, file: FileStatus) -> None:
        since = file.stamp.changed_at
        self.oldest = since if self.oldest is None else min(self.oldest, since)

    @classmethod
    def look(cls, workspace: Workspace, dead: Mapping[Kind, Container[str]]) -> Trees:
        """Look at the trees.

        Raises:
            SettingsError: the trees are not named or there are no chain files.
        """
        began = time.monotonic()
        trees = cls()
        scanner = workspace.scanner(
            dead=dead.get(Kind.EMBED, ()), patience_seconds=_PATIENCE_SECONDS
        )
        trees.add_finished(scanner.finished())
        for status in scanner.unfinished():
            trees.add(status, dead)
        trees.seconds = time.monotonic() - began
        return trees


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """A living worker, as it announced itself.

    Attributes:
        held, computing: jobs that it has, and those of them that are being computed.
        rows_per_second: lately.
        seen_seconds: since its last sign of life.
    """

    name: str
    kind: Kind
    host: str = ""
    backend: str = ""
    device: str = ""
    precision: str = ""
    held: int = 0
    computing: int = 0
    done: int = 0
    failed: int = 0
    rows_per_second: float = 0.0
    current: str = ""
    seen_seconds: float = 0.0

    @classmethod
    def parse(cls, name: str, kind: Kind, facts: Mapping[str, str], seen: float) -> WorkerFigures:
        """From what an announcement says; what an older worker does not say is left out."""
        known: dict[str, Any] = {
            name: facts[name]
            for name in ("host", "backend", "device", "precision", "current")
            if name in facts
        }
        for count in ("held", "computing", "done", "failed"):
            if facts.get(count, "").isdecimal():
                known[count] = int(facts[count])
        with suppress(ValueError):
            known["rows_per_second"] = float(facts.get("rows_per_second", ""))
        return cls(name, kind, **known, seen_seconds=seen)


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """One kind's queue.

    Attributes:
        counts: where its jobs are.
        lanes: lengths of the lanes that are not empty.
        pace: what was done in the last ten minutes.
        workers: those alive.
    """

    counts: QueueCounts
    lanes: dict[str, int]
    pace: Pace
    workers: tuple[WorkerFigures, ...] = ()

    @classmethod
    def ask(cls, queue: JobQueue) -> QueueFigures:
        """Ask the queue. Raises QueueUnavailableError."""
        seen = queue.last_seen()
        workers = tuple(
            WorkerFigures.parse(name, queue.kind, facts, seen.get(name, 0.0))
            for name, facts in sorted(queue.workers().items())
        )
        return cls(queue.counts(), queue.lanes(), queue.pace(), workers)

    @property
    def computing(self) -> int:
        """Jobs being computed; the other leased ones are only fetched ahead."""
        return min(self.counts.leased, sum(worker.computing for worker in self.workers))

    def seconds_left(self, outputs: Tally) -> float | None:
        """How long the rest will take at the present pace; ``None`` if there is none."""
        if not outputs.left:
            return 0.0
        pace = self.pace
        # Large files take longer than small ones.
        if pace.bytes and outputs.bytes_left:
            return outputs.bytes_left / pace.per_second("bytes")
        return outputs.left / pace.per_second("done") if pace.done else None


@dataclass(slots=True)
class Figures:
    """Everything at one moment.

    Attributes:
        at: seconds since 1970.
        trees: ``None`` where they were not looked at.
        queues: none where Redis was not asked.
        problems: why something is not known, as sentences.
    """

    at: float
    trees: Trees | None = None
    queues: dict[Kind, QueueFigures] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        workspace: Workspace,
        statuses: Iterable[SubredditStatus],
        finished: Closed | None = None,
    ) -> Figures:
        """From a scan that was just made.

        Args:
            statuses: of all subreddits, or of all but the finished ones.
            finished: sums over these.

        Raises:
            QueueUnavailableError: Redis does not answer.
        """
        trees = Trees()
        if finished is not None:
            trees.add_finished(finished)
        dead = {kind: queue.dead_keys() for kind, queue in workspace.queues.items()}
        for status in statuses:
            trees.add(status, dead)
        asked = {kind: QueueFigures.ask(queue) for kind, queue in workspace.queues.items()}
        return cls(time.time(), trees, asked)

    @property
    def workers(self) -> list[WorkerFigures]:
        """Of both queues."""
        return [worker for queue in self.queues.values() for worker in queue.workers]

    @property
    def outbox(self) -> int:
        """Results that Dagster does not have yet."""
        return sum(queue.counts.outbox for queue in self.queues.values())

    @property
    def done(self) -> bool:
        """Whether nothing is left to be made or reported."""
        if self.trees is None or any(tally.left for tally in self.trees.outputs.values()):
            return False
        return all(queue.counts.idle for queue in self.queues.values())

    def seconds_left(self) -> float | None:
        """How long the rest will take; ``None`` if it cannot be known yet.

        Embedding and clustering go on side by side, so the longer one counts. Clustering that
        only waits for files is not counted: its pace is known when it has begun.
        """
        if self.trees is None:
            return None
        times = []
        for kind, outputs in self.trees.outputs.items():
            left = self.queues[kind].seconds_left(outputs) if kind in self.queues else None
            if left is None and kind is Kind.EMBED:
                return None
            times.append(left)
        known = [left for left in times if left is not None]
        longest = max(known, default=0.0)
        return longest if longest or len(known) == len(times) else None

    def line(self) -> str:
        """The state in one sentence without a full stop, for ``up`` and for logs."""
        parts = []
        if self.trees is not None:
            files, subreddits = (self.trees.outputs[kind] for kind in (Kind.EMBED, Kind.CLUSTER))
            parts.append(
                f"{files.done:,} of {files.total:,} files embedded, "
                f"{subreddits.done:,} of {subreddits.total:,} subreddits clustered"
            )
        parts += self._work()
        failed = sum(queue.counts.dead for queue in self.queues.values())
        if failed:
            parts.append(f"{failed:,} failed (`reddit-assets dead list`)")
        if any(queue.counts.paused for queue in self.queues.values()):
            parts.append("paused: `reddit-assets resume` goes on")
        left = self.seconds_left()
        if left:
            parts.append(f"about {duration(left)} left")
        return "; ".join(parts)

    def _work(self) -> list[str]:
        counts = [queue.counts for queue in self.queues.values()]
        leased = sum(count.leased for count in counts)
        waiting = sum(count.queued + count.delayed for count in counts)
        if not leased:
            return [f"{waiting:,} waiting"] if waiting else []
        computing = sum(queue.computing for queue in self.queues.values())
        ahead = leased - computing
        shown = ((computing, "computing"), (ahead, "fetched ahead"), (waiting, "waiting"))
        # The first is shown also where it is none: engines load, or nothing but reading is done.
        parts = [", ".join(f"{n:,} {what}" for n, what in shown if n or what == "computing")]
        rate = self.queues[Kind.EMBED].pace.per_second("rows") if Kind.EMBED in self.queues else 0
        return [*parts, f"{rate:,.0f} rows/s"] if rate else parts

    def fields(self) -> dict[str, Any]:
        """As JSON."""
        trees = self.trees
        outputs = {} if trees is None else trees.outputs
        return {
            "at": self.at,
            "done": self.done,
            "seconds_left": self.seconds_left(),
            "outputs": {
                kind.asset: {**asdict(t), "total": t.total, "left": t.left}
                for kind, t in outputs.items()
            },
            "oldest_unfinished": None if trees is None else trees.oldest,
            "queues": {kind.value: _queue_fields(queue) for kind, queue in self.queues.items()},
            "workers": [asdict(worker) for worker in self.workers],
            "problems": self.problems,
        }


def _queue_fields(queue: QueueFigures) -> dict[str, Any]:
    names = ("done", "rows", "tokens", "bytes")
    return {
        **asdict(queue.counts),
        "computing": queue.computing,
        "lanes": queue.lanes,
        "pace": {
            **asdict(queue.pace),
            **{f"{name}_per_second": queue.pace.per_second(name) for name in names},
        },
    }


class Observer:
    """Looks again and again; a look at large trees is not repeated at each.

    Args:
        workspace: its queues are asked if it has any.
        trees: whether to look at the trees.
    """

    def __init__(self, workspace: Workspace, *, trees: bool = True) -> None:
        self._workspace = workspace
        self._wants_trees = trees
        self._trees: Trees | None = None
        self._next_look = 0.0

    def figures(self) -> Figures:
        """Everything as it is now; what cannot be seen is a problem among the others."""
        figures = Figures(time.time())
        dead: dict[Kind, set[str]] = {}
        try:
            for kind, queue in self._workspace.queues.items():
                figures.queues[kind] = QueueFigures.ask(queue)
                dead[kind] = queue.dead_keys()
        except QueueUnavailableError as error:
            figures.queues = {}
            figures.problems.append(str(error))
        if self._wants_trees:
            try:
                figures.trees = self._look(dead)
            except (RedditAssetsError, OSError) as error:
                figures.problems.append(str(error))
        return figures

    def _look(self, dead: Mapping[Kind, Container[str]]) -> Trees:
        now = time.monotonic()
        if self._trees is None or now >= self._next_look:
            self._trees = Trees.look(self._workspace, dead)
            self._next_look = now + self._trees.seconds / _LOOKING_SHARE
        return self._trees
