"""What is missing or stale: one pass over the three trees, subreddit by subreddit.

Every output is judged by its provenance (:mod:`~reddit_assets.corpus.judge`). A quick scan reads
that text alone, once per change of the file; a deep scan also reads rows and columns of every
output. Verdicts differ only where an output is damaged inside. Neither sees that a chain file was
replaced by one of the same size and modification time, to the nanosecond.
"""

from __future__ import annotations

import os
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from reddit_assets.corpus.facts import (
    ClusterFacts,
    EmbeddingFacts,
    Facts,
    ProvenanceCache,
    facts_of,
)
from reddit_assets.corpus.fingerprints import Stamp, content_fingerprint, set_hash
from reddit_assets.corpus.judge import (
    Judgement,
    judge_cluster,
    judge_complete,
    judge_embedding,
)
from reddit_assets.corpus.layout import CLUSTERED_NAME, SUFFIX, Layout
from reddit_assets.corpus.oserrors import open_file, reading, unreadable
from reddit_assets.corpus.provenance import ClusterProvenance, EmbeddingProvenance, read_output
from reddit_assets.corpus.verdicts import (
    ClusterStatus,
    FileStatus,
    Reason,
    ScanOptions,
    SubredditStatus,
    Verdict,
)
from reddit_assets.corpus.walk import Found, Passed, files_of, folders_of, temporary_in
from reddit_assets.corpus.wanted import read_wanted_model
from reddit_assets.errors import BadFileError, RedditAssetsError, UnreadableFileError

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
        provenances: keeps what was read of outputs for the next scan.

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
        provenances: ProvenanceCache | None = None,
    ) -> None:
        layout.require_chains()
        self.layout = layout
        self.options = options
        self._dead = dead
        self._provenances = provenances or ProvenanceCache()
        self._model = read_wanted_model(layout)
        self.problems: list[RedditAssetsError] = []
        self.passed = Passed()

    # --- the walk ------------------------------------------------------------------------
    def subreddits(self) -> list[str]:
        """Cluster keys of all wanted subreddits that have a chain, embedding or cluster folder."""
        self.passed = Passed()
        found = set(folders_of(self.layout.chains, self._refuse, self.passed))
        for root in (self.layout.embeddings, self.layout.clusters):
            found.update(folders_of(root, self._refuse))
        return sorted(
            (key for key in found if self.options.filter(key)), key=lambda key: key.split("/")
        )

    def _refuse(self, error: RedditAssetsError) -> None:
        if str(error) not in {str(known) for known in self.problems}:
            self.problems.append(error)

    def scan(self, after: str | None = None) -> Iterator[SubredditStatus]:
        """The subreddits in path order, beginning behind the cluster key ``after``."""
        start = after.split("/") if after is not None else None
        for cluster_key in self.subreddits():
            if start is None or cluster_key.split("/") > start:
                yield self.subreddit(cluster_key)

    def subreddit(self, cluster_key: str) -> SubredditStatus:
        """One subreddit, whether or not the filter wants it. Raises BadKeyError."""
        status = SubredditStatus(cluster_key)
        refuse = status.problems.append
        folder = self.layout.cluster_dir(cluster_key)
        chains = files_of(self.layout.chains, cluster_key, refuse, passed=status.passed)
        made = files_of(self.layout.embeddings, cluster_key, refuse, status.temporary)
        try:
            status.temporary += temporary_in(folder)
        except UnreadableFileError as error:
            refuse(error)
        status.closed, status.unreadable = set(chains.closed), chains.unreadable
        if chains.unreadable is not None:
            return status
        for key in sorted(chains.files):
            status.files.append(self._file_beside(key, chains.files[key], made))
        status.orphans = sorted(set(made.files) - set(chains.files) - status.closed)
        if status.files or status.orphans:
            status.cluster = self._cluster(status, made.files)
        return status

    def _file_beside(self, key: str, chain: Stamp, made: Found) -> FileStatus:
        """A file whose embedding is among those found, or in a place that cannot be looked at."""
        why = made.closed.get(key) or (made.unreadable.message if made.unreadable else None)
        if why is not None:
            return FileStatus(key, Verdict.WAITING, chain, None, Reason.UNREADABLE, why)
        return self._file(key, chain, made.files.get(key))

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
        try:
            with reading(path):
                chain = Stamp.of(path.stat())
        except FileNotFoundError:
            return None
        embedding = None
        with suppress(FileNotFoundError), reading(output):
            embedding = Stamp.of(output.stat())
        return self._file(key, chain, embedding)

    # --- verdict on a file ---------------------------------------------------------------
    def _file(self, key: str, chain: Stamp, embedding: Stamp | None) -> FileStatus:
        verdict, reason, detail, empty = self._judge_file(key, chain, embedding)
        # A file just being written is judged when it has settled; a time in the future (another
        # host's clock) must not make it wait without end.
        now = time.time() if self.options.now is None else self.options.now
        if verdict.wanted and 0 <= now - chain.changed_at < self.options.settle_seconds:
            verdict = Verdict.SETTLING
        return FileStatus(key, verdict, chain, embedding, reason, detail, empty)

    def _judge_file(self, key: str, chain: Stamp, embedding: Stamp | None) -> Judgement:
        if embedding is None:
            return Judgement(Verdict.MISSING)
        if embedding.size == 0:
            return Judgement(Verdict.STALE, Reason.EMPTY)
        facts = self._look(self._embedding(key), key, embedding)
        if isinstance(facts, Judgement):
            return facts
        judgement = judge_embedding(facts, chain, self.options, self._model)
        if (
            judgement.verdict is Verdict.FRESH
            and isinstance(facts, EmbeddingFacts)
            and facts.source != chain
        ):
            return self._judge_content(key, chain, facts)
        return judgement

    def _judge_content(self, key: str, chain: Stamp, facts: EmbeddingFacts) -> Judgement:
        """Whether a chain file with another time still has the content that was embedded."""
        path, output = self.layout.chain_path(key), self._embedding(key)
        try:
            made = read_output(Path(output)).provenance
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
            self._provenances.keep(
                output, replace(facts, source_size=chain.size, source_mtime_ns=chain.mtime_ns)
            )
        return Judgement(Verdict.FRESH, empty_texts=facts.empty_texts)

    def _look(self, path: str, key: str, stamp: Stamp) -> Facts | Judgement:
        """An output's facts, or the verdict that there are none."""
        try:
            if not self.options.deep:
                return self._provenances.read(path, key, stamp)
            output = read_output(Path(path))
            facts = facts_of(output, key)
            self._provenances.keep(path, facts)
            return judge_complete(output) or facts
        except FileNotFoundError:
            return Judgement(Verdict.MISSING)
        except UnreadableFileError as error:
            return Judgement(Verdict.WAITING, Reason.UNREADABLE, error.message)
        except BadFileError as error:
            return Judgement(Verdict.STALE, Reason.DAMAGED, error.message)

    def _embedding(self, key: str) -> str:
        # Not through Path: a scan builds a million of these, of keys that were checked.
        return f"{self.layout.embeddings}/{key}{SUFFIX}"

    # --- verdict on a cluster ------------------------------------------------------------
    def _cluster(self, status: SubredditStatus, embeddings: Mapping[str, Stamp]) -> ClusterStatus:
        excluded = tuple(
            file.key for file in status.files if file.key in self._dead and not file.verdict.done
        )
        files = [file for file in status.files if file.key not in excluded]
        inputs = tuple(file.key for file in files)
        unfinished = sum(not file.verdict.done for file in files)

        def verdict(judgement: Judgement, stamp: str = "") -> ClusterStatus:
            kind, reason, detail, _ = judgement
            return ClusterStatus(kind, stamp, inputs, excluded, reason, detail)

        if unfinished or not files:
            detail = f"{unfinished} of {len(files)} are not there yet"
            return verdict(Judgement(Verdict.WAITING, Reason.UNFINISHED, detail))
        path = f"{self.layout.clusters}/{status.cluster_key}/{CLUSTERED_NAME}"
        found = self._look_at_cluster(path, status.cluster_key)
        if isinstance(found, Judgement) and not found.verdict.wanted:
            return verdict(found)
        stamps = {key: embeddings[key] for key in inputs}
        try:
            inputs_hash = self._inputs_hash(found, stamps)
        except (FileNotFoundError, BadFileError) as error:
            return verdict(Judgement(Verdict.WAITING, Reason.UNFINISHED, str(error)))
        newest = max(stamp.mtime_ns for stamp in stamps.values())
        if not isinstance(found, Judgement):
            found = judge_cluster(found, inputs_hash, newest, self.options)
            if found.reason is Reason.INPUTS_CHANGED:
                found = found._replace(detail=self._changes(path, stamps))
        return verdict(found, f"{inputs_hash}-{(self.options.settings_fingerprint or '')[:12]}")

    def _look_at_cluster(self, path: str, cluster_key: str) -> Facts | Judgement:
        try:
            stamp = Stamp.of(os.stat(path))
        except FileNotFoundError:
            return Judgement(Verdict.MISSING)
        except OSError as error:
            return Judgement(Verdict.WAITING, Reason.UNREADABLE, unreadable(path, error).message)
        return self._look(path, cluster_key, stamp)

    def _inputs_hash(self, found: Facts | Judgement, stamps: Mapping[str, Stamp]) -> str:
        """The hash of the inputs' data versions; files that have not changed are not opened.

        Raises:
            FileNotFoundError: one is missing.
            BadFileError: one is not a whole file.
        """
        if (
            isinstance(found, ClusterFacts)
            and not self.options.deep
            and found.inputs_stamp == set_hash(stamps)
        ):
            return found.inputs_hash
        return set_hash({key: self._version(key, stamp) for key, stamp in stamps.items()})

    def _version(self, key: str, stamp: Stamp) -> str:
        return self._provenances.read(self._embedding(key), key, stamp).data_version

    def _changes(self, path: str, stamps: Mapping[str, Stamp]) -> str:
        """How the inputs differ from those that a clustered file was made of, in words."""
        before: dict[str, str] = {}
        changed = 0
        with suppress(FileNotFoundError, BadFileError):
            made = read_output(Path(path)).provenance
            before = made.inputs if isinstance(made, ClusterProvenance) else {}
            changed = sum(
                self._version(key, stamps[key]) != before[key] for key in stamps.keys() & before
            )
        added, gone = len(stamps.keys() - before), len(before.keys() - stamps)
        return f"{added} files are new, {changed} changed, {gone} gone"
