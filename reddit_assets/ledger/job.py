"""The records of a job's life: what is wanted, what is leased, how it ended."""

from __future__ import annotations

import json
import math
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

from reddit_assets.corpus.layout import CLUSTER_FILES, Layout
from reddit_assets.errors import BadJobError, first_line, printable

__all__ = [
    "WORK",
    "Claim",
    "DeadLetter",
    "Job",
    "Kind",
    "Lane",
    "Result",
    "new_token",
    "outputs_of",
    "partition_of",
    "read_object",
]

_NO_PARTITION = ("malformed:", "foreign:")

_encode = json.JSONEncoder(ensure_ascii=False).encode


class Kind(StrEnum):
    """What a queue's jobs make."""

    EMBED = "embed"
    CLUSTER = "cluster"
    INGEST = "ingest"

    @property
    def asset(self) -> str:
        """The Dagster asset whose partitions the jobs make."""
        return _ASSETS[self]

    @property
    def one_at_a_time(self) -> bool:
        """Whether a worker holds a single job of it: each takes long, and much memory."""
        return self is not Kind.EMBED


_ASSETS = {Kind.EMBED: "embeddings", Kind.CLUSTER: "clusters", Kind.INGEST: "dumps"}

WORK = (Kind.EMBED, Kind.CLUSTER)
"""What chain files need; dumps come before them, and not everybody has any."""


class Lane(StrEnum):
    """Lists that a job can wait in, beside one ``run:<id>`` per Dagster run."""

    PUBLIC = "public"  # the list that plain consumers read: output absent, no run waiting
    STALE = "stale"  # the output exists and must be made again: plain consumers would skip it
    URGENT = "urgent"  # before all others
    ALONE = "alone"  # suspects: a process died while it computed them


def partition_of(key: str) -> str | None:
    """The partition that a job of this key makes; ``None`` for a dead letter that is not a job."""
    return None if key.startswith(_NO_PARTITION) else key


def new_token() -> str:
    """A random fencing token or job id: 64 bits as hex."""
    return secrets.token_hex(8)


def outputs_of(layout: Layout, kind: Kind, key: str) -> list[Path]:
    """The final names of a job's outputs; none if it makes no partition. Raises BadKeyError."""
    if partition_of(key) is None or kind is Kind.INGEST:
        return []  # the task publishes many files itself, each whole
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
    """

    kind: Kind
    key: str
    stamp: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """A job leased to a worker.

    Attributes:
        id: of the job.
        token: the fencing token; every later step must show it.
        worker: who holds it.
        stamp, force: as of :class:`Job`.
        attempts: exceptions so far.
        crashes: how often its process died while it was alone there.
        evictions: how often its whole worker vanished.
        suspect: it must be the only job in its process.
        tombs: tokens of dead leases, whose temporary files may be deleted.
    """

    kind: Kind
    key: str
    id: str
    token: str
    worker: str = ""
    stamp: str = ""
    force: bool = False
    attempts: int = 0
    crashes: int = 0
    evictions: int = 0
    suspect: bool = False
    tombs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """How a job ended, for the runs that wait and for Dagster.

    Attributes:
        job: the job's id.
        partition: the partition key.
        outcome: ``made``, or ``fresh`` when the output was there already.
        data_version: of the output.
        source_version: of the chain file (embeddings only).
        metadata: plain JSON values for Dagster.
        error, hint, error_type, host, traceback: when it became a dead letter.
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
        record = ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        # Bytes that were not UTF-8 are surrogates, which cannot be sent: they are escaped.
        return printable(_encode({name: value for name, value in record if value not in ("", {})}))

    @classmethod
    def from_json(cls, text: str, asset: str = "") -> Result:
        """From :meth:`to_json`; unknown fields are ignored, ``asset`` is the default.

        Raises:
            BadJobError: it is not a result.
        """
        record = {"asset": asset, **read_object(text)}
        types = {"ok": bool, "metadata": dict}
        known = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        for name, value in known.items():
            wanted = types.get(name, str)
            if not isinstance(value, wanted):
                raise BadJobError(
                    f"The result's {name} is {type(value).__name__}, not {wanted.__name__}."
                )
        missing = {"job", "partition"} - known.keys()
        if missing:
            raise BadJobError(f"The result has no {' and no '.join(sorted(missing))}.")
        return cls(**known)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that is not tried again by itself, or lines of the public list that are not jobs.

    Attributes:
        payload: the job or line; of ``lines`` the first few, one in each line.
        lines: how many lines of the public list were refused for this reason.
    """

    kind: Kind
    key: str
    error: str
    hint: str
    error_type: str
    host: str
    attempts: int
    crashes: int
    evictions: int
    died_at: float
    payload: str
    traceback: str = ""
    stamp: str = ""
    lines: int = 1


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large")
    return value


_decode = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite).decode


def read_object(text: str) -> dict[str, Any]:
    """A JSON object, read strictly. Of a key that is there twice, the last one counts.

    Raises:
        BadJobError: it is not one, is nested too deeply, or holds a number that is too large.
    """
    try:
        value = _decode(text)
    except RecursionError:
        raise BadJobError("The entry is nested too deeply.") from None
    except ValueError as error:
        raise BadJobError(f"The entry is not JSON: {first_line(error)}.") from None
    if not isinstance(value, dict):
        raise BadJobError("The entry is not a JSON object.")
    return value
