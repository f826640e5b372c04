"""What is missing or stale: one pass over the three trees, subreddit by subreddit.

A quick scan compares sizes and times and opens a footer only where those do not settle it. A
deep scan opens every footer. Both give the same verdicts for trees whose files were only
written by us; only the deep one sees a chain file that was replaced by an older one, and truncated
or corrupt outputs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Container, Iterator, Mapping
from pathlib import Path

from reddit_assets.corpus.fingerprints import content_fingerprint, set_hash, stamp_of
from reddit_assets.corpus.keys import join_key
from reddit_assets.corpus.layout import SUFFIX, Layout
from reddit_assets.corpus.output import is_temporary
from reddit_assets.corpus.provenance import (
    ClusterProvenance,
    EmbeddingProvenance,
    OutputFile,
    ProvenanceCache,
)
from reddit_assets.corpus.verdicts import (
    ClusterStatus,
    FileStatus,
    ScanOptions,
    SubredditStatus,
    Verdict,
)
from reddit_assets.corpus.wanted import WantedModel, read_wanted_model
from reddit_assets.errors import BadFileError, BadKeyError

__all__ = [
    "ClusterStatus",
    "FileStatus",
    "ScanOptions",
    "Scanner",
    "SubredditStatus",
    "Verdict",
]


# One cache per process: a sensor's scans open each footer once.
_PROVENANCES = ProvenanceCache()


class Scanner:
    """Scans the trees of ``layout``.

    Args:
        layout: the trees of this host.
        options: what is wanted.
        dead: keys whose jobs are dead letters; clusters are made without them.
        footers: the cache of opened footers; the process's own by default.
    """

    def __init__(
        self,
        layout: Layout,
        options: ScanOptions,
        *,
        dead: Container[str] = (),
        provenances: ProvenanceCache = _PROVENANCES,
    ) -> None:
        layout.require_chains()
        self.layout = layout
        self.options = options
        self._dead = dead
        self._provenances = provenances
        self._wanted: WantedModel | None = read_wanted_model(layout)
        self.problems: list[BadKeyError] = []

    # --- the walk ------------------------------------------------------------------------
    def subreddits(self) -> list[str]:
        """Cluster keys of all wanted subreddits that have a chain, embedding or cluster folder."""
        found: set[str] = set()
        for root in (self.layout.chains, self.layout.embeddings, self.layout.clusters):
            found.update(self._folders(root))
        return sorted(
            (key for key in found if self.options.filter(key)), key=lambda key: key.split("/")
        )

    def _folders(self, root: Path) -> Iterator[str]:
        """Cluster keys below ``root``: folders with files in them, or below a shard."""
        for entry in _entries(root):
            if not entry.is_dir():
                if entry.name.endswith(SUFFIX):
                    self._refuse(
                        BadKeyError(
                            f"{entry.path} lies directly in {root}.",
                            hint="Files belong at <shard>/<subreddit>/<chunk>.parquet.",
                        )
                    )
                continue
            flat = False
            for inner in _entries(Path(entry.path)):
                if inner.is_dir():
                    yield from self._named((entry.name, inner.name), inner.path)
                else:
                    flat = flat or inner.name.endswith(SUFFIX)
            if flat:
                yield from self._named((entry.name,), entry.path)

    def _named(self, parts: tuple[str, ...], path: str) -> Iterator[str]:
        try:
            yield join_key(parts, path=path)
        except BadKeyError as error:
            self._refuse(error)

    def _refuse(self, error: BadKeyError) -> None:
        if str(error) not in {str(known) for known in self.problems}:
            self.problems.append(error)

    def scan(self, after: str | None = None) -> Iterator[SubredditStatus]:
        """The subreddits in path order, beginning behind the cluster key ``after``."""
        start = after.split("/") if after is not None else None
        for cluster_key in self.subreddits():
            if start is None or cluster_key.split("/") > start:
                yield self.subreddit(cluster_key)

    def subreddit(self, cluster_key: str) -> SubredditStatus:
        """One subreddit, whether or not the filter wants it."""
        status = SubredditStatus(cluster_key)
        chains = self._files(self.layout.chains, cluster_key, status)
        embeddings = self._files(self.layout.embeddings, cluster_key, status)
        for entry in _entries(self.layout.cluster_dir(cluster_key)):
            if is_temporary(entry.name):
                status.temporary.append(Path(entry.path))
        for key in sorted(chains):
            status.files.append(self._file(key, chains[key], embeddings.get(key)))
        status.orphans = sorted(set(embeddings) - set(chains))
        if chains or status.orphans:
            status.cluster = self._cluster(status, embeddings)
        return status

    def file(self, key: str) -> FileStatus | None:
        """One file; ``None`` if there is no such chain file."""
        try:
            chain = self.layout.chain_path(key).stat()
        except FileNotFoundError:
            return None
        try:
            embedding = self.layout.embedding_path(key).stat()
        except FileNotFoundError:
            embedding = None
        return self._file(key, chain, embedding)

    def _files(
        self, root: Path, cluster_key: str, status: SubredditStatus
    ) -> dict[str, os.stat_result]:
        found: dict[str, os.stat_result] = {}
        for entry in _entries(root / cluster_key):
            if is_temporary(entry.name):
                status.temporary.append(Path(entry.path))
            elif entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                try:
                    key = join_key(
                        (*cluster_key.split("/"), entry.name.removesuffix(SUFFIX)),
                        path=entry.path,
                    )
                    found[key] = entry.stat()
                except BadKeyError as error:
                    status.problems.append(error)
                except FileNotFoundError:
                    continue  # vanished between listing and stat: the next scan knows
        return found

    # --- verdict on a file ---------------------------------------------------------------
    def _file(
        self, key: str, chain: os.stat_result, embedding: os.stat_result | None
    ) -> FileStatus:
        stamp = stamp_of(chain)
        now = time.time() if self.options.now is None else self.options.now
        output_stamp = None if embedding is None else stamp_of(embedding)

        def verdict(kind: Verdict, reason: str = "") -> FileStatus:
            # A file just being written is judged when it has settled; a time in the future
            # (another host's clock) must not make it wait for ever.
            if kind.wanted and 0 <= now - chain.st_mtime < self.options.settle_seconds:
                return FileStatus(key, Verdict.SETTLING, stamp, output_stamp, reason)
            return FileStatus(key, kind, stamp, output_stamp, reason)

        if embedding is None or output_stamp is None:
            return verdict(Verdict.MISSING)
        if embedding.st_size == 0:
            return verdict(Verdict.STALE, "the embedding file is empty")
        older_than_model = (
            self._wanted is not None and embedding.st_mtime_ns < self._wanted.since_ns
        )
        times_settle_it = embedding.st_mtime_ns >= chain.st_mtime_ns and not older_than_model
        if times_settle_it and not self.options.deep:
            return verdict(Verdict.FRESH)
        try:
            output = self._provenances.read(self.layout.embedding_path(key), output_stamp)
        except FileNotFoundError:
            return verdict(Verdict.MISSING)
        except BadFileError as error:
            return verdict(Verdict.STALE, error.message)
        return verdict(*self._judge(key, chain, embedding, output))

    def _judge(
        self, key: str, chain: os.stat_result, embedding: os.stat_result, output: OutputFile
    ) -> tuple[Verdict, str]:
        provenance = output.provenance
        if provenance is None:
            if not self.options.adopt:
                return Verdict.STALE, "made by the original, and REDDIT_ADOPT is off"
            if embedding.st_mtime_ns < chain.st_mtime_ns:
                return Verdict.STALE, "older than its chain file"
            if self._wanted and output.dimension not in (0, self._wanted.identity.dimension):
                return Verdict.STALE, f"has {output.dimension} dimensions"
            return Verdict.ADOPTED, ""
        if not isinstance(provenance, EmbeddingProvenance):
            return Verdict.STALE, "is not an embedding file"
        if provenance.key != key:
            return Verdict.STALE, f"was made for {provenance.key}"
        if output.rows != provenance.source.rows:
            return Verdict.STALE, f"has {output.rows} of {provenance.source.rows} rows"
        if self._wanted and provenance.model.fingerprint != self._wanted.identity.fingerprint:
            return Verdict.STALE, f"made with the model {provenance.model.name}"
        if not provenance.conformant:
            return Verdict.STALE, "made by a nonconformant backend"
        if provenance.source.stamp != stamp_of(chain):
            path = self.layout.chain_path(key)
            try:
                with open(path, "rb") as file:
                    same = content_fingerprint(file.fileno()) == provenance.source.fingerprint
            except OSError as error:
                return Verdict.STALE, f"the chain file cannot be read: {error.strerror}"
            if not same:
                return Verdict.STALE, "the chain file changed"
        return Verdict.FRESH, ""

    # --- verdict on a cluster ------------------------------------------------------------
    def _cluster(
        self, status: SubredditStatus, embeddings: Mapping[str, os.stat_result]
    ) -> ClusterStatus:
        excluded = tuple(
            file.key for file in status.files if file.key in self._dead and not file.verdict.done
        )
        files = [file for file in status.files if file.key not in excluded]
        inputs = tuple(file.key for file in files)
        path = self.layout.cluster_path(status.cluster_key)
        unfinished = [file for file in files if not file.verdict.done]
        if unfinished or not files:
            reason = f"{len(unfinished)} of {len(files)} embedding files are not there yet"
            return ClusterStatus(Verdict.WAITING, "", inputs, excluded, reason)

        existing: OutputFile | None = None
        problem = ""
        try:
            stat = path.stat()
            existing = self._provenances.read(path, stamp_of(stat))
        except FileNotFoundError:
            pass
        except BadFileError as error:
            problem = error.message
        provenance = existing.provenance if existing is not None else None
        if isinstance(provenance, ClusterProvenance) and not self.options.deep:
            stamps = {key: stamp_of(embeddings[key]) for key in inputs}
            if provenance.inputs_stamp == set_hash(stamps) and self._same_settings(provenance):
                return ClusterStatus(
                    Verdict.FRESH, self._cluster_stamp(provenance.inputs_hash), inputs, excluded
                )
        try:
            versions = self.versions(inputs)
        except FileNotFoundError as error:
            return ClusterStatus(
                Verdict.WAITING, "", inputs, excluded, f"{error.filename} has just vanished"
            )
        except BadFileError as error:
            return ClusterStatus(Verdict.WAITING, "", inputs, excluded, error.message)
        wanted = set_hash(versions)
        stamp = self._cluster_stamp(wanted)
        if existing is None:
            kind = Verdict.STALE if problem else Verdict.MISSING
            return ClusterStatus(kind, stamp, inputs, excluded, problem)
        if provenance is None:
            # The original's clusters carry no footer: accept them while nothing is newer.
            newest = max(embeddings[key].st_mtime_ns for key in inputs)
            if self.options.adopt and stat.st_mtime_ns > newest:
                return ClusterStatus(Verdict.ADOPTED, stamp, inputs, excluded)
            return ClusterStatus(
                Verdict.STALE, stamp, inputs, excluded, "made by the original, older than its files"
            )
        if not isinstance(provenance, ClusterProvenance):
            return ClusterStatus(Verdict.STALE, stamp, inputs, excluded, "is not a clustered file")
        if provenance.inputs_hash != wanted:
            added = len(set(inputs) - set(provenance.inputs))
            gone = len(set(provenance.inputs) - set(inputs))
            changed = sum(
                1
                for key in inputs
                if key in provenance.inputs and provenance.inputs[key] != versions[key]
            )
            reason = f"{added} files are new, {changed} changed, {gone} gone"
            return ClusterStatus(Verdict.STALE, stamp, inputs, excluded, reason)
        if not self._same_settings(provenance):
            return ClusterStatus(
                Verdict.STALE, stamp, inputs, excluded, "made with other clustering settings"
            )
        return ClusterStatus(Verdict.FRESH, stamp, inputs, excluded)

    def versions(self, keys: tuple[str, ...]) -> dict[str, str]:
        """The data versions of embedding files, from their footers.

        Raises:
            FileNotFoundError: one is missing.
            BadFileError: one is not a whole file.
        """
        found: dict[str, str] = {}
        for key in keys:
            path = self.layout.embedding_path(key)
            found[key] = self._provenances.read(path, stamp_of(path.stat())).data_version
        return found

    def _same_settings(self, provenance: ClusterProvenance) -> bool:
        wanted = self.options.settings_fingerprint
        return wanted is None or provenance.settings_fingerprint == wanted

    def _cluster_stamp(self, inputs_hash: str) -> str:
        return f"{inputs_hash}-{(self.options.settings_fingerprint or '')[:12]}"


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The folder's entries but hidden ones; none if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
