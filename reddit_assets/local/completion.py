"""Whether everything is done: on disk, in the queue, and according to Dagster."""

from __future__ import annotations

from dataclasses import dataclass, field

from reddit_assets.corpus.scan import SubredditStatus
from reddit_assets.errors import StartupError
from reddit_assets.figures import Figures, Observer, Tally
from reddit_assets.ingest.wanted import dump_keys, wanted_dumps
from reddit_assets.ledger.job import DeadLetter, Job, Kind
from reddit_assets.ledger.operations import QueueCounts
from reddit_assets.ledger.planner import queue_wanted
from reddit_assets.local.instance import Page
from reddit_assets.workspace import Workspace

__all__ = ["Completion", "Watch"]


@dataclass
class Completion:
    """How far everything is.

    Attributes:
        figures: of the tree and the queues; ``None`` before the first look.
        settled: nothing is queued, in work, unreported, or still to be queued.
        unreported: by asset, how many partitions Dagster does not have yet; ``None`` as long as
            there was no reason to ask.
        dead: jobs that were given up.
        problems: files that cannot be partitions.
        ignored: what lies in the tree without being a chain file, by reason.
    """

    figures: Figures | None = None
    settled: bool = False
    unreported: dict[str, int] | None = None
    dead: list[DeadLetter] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)

    def outputs(self, kind: Kind) -> Tally:
        """How many outputs of a kind there are."""
        trees = self.figures.trees if self.figures is not None else None
        return trees.outputs[kind] if trees is not None else Tally()

    @property
    def done(self) -> bool:
        """Whether nothing will change any more by itself."""
        return self.settled and self.unreported is not None and not any(self.unreported.values())

    def line(self) -> str:
        """The state in words."""
        if self.figures is None:
            return "Nothing was looked at yet"
        parts = [self.figures.line(), *(one.rstrip(".") for one in self.figures.problems)]
        missing = sum((self.unreported or {}).values())
        if missing:
            parts.append(f"{missing:,} partitions not yet materialized in Dagster")
        return "; ".join(part for part in parts if part)


class Watch:
    """Looks again and again. Each look also queues what is missing, as a sensor's tick does.

    Args:
        page: Dagster's webserver.
    """

    def __init__(self, workspace: Workspace, page: Page) -> None:
        self._workspace = workspace
        self._queues = workspace.queues
        self._page = page
        self._observer = Observer(workspace)

    def counts(self) -> dict[Kind, QueueCounts]:
        """Where the queues' jobs are."""
        return {kind: queue.counts() for kind, queue in self._queues.items()}

    def glance(self) -> Completion:
        """Looks at disk and queues, and changes nothing: Dagster's sensors queue what is missing.

        What cannot be seen now is a problem of its figures.
        """
        return Completion(self._observer.figures())

    def look(self) -> Completion:
        """Scans, queues what is wanted, and asks Dagster when all else is done.

        Raises:
            QueueUnavailableError: Redis does not answer.
        """
        dead = [letter for queue in self._queues.values() for letter in queue.dead_letters()]
        dead_keys = {letter.key for letter in dead}
        seen: list[SubredditStatus] = []
        # Only where nothing is in work: what a worker finishes between our look at its file and
        # the enqueueing would be queued again (and found fresh).
        kinds = tuple(
            kind
            for kind, count in self.counts().items()
            if not (count.public or count.queued or count.delayed or count.leased)
        )
        dumps = self._queue_dumps()
        scanner = self._workspace.scanner(dead=dead_keys)
        report = queue_wanted(scanner, self._queues, kinds=kinds, each=seen.append)
        # Counted after the scan: what a worker finished meanwhile is at worst seen next time.
        figures = Figures.of(self._workspace, seen, scanner.finished())
        state = Completion(figures, dead=dead, problems=report.problems, ignored=report.ignored)
        quiet = all(queue.counts.idle for queue in figures.queues.values())
        state.settled = quiet and not dumps and self._nothing_pending(seen, dead_keys)
        if state.settled:
            state.unreported = self._unreported(list(scanner.scan()))
        return state

    def _queue_dumps(self) -> int:
        """Queues dumps that are not ingested; how many there are."""
        workspace = self._workspace
        keys = dump_keys(workspace.settings, workspace.layout)
        wanted = wanted_dumps(workspace.settings, workspace.layout, keys)
        jobs = [Job(Kind.INGEST, key, stamp) for key, stamp in wanted.items()]
        if jobs:
            self._queues[Kind.INGEST].enqueue(jobs, workspace.layout)
        return len(jobs)

    @staticmethod
    def _nothing_pending(seen: list[SubredditStatus], dead: set[str]) -> bool:
        for status in seen:
            if any(not f.verdict.done and f.key not in dead for f in status.files):
                return False
            cluster = status.cluster
            waits_for_dead = bool(status.files) and all(f.key in dead for f in status.files)
            if (
                cluster is not None
                and status.files
                and not cluster.verdict.done
                and status.cluster_key not in dead
                and not waits_for_dead
            ):
                return False
        return True

    def _unreported(self, seen: list[SubredditStatus]) -> dict[str, int] | None:
        files = {f.key for status in seen for f in status.files if f.verdict.done}
        clusters = {s.cluster_key for s in seen if s.cluster and s.files and s.cluster.verdict.done}
        try:
            known = self._page.materialized()
        except StartupError:
            return None  # The webserver is being restarted, or still loads.
        wanted = {"chains": files, "embeddings": files, "clusters": clusters}
        return {asset: len(keys - known.get(asset, set())) for asset, keys in wanted.items()}
