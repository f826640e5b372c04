"""Jobs, claims, results and failures, and their wire format."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from reddit_assets.corpus.keys import check_key
from reddit_assets.corpus.layout import CLUSTER_FILES, SUFFIX, Layout
from reddit_assets.errors import printable

__all__ = [
    "VERIFY",
    "Claim",
    "DeadLetter",
    "Job",
    "Kind",
    "Lane",
    "Result",
    "new_token",
    "outputs_of",
    "partition_of",
]

VERIFY = "verify:"
"""Before the key of a job that recomputes a sample of an output instead of making it."""

_NO_PARTITION = ("malformed:", "foreign:", VERIFY)

_encode = json.JSONEncoder(ensure_ascii=False).encode


def _json(record: dict[str, Any]) -> str:
    """A record as JSON that can be sent; bytes that were not UTF-8 are surrogates, and escaped."""
    return printable(_encode(record))


class Kind(StrEnum):
    """What a queue's jobs make. The value is the public list that plain consumers read."""

    EMBED = "phase4_todo_queue"
    CLUSTER = "phase4_cluster_queue"

    @property
    def asset(self) -> str:
        """The Dagster asset whose partitions the jobs make."""
        return "embeddings" if self is Kind.EMBED else "clusters"

    @property
    def word(self) -> str:
        """``embed`` or ``cluster``, as on the command line."""
        return "embed" if self is Kind.EMBED else "cluster"


class Lane(StrEnum):
    """Lists that a job can wait in, beside one ``run:<id>`` per Dagster run."""

    PUBLIC = "public"  # the original's list: output absent, no run waiting
    STALE = "stale"  # the output exists and must be made anew: plain consumers would skip it
    URGENT = "urgent"  # before all others
    RETRY = "retry"  # dead letters that someone retries


def partition_of(key: str) -> str | None:
    """The partition that a job of this key makes; ``None`` if it makes none."""
    return None if key.startswith(_NO_PARTITION) else key


def new_token() -> str:
    """A random fencing token or job id: 64 bits as hex."""
    return secrets.token_hex(8)


def outputs_of(layout: Layout, kind: Kind, key: str) -> list[Path]:
    """The final names of a job's outputs; none if it makes no partition. Raises BadKeyError."""
    if partition_of(key) is None:
        return []
    if kind is Kind.EMBED:
        return [layout.embedding_path(key)]
    folder = layout.cluster_dir(key)
    return [folder / name for name in CLUSTER_FILES]


@dataclass(frozen=True, slots=True)
class Job:
    """A wanted output.

    Attributes:
        key: partition key of the file, or cluster key of the subreddit.
        stamp: what its input looked like: size and time of the chain file, or the set hash.
        force: make it even if it is fresh.
        excluded: files left out of a cluster.
        verify: rows of the embedding file to compute again and compare, instead of making it.
            Such a job is queued under a key of its own, and only for a run.
    """

    kind: Kind
    key: str
    stamp: str
    force: bool = False
    excluded: tuple[str, ...] = ()
    verify: int = 0

    @property
    def queue_key(self) -> str:
        """What the ledger knows the job by."""
        return f"{VERIFY}{self.key}" if self.verify else self.key

    def payload(self, layout: Layout, job_id: str) -> str:
        """The job as JSON: the original's keys first, then ours, which it ignores."""
        job: dict[str, Any]
        if self.verify:
            job = {"verify": self.verify}
        elif self.kind is Kind.EMBED:
            job = {
                # Not through Path: a scan builds a million of these.
                "input_path": f"{layout.chains}/{check_key(self.key)}{SUFFIX}",
                "output_path": f"{layout.embeddings}/{self.key}{SUFFIX}",
            }
        else:
            job = {"subreddit_path": str(layout.subreddit_path(self.key))}
            if self.excluded:
                job["excluded"] = list(self.excluded)
        job["id"] = job_id
        job["key"] = self.queue_key
        return _encode(job)


@dataclass(frozen=True, slots=True)
class Claim:
    """A job leased to a worker.

    Attributes:
        token: the fencing token; every later step must show it.
        job: the decoded payload.
        tombs: tokens of dead leases, whose temporary files may be deleted.
    """

    kind: Kind
    key: str
    id: str
    token: str
    job: dict[str, Any]
    stamp: str = ""
    force: bool = False
    attempts: int = 0
    recoveries: int = 0
    tombs: tuple[str, ...] = ()

    @property
    def foreign(self) -> bool:
        """Whether a producer other than ours pushed it: its key is not known yet."""
        return not self.id

    @property
    def verify(self) -> int:
        """Rows to compute again and compare; 0 if the output is to be made."""
        rows = self.job.get("verify") if self.key.startswith(VERIFY) else 0
        return rows if isinstance(rows, int) else 0

    @property
    def partition(self) -> str:
        """The key of the file or subreddit that the job is about."""
        return self.key.removeprefix(VERIFY) if self.verify else self.key


@dataclass(frozen=True, slots=True)
class Result:
    """How a job ended, for the runs that wait and for Dagster.

    Attributes:
        job: the job's id.
        partition: the partition key.
        outcome: ``made``, ``fresh`` when the output was there already, or ``verified``.
        data_version: of the output.
        source_version: of the chain file (embeddings only).
        metadata: plain JSON values for Dagster.
        error, hint, error_type, host, traceback: when it failed for good.
    """

    job: str
    asset: str
    partition: str
    ok: bool = True
    outcome: str = "made"
    data_version: str = ""
    source_version: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    hint: str = ""
    error_type: str = ""
    host: str = ""
    traceback: str = ""

    def to_json(self) -> str:
        """The result as JSON, empty fields left out."""
        fields = ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        return _json({name: value for name, value in fields if value not in ("", {})})

    @classmethod
    def from_json(cls, text: str, asset: str = "") -> Result:
        """From :meth:`to_json`; unknown fields are ignored, ``asset`` is the default."""
        record = json.loads(text)
        record.setdefault("asset", asset)
        known = cls.__dataclass_fields__
        return cls(**{name: value for name, value in record.items() if name in known})


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that will not be tried again by itself."""

    kind: Kind
    key: str
    error: str
    hint: str
    error_type: str
    host: str
    attempts: int
    recoveries: int
    died_at: float
    payload: str
    traceback: str = ""
    stamp: str = ""
