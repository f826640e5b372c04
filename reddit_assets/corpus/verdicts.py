"""What a scan says: verdicts on files and clusters, their reasons, and what it is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from reddit_assets.corpus.fingerprints import Stamp
from reddit_assets.corpus.subreddits import SubredditFilter
from reddit_assets.corpus.walk import Passed
from reddit_assets.errors import RedditAssetsError

__all__ = ["ClusterStatus", "FileStatus", "Reason", "ScanOptions", "SubredditStatus", "Verdict"]


class Verdict(StrEnum):
    """How an output stands to its input."""

    FRESH = "fresh"
    ADOPTED = "adopted"  # made by the earlier system and accepted
    MISSING = "missing"
    STALE = "stale"
    SETTLING = "settling"  # the chain file is too young to be read
    WAITING = "waiting"  # cannot be judged or made yet: embeddings are missing, storage fails

    @property
    def done(self) -> bool:
        """Whether the output can be used as it is."""
        return self in (Verdict.FRESH, Verdict.ADOPTED)

    @property
    def wanted(self) -> bool:
        """Whether the output must be made now."""
        return self in (Verdict.MISSING, Verdict.STALE)


class Reason(StrEnum):
    """Why an output is not fresh. The value is the beginning of its sentence."""

    EMPTY = "is empty"
    DAMAGED = "is damaged"
    INCOMPLETE = "is not complete"
    OTHER_KIND = "is another kind of output"
    OTHER_KEY = "was made for another file"
    OTHER_MODEL = "was made with another model"
    OTHER_SETTINGS = "was made with other clustering settings"
    OTHER_TEXT = "was made of other text columns"
    NONCONFORMANT = "was made by a nonconformant backend"
    NOT_ADOPTED = "was made by the earlier system, and REDDIT_ADOPT is off"
    OLDER = "was made by the earlier system and is older than what it was made of"
    SOURCE_CHANGED = "has a chain file that changed"
    INPUTS_CHANGED = "has other inputs now"
    UNREADABLE = "cannot be judged"
    UNFINISHED = "waits for embedding files"


class _Reasoned:
    """A status with a reason, and its details if there are any."""

    __slots__ = ()
    reason: Reason | None
    detail: str

    @property
    def sentence(self) -> str:
        """The reason in words, without a subject and full stop; empty if there is none."""
        if self.reason is None:
            return ""
        return f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value


@dataclass(frozen=True, slots=True)
class FileStatus(_Reasoned):
    """One chain file and its embedding file.

    Attributes:
        stamp: of the chain file.
        output_stamp: of the embedding file; ``None`` if there is none.
        reason: why it is not fresh; ``None`` if it is, or if it is missing.
        detail: the particulars.
        empty_texts: share of rows without a text, as far as the embedding file says.
        data_version: of an embedding file that is done, where the look has it.
    """

    key: str
    verdict: Verdict
    stamp: Stamp
    output_stamp: Stamp | None = None
    reason: Reason | None = None
    detail: str = ""
    empty_texts: float = 0.0
    data_version: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ClusterStatus(_Reasoned):
    """A subreddit's cluster file.

    Attributes:
        stamp: hash of the set of current inputs (keys and data versions) and settings; empty
            while the cluster waits.
        inputs: keys of the files that belong into it.
        excluded: keys left out because their jobs are dead letters.
        reason, detail, data_version: as of :class:`FileStatus`.
    """

    verdict: Verdict
    stamp: str = ""
    inputs: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    reason: Reason | None = None
    detail: str = ""
    data_version: str = field(default="", compare=False)


@dataclass(slots=True)
class SubredditStatus:
    """Everything a scan says of one subreddit.

    Attributes:
        orphans: keys of embedding files whose chain file has vanished.
        temporary: leftover temporary files of outputs in the subreddit's folders.
        problems: files that cannot be partitions or cannot be looked at, each with its sentence.
        passed: what is ignored in the folder of chain files.
        unreadable: why that folder cannot be listed; nothing is concluded then.
        closed: keys whose chain file cannot be read, or is something else.
        old_table: whether the table of clusters has its former name.
    """

    cluster_key: str
    files: list[FileStatus] = field(default_factory=list)
    cluster: ClusterStatus | None = None
    orphans: list[str] = field(default_factory=list)
    temporary: list[Path] = field(default_factory=list)
    problems: list[RedditAssetsError] = field(default_factory=list)
    passed: Passed = field(default_factory=Passed)
    unreadable: RedditAssetsError | None = None
    closed: set[str] = field(default_factory=set)
    old_table: bool = False

    @property
    def gone(self) -> bool:
        """Whether it surely has no chain file any more."""
        return not (self.files or self.unreadable or self.closed)


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """What a scan wants.

    Attributes:
        adopt: accept files of the earlier system.
        nonconformant: accept files of nonconformant backends.
        text_columns: the setting, where it is not the usual one.
        settings_fingerprint: of the clustering settings; ``None`` leaves clusters unjudged by it.
        deep: read every output's rows and columns, not only its provenance.
        now: seconds since the epoch; ``None`` takes the clock. Only tests give it.
    """

    filter: SubredditFilter = field(default_factory=SubredditFilter)
    settle_seconds: float = 5.0
    adopt: bool = True
    nonconformant: bool = False
    text_columns: str = ""
    settings_fingerprint: str | None = None
    deep: bool = False
    now: float | None = None
