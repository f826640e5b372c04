"""Whether everything is done: on disk, in the queue, and according to Dagster."""

from __future__ import annotations

from dataclasses import dataclass, field

from reddit_assets.corpus.scan import SubredditStatus, Verdict
from reddit_assets.errors import StartupError
from reddit_assets.ledger.job import DeadLetter, Kind
from reddit_assets.ledger.operations import QueueCounts
from reddit_assets.ledger.planner import ScanReport, queue_wanted
from reddit_assets.local.instance import Page
from reddit_assets.workspace import Workspace

__all__ = ["Completion", "Watch"]


@dataclass
class Completion:
    """How far everything is.

    Attributes:
        files, files_done: chain files, and those with a usable embedding file.
        clusters, clusters_done: subreddits, and those with a usable cluster file.
        adopted_files, adopted_clusters: those of them that the earlier system made.
        settled: nothing is queued, in work, unreported, or still to be queued.
        unreported: by asset, how many partitions Dagster does not have yet; ``None`` as long as
            there was no reason to ask.
        dead: jobs that were given up.
        problems: files that cannot be partitions.
        ignored: what lies in the tree without being a chain file, by reason.
        paused: whether a queue is paused, so that nothing will be done.
    """

    files: int = 0
    files_done: int = 0
    clusters: int = 0
    clusters_done: int = 0
    adopted_files: int = 0
    adopted_clusters: int = 0
    settled: bool = False
    unreported: dict[str, int] | None = None
    dead: list[DeadLetter] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)
    paused: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing will change any more by itself."""
        return self.settled and self.unreported is not None and not any(self.unreported.values())

    def line(self) -> str:
        """The state in words."""
        text = (
            f"{self.files_done:,} of {self.files:,} files embedded, "
            f"{self.clusters_done:,} of {self.clusters:,} subreddits clustered"
        )
        if self.dead:
            text += f", {len(self.dead):,} dead letters"
        missing = sum((self.unreported or {}).values())
        if missing:
            text += f", {missing:,} partitions not yet materialized in Dagster"
        if self.paused:
            text += "; paused: `reddit-assets resume` goes on"
        return text


class Watch:
    """Looks again and again. Each look also queues what is missing, as a sensor's tick does.

    Args:
        page: Dagster's webserver.
    """

    def __init__(self, workspace: Workspace, page: Page) -> None:
        self._workspace = workspace
        self._queues = workspace.queues
        self._page = page

    def counts(self) -> dict[Kind, QueueCounts]:
        """Where the queues' jobs are."""
        return {kind: queue.counts() for kind, queue in self._queues.items()}

    def glance(self) -> str:
        """The queues' state in words, without a look at the disk.

        Raises:
            QueueUnavailableError: Redis does not answer.
        """
        parts = []
        for kind, count in self.counts().items():
            words = [f"{count.queued + count.delayed:,} waiting", f"{count.leased:,} in work"]
            words += [f"{count.dead:,} dead letters"] if count.dead else []
            words += ["paused"] if count.paused else []
            parts.append(f"{kind.value}: {count.totals.get('done', 0):,} done, {', '.join(words)}")
        return "; ".join(parts)

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
        scanner = self._workspace.scanner(dead=dead_keys)
        report = queue_wanted(scanner, self._queues, kinds=kinds, observe=seen)
        state = _tally(seen, dead, report)
        # Counted after the scan: what a worker finished meanwhile is at worst seen next time.
        counts = self.counts().values()
        state.paused = any(count.paused for count in counts)
        quiet = all(count.idle for count in counts)
        state.settled = quiet and self._nothing_pending(seen, dead_keys)
        if state.settled:
            state.unreported = self._unreported(seen)
        return state

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


def _tally(seen: list[SubredditStatus], dead: list[DeadLetter], report: ScanReport) -> Completion:
    clusters = [s.cluster for s in seen if s.cluster is not None and s.files]
    return Completion(
        files=sum(len(status.files) for status in seen),
        files_done=sum(f.verdict.done for status in seen for f in status.files),
        clusters=len(clusters),
        clusters_done=sum(cluster.verdict.done for cluster in clusters),
        adopted_files=report.files[Verdict.ADOPTED],
        adopted_clusters=report.clusters[Verdict.ADOPTED],
        dead=dead,
        problems=report.problems,
        ignored=report.ignored,
    )
