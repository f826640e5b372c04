"""What is missing or stale: verdicts on files and clusters, subreddit by subreddit.

Every output is judged by its provenance (:mod:`~reddit_assets.corpus.judge`). A quick scan reads
that text alone, once per change of the file; a deep scan also reads rows and columns of every
output. Verdicts differ only where an output is damaged inside. Neither sees that a chain file was
replaced by one of the same size and modification time, to the nanosecond.

With a snapshot a scan looks only at what may have changed (:mod:`~reddit_assets.corpus.look`).
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from reddit_assets.corpus.facts import ClusterFacts, EmbeddingFacts
from reddit_assets.corpus.fingerprints import Stamp, content_fingerprint, set_hash
from reddit_assets.corpus.judge import Judgement, judge_cluster, judge_embedding
from reddit_assets.corpus.kept import may_differ, unpack_status
from reddit_assets.corpus.layout import CLUSTERED_NAME, Layout
from reddit_assets.corpus.listing import Listing, Read, read_listing, read_one
from reddit_assets.corpus.look import Looked, LookPlan, Say, look, read_in_full
from reddit_assets.corpus.oserrors import open_file, reading, unreadable
from reddit_assets.corpus.provenance import (
    EmbeddingProvenance,
    changed_inputs,
    read_output,
)
from reddit_assets.corpus.shards import Shards
from reddit_assets.corpus.snapshot import Snapshot, SnapshotLostError
from reddit_assets.corpus.snapshot_rows import Closed
from reddit_assets.corpus.verdicts import (
    ClusterStatus,
    FileStatus,
    Reason,
    ScanOptions,
    SubredditStatus,
    Verdict,
)
from reddit_assets.corpus.walk import Passed, folders_of, temporary_in
from reddit_assets.corpus.wanted import read_wanted_model
from reddit_assets.errors import BadFileError, RedditAssetsError, SettingsError

__all__ = [
    "ClusterStatus",
    "FileStatus",
    "Reason",
    "ScanOptions",
    "Scanner",
    "SubredditStatus",
    "Verdict",
]


class Scanner:
    """Scans the trees of ``layout``. A :class:`~reddit_assets.workspace.Workspace` makes it.

    Args:
        layout: the trees of this host.
        options: what is wanted.
        dead: keys whose jobs are dead letters; clusters are made without them.
        snapshot: gives what earlier looks have seen; without it every scan looks at everything.
        plan: how much a look at the trees looks at.

    Attributes:
        problems, passed: of the folders above subreddits, at the last look.
        looked: what that look came to; ``None`` before it, and without a snapshot.

    Raises:
        SettingsError: there is no folder of chain files.
        BadFileError: the wanted model cannot be read.
    """

    def __init__(
        self,
        layout: Layout,
        options: ScanOptions,
        *,
        dead: Container[str] = (),
        snapshot: Callable[[], Snapshot] | None = None,
        plan: LookPlan | None = None,
    ) -> None:
        layout.require_chains()
        self.layout = layout
        self.options = options
        self.problems: list[RedditAssetsError] = []
        self.passed = Passed()
        self.looked: Looked | None = None
        self._dead = dead
        self._model = read_wanted_model(layout)
        self._snapshot = snapshot
        self._plan = plan or LookPlan()

    # --- the walk ------------------------------------------------------------------------
    def subreddits(self, shards: Shards | None = None) -> list[str]:
        """Cluster keys of all wanted subreddits that have a chain, embedding or cluster folder.

        Args:
            shards: what is known of the folders above.
        """
        self.passed = Passed()
        found: set[str] = set()
        for tree in ("chains", "embeddings", "clusters"):
            passed = self.passed if tree == "chains" else None
            below = None if shards is None else shards.of(tree)
            found.update(folders_of(getattr(self.layout, tree), self._refuse, passed, below))
        if (wanted := self.wanted) is not None:
            found = set(filter(wanted, found))
        return sorted(found, key=lambda key: key.split("/"))

    def _refuse(self, error: RedditAssetsError) -> None:
        if str(error) not in {str(known) for known in self.problems}:
            self.problems.append(error)

    @property
    def snapshot(self) -> Snapshot:
        """What looks have seen. Raises SettingsError where the scanner was made without one."""
        if self._snapshot is None:
            raise SettingsError("This scanner keeps no snapshot.", hint="Let a Workspace make it.")
        return self._snapshot()

    def look(self, say: Say | None = None) -> Snapshot:
        """Bring the snapshot up to date, once in this scanner's life.

        Args:
            say: takes how many subreddits of how many have been looked at.

        Raises:
            SettingsError: the scanner was made without a snapshot.
        """
        snapshot = self.snapshot
        if self.looked is None:
            self.looked = look(self, snapshot, self._plan, say)
        return snapshot

    def read_in_full(self, share: float) -> int:
        """Look, then read rows and columns of a share of all outputs, and of changed ones.

        Returns:
            The number of subreddits whose outputs were read.
        """
        return read_in_full(self, self.look(), share, self._plan.processes)

    @property
    def keeps(self) -> bool:
        """Whether it has a snapshot."""
        return self._snapshot is not None

    def scan(self, after: str | None = None) -> Iterator[SubredditStatus]:
        """The subreddits in path order, beginning behind the cluster key ``after``."""
        if self._snapshot is not None and not self.options.deep:
            yield from self._kept(after)
            return
        start = after.split("/") if after is not None else None
        for cluster_key in self.subreddits():
            if start is None or cluster_key.split("/") > start:
                yield self.subreddit(cluster_key)

    def unfinished(self, after: str | None = None) -> Iterator[SubredditStatus]:
        """Those of :meth:`scan` of which something is not done, or of which there is more to say.

        What is left out is counted by :meth:`finished`.
        """
        if self._snapshot is None or self.options.deep:
            yield from self.scan(after)
        else:
            yield from self._kept(after, closed=False)

    def finished(self) -> Closed:
        """How many subreddits and files :meth:`unfinished` leaves out."""
        if self._snapshot is None or self.options.deep:
            return Closed()
        snapshot = self.look()
        try:
            if snapshot.judged_by != self.judged_by:
                return Closed()
            return snapshot.closed(self.wanted)
        except SnapshotLostError as lost:
            self._look_again(lost)
            return self.finished()

    def changed(self, generation: int, after: str | None = None) -> Iterator[SubredditStatus]:
        """Those of :meth:`scan` that differ from what they were at an earlier generation."""
        yield from self._kept(after, since=generation)

    def canonical(self) -> Scanner:
        """A copy whose verdicts depend on files and ``judged_by`` alone, as a snapshot keeps."""
        made = copy.copy(self)
        made.options = replace(self.options, settle_seconds=0)
        made.problems, made.passed, made._dead, made._snapshot = [], Passed(), (), None
        return made

    @property
    def wanted(self) -> Callable[[str], bool] | None:
        """The filter; ``None`` where it lets everything pass."""
        return self.options.filter if self.filter_id else None

    @property
    def filter_id(self) -> str:
        """The same for the same filter only; empty where it lets everything pass."""
        wanted = self.options.filter
        return repr((wanted.include, wanted.exclude)) if wanted.include or wanted.exclude else ""

    @property
    def judged_by(self) -> str:
        """What verdicts depend on beside files: a snapshot's are judged by one of these."""
        options, model = self.options, self._model
        return repr(
            (
                options.adopt,
                options.nonconformant,
                options.text_columns,
                options.settings_fingerprint,
                model and (model.fingerprint, model.dimension),
            )
        )

    def _kept(
        self, after: str | None, *, closed: bool = True, since: int | None = None
    ) -> Iterator[SubredditStatus]:
        snapshot = self.look()
        try:
            # Another process may have judged by other settings meanwhile: then all are judged here.
            same = snapshot.judged_by == self.judged_by
            wanted = self.wanted
            for key, kept, packed in snapshot.seen(
                after, closed=closed or not same, since=since, judged=same
            ):
                if wanted is None or wanted(key):
                    status = None if kept is None else unpack_status(key, kept)
                    if status is None or may_differ(status, self.options, self._dead):
                        listing = Listing.unpack(key, packed) if packed else snapshot.listing(key)
                        status = self.judge(listing)
                    yield status
                after = key
        except SnapshotLostError as lost:
            self._look_again(lost)
            # The new one has generations of its own: all are told.
            yield from self._kept(after, closed=closed, since=None if since is None else 0)

    def _look_again(self, lost: SnapshotLostError) -> None:
        snapshot = self.look()
        snapshot.recover(lost)
        self.looked = look(self, snapshot, replace(self._plan, budget_seconds=None))

    def subreddit(self, cluster_key: str) -> SubredditStatus:
        """One subreddit as it is now, whether or not the filter wants it. Raises BadKeyError."""
        return self.judge(read_listing(self.layout, cluster_key, deep=self.options.deep))

    def temporary(self) -> list[Path]:
        """Leftover temporary files of the wanted model's statement."""
        return temporary_in(self.layout.embeddings)

    def file(self, key: str) -> FileStatus | None:
        """One file; ``None`` if there is no such chain file.

        Raises:
            BadKeyError: it is not a key.
            UnreadableFileError: the operating system does not let us look.
        """
        path, output = self.layout.chain_path(key), self.layout.embedding_path(key)
        listing = Listing(key.rpartition("/")[0])
        try:
            with reading(path):
                listing.chains[key] = Stamp.of(path.stat())
        except FileNotFoundError:
            return None
        with suppress(FileNotFoundError), reading(output):
            stamp = listing.made[key] = Stamp.of(output.stat())
            if stamp.size:
                listing.outputs[key] = read_one(str(output), key, deep=self.options.deep)
        return self._file(key, listing)

    # --- verdict on a file ---------------------------------------------------------------
    def judge(self, listing: Listing) -> SubredditStatus:
        """The verdicts on a subreddit. What was compared to reach them is kept in ``listing``."""
        status = SubredditStatus(listing.cluster_key)
        status.problems, status.temporary = listing.problems, listing.temporary
        status.passed, status.unreadable = listing.passed, listing.unreadable
        status.closed, status.old_table = set(listing.closed), listing.old_table
        if listing.unreadable is not None:
            return status
        status.files = [self._file(key, listing) for key in sorted(listing.chains)]
        status.orphans = sorted(listing.made.keys() - listing.chains.keys() - status.closed)
        if status.files or status.orphans:
            status.cluster = self._cluster(status, listing)
        return status

    def _file(self, key: str, listing: Listing) -> FileStatus:
        chain, embedding = listing.chains[key], listing.made.get(key)
        # Nothing is concluded from an embedding in a place that cannot be looked at.
        refused = listing.made_unreadable
        why = listing.made_closed.get(key) or (refused.message if refused else None)
        if why is not None:
            return FileStatus(key, Verdict.WAITING, chain, None, Reason.UNREADABLE, why)
        verdict, reason, detail, empty = self._judge_file(key, listing)
        # A file just being written is judged when it has settled; a time in the future (another
        # host's clock) must not make it wait without end.
        if verdict.wanted:
            now = time.time() if self.options.now is None else self.options.now
            if 0 <= now - chain.changed_at < self.options.settle_seconds:
                verdict = Verdict.SETTLING
        version = _version(listing.outputs.get(key)) if verdict.done else ""
        return FileStatus(key, verdict, chain, embedding, reason, detail, empty, version)

    def _judge_file(self, key: str, listing: Listing) -> Judgement:
        chain, embedding = listing.chains[key], listing.made.get(key)
        if embedding is None:
            return Judgement(Verdict.MISSING)
        if embedding.size == 0:
            return Judgement(Verdict.STALE, Reason.EMPTY)
        read = listing.outputs[key]
        if isinstance(read, Judgement):
            return read
        judgement = judge_embedding(read, chain, self.options, self._model)
        if (
            judgement.verdict is Verdict.FRESH
            and isinstance(read, EmbeddingFacts)
            and read.source != chain
        ):
            return self._judge_content(key, listing, read)
        return judgement

    def _judge_content(self, key: str, listing: Listing, facts: EmbeddingFacts) -> Judgement:
        """Whether a chain file with another time still has the content that was embedded."""
        chain = listing.chains[key]
        path = self.layout.chain_path(key)
        try:
            made = read_output(self.layout.embedding_path(key)).provenance
            with open_file(path) as file:
                same = (
                    isinstance(made, EmbeddingProvenance)
                    and content_fingerprint(file.fileno()) == made.source.fingerprint
                )
                settled = Stamp.of(os.fstat(file.fileno())) == chain
        except BadFileError as error:
            return Judgement(Verdict.STALE, Reason.DAMAGED, error.message)
        except OSError as error:
            refused = unreadable(path, error)
            verdict = Verdict.WAITING if refused.host_fault else Verdict.STALE
            return Judgement(verdict, Reason.UNREADABLE, refused.message)
        if not same:
            return Judgement(Verdict.STALE, Reason.SOURCE_CHANGED)
        if settled:  # the next look need not read it again
            listing.outputs[key] = replace(
                facts, source_size=chain.size, source_mtime_ns=chain.mtime_ns
            )
        return Judgement(Verdict.FRESH, empty_texts=facts.empty_texts)

    # --- verdict on a cluster ------------------------------------------------------------
    def _cluster(self, status: SubredditStatus, listing: Listing) -> ClusterStatus:
        excluded = tuple(
            file.key for file in status.files if file.key in self._dead and not file.verdict.done
        )
        files = [file for file in status.files if file.key not in excluded]
        inputs = tuple(file.key for file in files)
        unfinished = sum(not file.verdict.done for file in files)

        def verdict(judgement: Judgement, stamp: str = "") -> ClusterStatus:
            kind, reason, detail, _ = judgement
            version = _version(listing.cluster) if kind.done else ""
            return ClusterStatus(kind, stamp, inputs, excluded, reason, detail, version)

        if unfinished or not files:
            detail = f"{unfinished} of {len(files)} are not there yet"
            return verdict(Judgement(Verdict.WAITING, Reason.UNFINISHED, detail))
        path = f"{self.layout.clusters}/{status.cluster_key}/{CLUSTERED_NAME}"
        found = listing.cluster or Judgement(Verdict.MISSING)
        if isinstance(found, Judgement) and not found.verdict.wanted:
            return verdict(found)
        stamps = {key: listing.made[key] for key in inputs}
        versions = {
            key: read.data_version
            for key in inputs
            if not isinstance(read := listing.outputs[key], Judgement)
        }
        inputs_hash = self._inputs_hash(found, stamps, versions)
        newest = max(stamp.mtime_ns for stamp in stamps.values())
        if not isinstance(found, Judgement):
            found = judge_cluster(found, inputs_hash, newest, self.options)
            if found.reason is Reason.INPUTS_CHANGED:
                found = found._replace(detail=changed_inputs(Path(path), versions))
        return verdict(found, f"{inputs_hash}-{(self.options.settings_fingerprint or '')[:12]}")

    def _inputs_hash(
        self, found: Read, stamps: Mapping[str, Stamp], versions: Mapping[str, str]
    ) -> str:
        """The hash of the inputs' data versions."""
        if (
            isinstance(found, ClusterFacts)
            and not self.options.deep
            and found.inputs_stamp == set_hash(stamps)
        ):
            return found.inputs_hash
        return set_hash(versions)


def _version(read: Read | None) -> str:
    return "" if read is None or isinstance(read, Judgement) else read.data_version
