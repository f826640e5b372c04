"""What a scan says: verdicts on files and clusters, and what it is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from reddit_assets.corpus.subreddits import SubredditFilter
from reddit_assets.errors import BadKeyError

__all__ = ["ClusterStatus", "FileStatus", "ScanOptions", "SubredditStatus", "Verdict"]


class Verdict(StrEnum):
    """How an output stands to its input."""

    FRESH = "fresh"
    ADOPTED = "adopted"  # made by the original and accepted
    MISSING = "missing"
    STALE = "stale"
    SETTLING = "settling"  # the chain file is too young to be read
    WAITING = "waiting"  # a cluster whose embeddings are not all there yet

    @property
    def done(self) -> bool:
        """Whether the output can be used as it is."""
        return self in (Verdict.FRESH, Verdict.ADOPTED)

    @property
    def wanted(self) -> bool:
        """Whether the output must be made now."""
        return self in (Verdict.MISSING, Verdict.STALE)


@dataclass(frozen=True, slots=True)
class FileStatus:
    """One chain file and its embedding file.

    Attributes:
        stamp: size and time of the chain file.
        output_stamp: the same of the embedding file; ``None`` if there is none.
        reason: why it is stale, in words.
    """

    key: str
    verdict: Verdict
    stamp: str
    output_stamp: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """A subreddit's cluster file.

    Attributes:
        stamp: hash of the set of current inputs (keys and data versions) and settings; empty
            while the cluster waits.
        inputs: keys of the files that belong into it.
        excluded: keys left out because their jobs are dead letters.
    """

    verdict: Verdict
    stamp: str = ""
    inputs: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    reason: str = ""


@dataclass(slots=True)
class SubredditStatus:
    """Everything a scan says of one subreddit.

    Attributes:
        orphans: keys of embedding files whose chain file has vanished.
        temporary: leftover temporary files in the subreddit's folders.
        problems: files that cannot be partitions, each with its sentence.
    """

    cluster_key: str
    files: list[FileStatus] = field(default_factory=list)
    cluster: ClusterStatus | None = None
    orphans: list[str] = field(default_factory=list)
    temporary: list[Path] = field(default_factory=list)
    problems: list[BadKeyError] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """What a scan wants.

    Attributes:
        settings_fingerprint: of the clustering settings; ``None`` leaves clusters unjudged by it.
        deep: open every footer.
        now: seconds since the epoch; ``None`` takes the clock. Only tests give it.
    """

    filter: SubredditFilter = field(default_factory=SubredditFilter)
    settle_seconds: float = 5.0
    adopt: bool = True
    settings_fingerprint: str | None = None
    deep: bool = False
    now: float | None = None
