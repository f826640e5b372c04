"""What lies on the disk for one subreddit, without a verdict; as bytes, what a snapshot keeps."""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reddit_assets import errors
from reddit_assets.corpus.cluster_table import OLD_TABLE_NAME
from reddit_assets.corpus.facts import (
    AdoptedFacts,
    ClusterFacts,
    EmbeddingFacts,
    Facts,
    facts_of,
    read_facts,
)
from reddit_assets.corpus.fingerprints import Stamp
from reddit_assets.corpus.judge import Judgement, judge_complete
from reddit_assets.corpus.layout import CLUSTERED_NAME, SUFFIX, Layout
from reddit_assets.corpus.oserrors import unreadable
from reddit_assets.corpus.output import is_temporary
from reddit_assets.corpus.provenance import read_output
from reddit_assets.corpus.snapshot_file import SnapshotLostError
from reddit_assets.corpus.verdicts import Reason, Verdict
from reddit_assets.corpus.walk import Ignored, Passed, entries_of, files_of
from reddit_assets.errors import BadFileError, RedditAssetsError, UnreadableFileError

__all__ = ["Listing", "Read", "read_listing", "read_one"]

Read = Facts | Judgement
"""What an output says of itself, or the verdict that it cannot."""


@dataclass(slots=True)
class Listing:
    """One subreddit's folders in the three trees.

    Attributes:
        chains, made: stamps of chain files and embedding files by key.
        outputs: what was read of each embedding file.
        cluster: what was read of the clustered file; ``None`` if there is none.
        cluster_stamp: of that file; ``None`` also where it cannot be told.
        closed: keys whose chain file cannot be read, each with the sentence.
        made_closed: likewise of embedding files.
        unreadable, made_unreadable: why a folder cannot be listed.
        temporary, problems, passed: as of a SubredditStatus.
        old_table: whether a table of clusters has its former name.
    """

    cluster_key: str
    chains: dict[str, Stamp] = field(default_factory=dict)
    made: dict[str, Stamp] = field(default_factory=dict)
    outputs: dict[str, Read] = field(default_factory=dict)
    cluster: Read | None = None
    cluster_stamp: Stamp | None = None
    closed: dict[str, str] = field(default_factory=dict)
    made_closed: dict[str, str] = field(default_factory=dict)
    unreadable: RedditAssetsError | None = None
    made_unreadable: RedditAssetsError | None = None
    temporary: list[Path] = field(default_factory=list)
    problems: list[RedditAssetsError] = field(default_factory=list)
    passed: Passed = field(default_factory=Passed)
    old_table: bool = False

    @property
    def troubled(self) -> bool:
        """Whether something could not be read: that may change without a trace in any time."""
        reads = [*self.outputs.values(), self.cluster]
        return bool(self.problems or self.closed or self.made_closed) or any(
            isinstance(read, Judgement) and not read.verdict.wanted for read in reads
        )

    @property
    def noteworthy(self) -> bool:
        """Whether there is more to say of it than verdicts."""
        return bool(self.problems or self.temporary or self.passed.counts or self.old_table) or (
            not self.made.keys() <= self.chains.keys()
        )

    def pack(self) -> bytes:
        """As bytes; equal listings have equal bytes."""
        return zlib.compress(json.dumps(_packed(self), separators=(",", ":")).encode(), 1)

    @classmethod
    def unpack(cls, cluster_key: str, packed: bytes) -> Listing:
        """From :meth:`pack`.

        Raises:
            SnapshotLostError: these are no such bytes.
        """
        try:
            return _unpacked(cluster_key, json.loads(zlib.decompress(packed)))
        except (ValueError, LookupError, TypeError, AttributeError, zlib.error) as error:
            raise SnapshotLostError(f"the listing of {cluster_key} cannot be read") from error


# --- from the disk -----------------------------------------------------------------------
def read_listing(
    layout: Layout, cluster_key: str, before: Listing | None = None, *, deep: bool = False
) -> Listing:
    """What lies there now.

    Args:
        before: an earlier listing; outputs that have not changed since are not opened.
        deep: read every output's rows and columns.

    Raises:
        BadKeyError: it is not a cluster key.
    """
    found = Listing(cluster_key)
    refuse = found.problems.append
    folder = layout.cluster_dir(cluster_key)
    chains = files_of(layout.chains, cluster_key, refuse, passed=found.passed)
    made = files_of(layout.embeddings, cluster_key, refuse, found.temporary)
    found.chains, found.closed, found.unreadable = chains.files, chains.closed, chains.unreadable
    found.made, found.made_closed, found.made_unreadable = (
        made.files,
        made.closed,
        made.unreadable,
    )
    clustered = False
    try:
        for entry in entries_of(folder):
            if entry.name == CLUSTERED_NAME:
                clustered = True
            elif entry.name == OLD_TABLE_NAME:
                found.old_table = True
            elif is_temporary(entry.name):
                found.temporary.append(Path(entry.path))
    except UnreadableFileError as error:
        refuse(error)
        clustered = True
    if found.unreadable is not None:
        return found
    for key, stamp in found.made.items():
        if key in found.chains and stamp.size:
            known = before.outputs.get(key) if before and before.made.get(key) == stamp else None
            path = f"{layout.embeddings}/{key}{SUFFIX}"
            read = found.outputs[key] = read_one(path, key, known, deep=deep)
            if not isinstance(read, Judgement):
                found.made[key] = read.stamp  # it may have been replaced since it was listed
    if clustered:
        _read_cluster(f"{folder}/{CLUSTERED_NAME}", found, before, deep=deep)
    return found


def _read_cluster(path: str, found: Listing, before: Listing | None, *, deep: bool) -> None:
    try:
        stamp = found.cluster_stamp = Stamp.of(os.stat(path))
    except FileNotFoundError:
        return
    except OSError as error:
        why = unreadable(path, error).message
        found.cluster = Judgement(Verdict.WAITING, Reason.UNREADABLE, why)
        return
    known = before.cluster if before is not None and before.cluster_stamp == stamp else None
    read = found.cluster = read_one(path, found.cluster_key, known, deep=deep)
    if not isinstance(read, Judgement):
        found.cluster_stamp = read.stamp  # it may have been replaced since


def read_one(path: str, key: str, known: Read | None = None, *, deep: bool = False) -> Read:
    """What an output says.

    Args:
        known: what it said when it was as it is now. A failure of the storage is no such thing.
        deep: read its rows and columns, whatever is known.
    """
    fixed = not (isinstance(known, Judgement) and not known.verdict.wanted)
    if known is not None and fixed and known != Judgement(Verdict.MISSING) and not deep:
        return known
    try:
        if not deep:
            return read_facts(path, key)
        output = read_output(Path(path))
        return judge_complete(output) or facts_of(output, key)
    except FileNotFoundError:
        return Judgement(Verdict.MISSING)
    except UnreadableFileError as error:
        return Judgement(Verdict.WAITING, Reason.UNREADABLE, error.message)
    except BadFileError as error:
        return Judgement(Verdict.STALE, Reason.DAMAGED, error.message)


# --- as bytes ----------------------------------------------------------------------------
def _packed(found: Listing) -> list[Any]:
    files: list[Any] = []
    start = len(found.cluster_key) + 1
    for key in sorted(found.chains.keys() | found.made.keys()):
        chain, made = found.chains.get(key), found.made.get(key)
        files.append([key[start:], chain, made, _packed_read(found.outputs.get(key))])
    cluster = None
    if found.cluster is not None:
        cluster = [found.cluster_stamp, _packed_read(found.cluster)]
    rest: list[Any] = []
    if found.troubled or found.temporary or found.passed.counts or found.passed.litter:
        rest = [
            found.closed,
            found.made_closed,
            _packed_error(found.unreadable),
            _packed_error(found.made_unreadable),
            sorted(str(path) for path in found.temporary),
            [_packed_error(problem) for problem in found.problems],
            [[why.name, n, found.passed.examples[why]] for why, n in found.passed.counts.items()],
            found.passed.litter,
        ]
    return [files, cluster, found.old_table, rest]


def _packed_read(read: Read | None) -> list[Any] | None:
    if read is None:
        return None
    if isinstance(read, EmbeddingFacts):
        return [
            "e",
            read.source_size,
            read.source_mtime_ns,
            read.data_version,
            read.made_for,
            read.model,
            read.model_name,
            read.conformant,
            read.text_columns,
            read.empty_texts,
        ]
    if isinstance(read, ClusterFacts):
        return ["c", read.data_version, read.inputs_hash, read.inputs_stamp, read.settings]
    if isinstance(read, AdoptedFacts):
        return ["a", read.dimension, read.kept_version]
    return ["j", *read]


def _packed_error(error: RedditAssetsError | None) -> list[Any] | None:
    if error is None:
        return None
    return [type(error).__name__, error.message, error.hint, error.host_fault]


def _unpacked(cluster_key: str, packed: list[Any]) -> Listing:
    files, cluster, old_table, rest = packed
    found = Listing(cluster_key, old_table=old_table)
    for chunk, chain, made, read in files:
        key = f"{cluster_key}/{chunk}"
        if chain is not None:
            found.chains[key] = Stamp(*chain)
        if made is not None:
            stamp = found.made[key] = Stamp(*made)
            if read is not None:
                found.outputs[key] = _unpacked_read(stamp, read)
    if cluster is not None:
        if cluster[0] is not None:
            found.cluster_stamp = Stamp(*cluster[0])
        found.cluster = _unpacked_read(found.cluster_stamp or Stamp(0, 0), cluster[1])
    if rest:
        closed, made_closed, unreadable_, made_unreadable, temporary, problems, passed, litter = (
            rest
        )
        found.closed, found.made_closed = closed, made_closed
        found.unreadable = _unpacked_error(unreadable_)
        found.made_unreadable = _unpacked_error(made_unreadable)
        found.temporary = [Path(path) for path in temporary]
        found.problems = [e for e in map(_unpacked_error, problems) if e is not None]
        found.passed = Passed(
            Counter({Ignored[why]: count for why, count, _ in passed}),
            {Ignored[why]: example for why, _, example in passed},
            litter,
        )
    return found


def _unpacked_read(stamp: Stamp, packed: list[Any]) -> Read:
    kind, *values = packed
    if kind == "e":
        return EmbeddingFacts(*stamp, *values)
    if kind == "c":
        return ClusterFacts(stamp, *values)
    if kind == "a":
        return AdoptedFacts(stamp, *values)
    verdict, reason, detail, empty = values
    return Judgement(Verdict(verdict), None if reason is None else Reason(reason), detail, empty)


def _unpacked_error(packed: list[Any] | None) -> RedditAssetsError | None:
    if packed is None:
        return None
    name, message, hint, host_fault = packed
    kind = getattr(errors, name, BadFileError)
    made: RedditAssetsError = kind(message, hint=hint, host_fault=host_fault)
    return made
