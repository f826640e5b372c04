"""From a scan to jobs: what is missing or stale is queued, and nothing that is queued already.

Used alike by ``reddit-assets scan``, the sensors and the nightly rescan. Safe to interrupt and to
repeat: the ledger knows what is queued, and the disk what is done.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.parquet as pq

from reddit_assets.corpus.cluster_table import rename_old_table
from reddit_assets.corpus.keys import shard_of
from reddit_assets.corpus.oserrors import open_file, vanished
from reddit_assets.corpus.output import remove_temporary
from reddit_assets.corpus.scan import (
    ClusterStatus,
    Reason,
    Scanner,
    SubredditStatus,
    Verdict,
)
from reddit_assets.corpus.snapshot_rows import Closed
from reddit_assets.corpus.texts import MOSTLY
from reddit_assets.corpus.walk import Passed
from reddit_assets.errors import BadFileError, RedditAssetsError
from reddit_assets.ledger.intake import repush, unlisted
from reddit_assets.ledger.job import WORK, Job, Kind, Lane, outputs_of, partition_of
from reddit_assets.ledger.queue import Enqueued, JobQueue

__all__ = [
    "ScanReport",
    "Sweep",
    "queue_wanted",
    "sweep",
    "wanted_jobs",
]

# Jobs gathered before they are sent to Redis together.
_CHUNK = 2_000


@dataclass(slots=True)
class ScanReport:
    """What a scan found and queued.

    Attributes:
        files: verdicts on embedding files.
        clusters: verdicts on cluster files.
        jobs: what became of the jobs of each kind; in a dry run, ``queued`` is what would be.
        rows: rows of the files to embed; counted in a dry run only.
        reasons: why files are stale, by key (at most a few hundred).
        problems: files that cannot be partitions or cannot be looked at, as sentences.
        ignored: what lies in the tree without being a chain file: entries by reason.
        ignored_examples: the path of one of them by reason.
        litter: files that everybody expects to be ignored.
        mostly_empty: keys of files of whose texts more than half are empty (a few hundred).
        resume_after: cluster key to go on from, when the time budget ended the scan early.
    """

    subreddits: int = 0
    files: Counter[Verdict] = field(default_factory=Counter)
    clusters: Counter[Verdict] = field(default_factory=Counter)
    jobs: dict[Kind, Enqueued] = field(default_factory=lambda: {kind: Enqueued() for kind in WORK})
    rows: int = 0
    orphans: list[str] = field(default_factory=list)
    temporary: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)
    ignored_examples: dict[str, str] = field(default_factory=dict)
    litter: int = 0
    mostly_empty: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    resume_after: str | None = None

    @property
    def done(self) -> bool:
        """Whether nothing is missing, stale, settling or waiting."""
        pending = (Verdict.MISSING, Verdict.STALE, Verdict.SETTLING, Verdict.WAITING)
        return not any(self.files[v] + self.clusters[v] for v in pending)

    def add_passed(self, passed: Passed) -> None:
        """What a walk has passed by."""
        self.ignored = {str(why): count for why, count in passed.counts.items()}
        self.ignored_examples = {str(why): path for why, path in passed.examples.items()}
        self.litter = passed.litter

    def add_queued(self, first: ScanReport) -> None:
        """Counts what an earlier part of the same scan queued, which this one found queued."""
        for kind, before in first.jobs.items():
            both = self.jobs[kind]
            both.queued += before.queued
            both.already = max(0, both.already - before.queued)


def wanted_jobs(status: SubredditStatus, text_columns: str = "") -> Iterator[tuple[Job, Lane]]:
    """The jobs that a subreddit needs now, each with its lane.

    Missing outputs go where plain consumers read; those would skip a stale one, which exists.

    Args:
        text_columns: the scan's option, which enters the stamps.
    """
    for file in status.files:
        if file.verdict.wanted:
            lane = Lane.PUBLIC if file.output_stamp is None else Lane.STALE
            exact = file.reason is Reason.NONCONFORMANT
            stamp = file.stamp.job_stamp(text_columns, exact=exact)
            # A worker that adopts would call the file fresh.
            force = file.reason is Reason.NOT_ADOPTED
            yield Job(Kind.EMBED, file.key, stamp, force=force), lane
    cluster = status.cluster
    if cluster is not None and cluster.verdict.wanted:
        lane = Lane.PUBLIC if cluster.verdict is Verdict.MISSING else Lane.STALE
        yield Job(Kind.CLUSTER, status.cluster_key, cluster.stamp), lane


class _Batches:
    """Gathers jobs by queue and lane and sends them in large calls; in a dry run it counts them."""

    def __init__(
        self, scanner: Scanner, queues: dict[Kind, JobQueue], *, urgent: bool, dry_run: bool
    ) -> None:
        self._scanner = scanner
        self._layout = scanner.layout
        self._queues = queues
        self._urgent = urgent
        self._dry_run = dry_run
        self.rows = 0
        self._waiting: dict[tuple[Kind, Lane], list[Job]] = {}
        self.totals = {kind: Enqueued() for kind in WORK}

    def add(self, job: Job, lane: Lane) -> None:
        waiting = self._waiting.setdefault((job.kind, lane), [])
        waiting.append(job)
        if len(waiting) >= _CHUNK:
            self._send(job.kind, lane)

    def _send(self, kind: Kind, lane: Lane) -> None:
        jobs = self._waiting.pop((kind, lane), [])
        if jobs and self._dry_run:
            self._count(kind, jobs)
        elif jobs:
            self.totals[kind] += self._queues[kind].enqueue(
                jobs, self._layout, lane=lane, urgent=self._urgent
            )

    def _count(self, kind: Kind, jobs: list[Job]) -> None:
        queue = self._queues.get(kind)
        keys = [job.key for job in jobs]
        there = queue.unfinished(keys) if queue is not None else set()
        dead = queue.given_up({job.key: job.stamp for job in jobs}) if queue is not None else set()
        new = [key for key in keys if key not in there and key not in dead]
        self.totals[kind] += Enqueued(queued=len(new), already=len(there), blocked=len(dead))
        if kind is Kind.EMBED:
            self.rows += sum(_rows(self._scanner, key) for key in new)

    def flush(self) -> None:
        for kind, lane in list(self._waiting):
            self._send(kind, lane)


def queue_wanted(
    scanner: Scanner,
    queues: dict[Kind, JobQueue],
    *,
    kinds: tuple[Kind, ...] = WORK,
    after: str | None = None,
    budget_seconds: float | None = None,
    dry_run: bool = False,
    urgent: bool = False,
    shard: str | None = None,
    observe: list[SubredditStatus] | None = None,
    each: Callable[[SubredditStatus], object] | None = None,
    hold: Callable[[str, ClusterStatus], bool] | None = None,
) -> ScanReport:
    """Scan and queue what is wanted.

    Args:
        scanner: what to look at. Give it the embed queue's ``dead_keys()``.
        kinds: which outputs to queue.
        after: cluster key to begin behind: an earlier report's ``resume_after``.
        budget_seconds: stop after this time; the report says where.
        dry_run: count, also rows, but queue nothing; without ``queues``, what is queued already
            counts as well.
        shard: look at this shard only.
        observe: every subreddit's status is appended to it. Without it, subreddits of which
            everything is done are counted and not looked at one by one.
        each: is called with each subreddit that is looked at one by one.
        hold: takes a cluster key and status; where it says so, the cluster waits.
    """
    report = ScanReport()
    batches = _Batches(scanner, queues, urgent=urgent, dry_run=dry_run)
    passed = Passed()
    started = time.monotonic()
    if observe is None and shard is None and after is None:
        _add_finished(report, passed, scanner.finished())
    for status in scanner.scan(after) if observe is not None else scanner.unfinished(after):
        if shard is not None and shard_of(status.cluster_key) != shard:
            continue
        report.subreddits += 1
        if status.old_table and not dry_run:
            _rename_old_table(scanner, status, report)
        report.files.update(file.verdict for file in status.files)
        if hold is not None and status.cluster and hold(status.cluster_key, status.cluster):
            status.cluster = replace(status.cluster, verdict=Verdict.WAITING)
        if status.cluster is not None and (status.files or status.cluster.verdict.done):
            report.clusters[status.cluster.verdict] += 1
        report.orphans += status.orphans
        report.temporary += [str(path) for path in status.temporary]
        report.problems += [str(problem) for problem in status.problems]
        passed.update(status.passed)
        if each is not None:
            each(status)
        for file in status.files:
            if file.reason and len(report.reasons) < 500:
                report.reasons[file.key] = file.sentence
            if file.empty_texts > MOSTLY and len(report.mostly_empty) < 500:
                report.mostly_empty.append(file.key)
        for job, lane in wanted_jobs(status, scanner.options.text_columns):
            if job.kind in kinds:
                batches.add(job, lane)
        if observe is not None:
            observe.append(status)
        if budget_seconds is not None and time.monotonic() - started > budget_seconds:
            report.resume_after = status.cluster_key
            break
    batches.flush()
    report.rows = batches.rows
    report.jobs = batches.totals
    report.problems += [str(problem) for problem in scanner.problems]
    passed.update(scanner.passed)
    report.add_passed(passed)
    report.seconds = time.monotonic() - started
    return report


def _add_finished(report: ScanReport, passed: Passed, closed: Closed) -> None:
    report.subreddits += closed.subreddits
    report.files.update({Verdict.FRESH: closed.fresh, Verdict.ADOPTED: closed.adopted})
    report.clusters.update({Verdict.FRESH: closed.clustered, Verdict.ADOPTED: closed.kept})
    for verdicts in (report.files, report.clusters):
        for verdict in [verdict for verdict, count in verdicts.items() if not count]:
            del verdicts[verdict]
    passed.litter += closed.litter


def _rename_old_table(scanner: Scanner, status: SubredditStatus, report: ScanReport) -> None:
    """Here, not in every scan: this one writes anyway, and every new job is queued here."""
    try:
        rename_old_table(scanner.layout.cluster_dir(status.cluster_key))
    except RedditAssetsError as error:
        report.problems.append(str(error))


def _rows(scanner: Scanner, key: str) -> int:
    """Rows of a chain file by its footer; 0 if it cannot be read (its job will say why)."""
    try:
        with open_file(scanner.layout.chain_path(key)) as file:
            return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError, BadFileError):
        return 0


@dataclass(frozen=True, slots=True)
class Sweep:
    """What became of jobs that plain consumers took.

    Attributes:
        closed: keys whose outputs are there.
        repushed: keys that were lost and are in the list again.
        forgotten: dead letters purged because their chain files have vanished, or because their
            outputs are there.
    """

    closed: tuple[str, ...]
    repushed: tuple[str, ...]
    forgotten: tuple[str, ...] = ()


def sweep(scanner: Scanner, queue: JobQueue, *, lost_seconds: float) -> Sweep:
    """Settle jobs that plain consumers have taken from the public list, and those of files gone.

    Args:
        lost_seconds: a job without an output counts as lost this long after it was queued.
    """

    def made(key: str) -> bool:
        if queue.kind is Kind.EMBED:
            file = scanner.file(key)
            return file is None or file.verdict.done
        cluster = scanner.subreddit(key).cluster
        return cluster is not None and cluster.verdict.done

    def settled(ids: dict[str, str]) -> set[str]:
        found = set()
        for key in ids:
            try:
                if made(key):
                    found.add(key)
            except RedditAssetsError:
                continue  # cannot be judged now: it stays queued, and the next sweep looks again
        return found

    taken = unlisted(queue, 0)
    done = settled(taken)
    tombs = queue.tombs(done)
    queue.close({key: taken[key] for key in done})
    for key, tokens in tombs.items():
        for output in outputs_of(scanner.layout, queue.kind, key):
            remove_temporary(output, tokens)
    old = unlisted(queue, lost_seconds) if len(done) < len(taken) else {}
    lost = {key: old[key] for key in old if key in taken and key not in done}
    repush(queue, lost)
    dead = queue.dead_keys()
    gone = [key for key in dead if _vanished(scanner, queue.kind, key)]
    # The very file that was embedded has been put back.
    gone += sorted(settled(dict.fromkeys(dead - set(gone), "")))
    queue.purge(gone)
    return Sweep(tuple(sorted(done)), tuple(sorted(lost)), tuple(sorted(gone)))


def _vanished(scanner: Scanner, kind: Kind, key: str) -> bool:
    """Whether a dead letter's input is no longer there (entries that never had one stay)."""
    if partition_of(key) is None:
        return False
    layout = scanner.layout
    if kind is Kind.EMBED:
        return vanished(layout.chain_path(key), layout.chains)
    return vanished(layout.chains / key, layout.chains)
