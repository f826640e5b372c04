"""The footers of our parquet files: what an output was made of, by whom, and whether it is fresh.

A footer is a JSON text under the key ``reddit_assets`` of the parquet file's own metadata.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reddit_assets.corpus.fingerprints import adopted_version, stamp_of
from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import BadFileError

__all__ = [
    "PROVENANCE_KEY",
    "ClusterProvenance",
    "EmbeddingProvenance",
    "ModelIdentity",
    "OutputFile",
    "ProvenanceCache",
    "SourceIdentity",
    "cluster_inputs",
    "read_output",
]

PROVENANCE_KEY = b"reddit_assets"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class SourceIdentity(_Record):
    """The chain file as it was read."""

    fingerprint: str
    size: int
    mtime_ns: int
    rows: int

    @property
    def stamp(self) -> str:
        """As :func:`~reddit_assets.corpus.fingerprints.stamp_of` of the file."""
        return f"{self.size}-{self.mtime_ns}"


class ModelIdentity(_Record):
    """What determines a vector: weights, tokenizer, pooling and max tokens."""

    name: str
    fingerprint: str
    dimension: int
    max_tokens: int
    pooling: str


class EmbeddingProvenance(_Record):
    """The footer of an embedding file."""

    kind: Literal["embedding"] = "embedding"
    format: int = 1
    key: str
    data_version: str
    source: SourceIdentity
    model: ModelIdentity
    conformant: bool = True
    # Recorded, but without influence on freshness: backend, device, precision, versions, host.
    writer: dict[str, Any] = Field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0
    text_column: str = ""
    job_id: str = ""
    written_at: float = 0.0


class ClusterProvenance(_Record):
    """The footer of a clustered file."""

    kind: Literal["cluster"] = "cluster"
    format: int = 1
    key: str
    data_version: str
    # Data version by key, its hash, and the hash of the files' sizes and times: a quick scan
    # compares only the last.
    inputs: dict[str, str]
    inputs_hash: str
    inputs_stamp: str
    excluded: list[str] = Field(default_factory=list)
    settings_fingerprint: str
    settings: dict[str, Any] = Field(default_factory=dict)
    summary: dict[str, Any] = Field(default_factory=dict)
    writer: dict[str, Any] = Field(default_factory=dict)
    seconds: float = 0.0
    job_id: str = ""
    written_at: float = 0.0


@dataclass(frozen=True, slots=True)
class OutputFile:
    """What the footer of an output says.

    Attributes:
        rows: number of rows.
        dimension: number of ``emb_…`` columns.
        stamp: size and time of the file when it was read.
        footer: ours, or ``None`` when the original wrote the file.
    """

    path: Path
    rows: int
    dimension: int
    stamp: str
    provenance: EmbeddingProvenance | ClusterProvenance | None

    @property
    def adopted(self) -> bool:
        """Whether the original made the file."""
        return self.provenance is None

    @property
    def data_version(self) -> str:
        """The data version; for an adopted file, of its size and time."""
        return (
            adopted_version(self.stamp) if self.provenance is None else self.provenance.data_version
        )


def parse_provenance(
    metadata: Mapping[bytes, bytes] | None, path: Path
) -> EmbeddingProvenance | ClusterProvenance | None:
    """Our footer out of a parquet file's metadata; ``None`` if there is none.

    Raises:
        BadFileError: there is one, but it cannot be understood.
    """
    text = (metadata or {}).get(PROVENANCE_KEY)
    if text is None:
        return None
    try:
        if b'"kind":"cluster"' in text.replace(b" ", b"")[:40]:
            return ClusterProvenance.model_validate_json(text)
        return EmbeddingProvenance.model_validate_json(text)
    except ValidationError as error:
        raise BadFileError(
            f"{path} has a footer that cannot be understood ({error.error_count()} problems).",
            hint="Delete the file; the next scan makes it again.",
        ) from None


def read_output(path: Path) -> OutputFile:
    """Open an embedding or clustered file's footer.

    Raises:
        FileNotFoundError: there is no such file.
        BadFileError: it is not a whole parquet file, or its footer cannot be understood.
    """
    with open(path, "rb") as file:
        stamp = stamp_of(os.fstat(file.fileno()))
        try:
            metadata = pq.read_metadata(file)
        except (pa.ArrowException, OSError) as error:
            raise BadFileError(
                f"{path} is not a whole parquet file: {_first_line(error)}",
                hint="Delete it; the next scan makes it again.",
            ) from None
    names = metadata.schema.names
    dimension = sum(1 for name in names if is_embedding_column(name))
    return OutputFile(
        path, metadata.num_rows, dimension, stamp, parse_provenance(metadata.metadata, path)
    )


def cluster_inputs(layout: Layout, keys: Iterable[str]) -> list[OutputFile]:
    """The embedding files that go into a cluster, opened for their footers, in key order.

    ``set_hash({key: file.data_version})`` and ``set_hash({key: file.stamp})`` of them are a
    :class:`ClusterProvenance`'s ``inputs_hash`` and ``inputs_stamp``.

    Raises:
        FileNotFoundError: one is missing.
        BadFileError: one is not a whole file.
    """
    return [read_output(layout.embedding_path(key)) for key in sorted(keys)]


def is_embedding_column(name: str) -> bool:
    """Whether ``name`` is one of ``emb_000``, ``emb_001``, …."""
    return len(name) >= 7 and name.startswith("emb_") and name[4:].isdigit()


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


class ProvenanceCache:
    """Footers by path, valid while the file's size and time are the same. Thread-safe.

    Args:
        capacity: number of footers kept; the least recently used go first.
    """

    def __init__(self, capacity: int = 200_000) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[str, OutputFile] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path, stamp: str) -> OutputFile:
        """As :func:`read_output`; opened again only when ``stamp`` is another one."""
        name = str(path)
        with self._lock:
            known = self._entries.get(name)
            if known is not None and known.stamp == stamp:
                self._entries.move_to_end(name)
                return known
        found = read_output(path)
        with self._lock:
            self._entries[name] = found
            self._entries.move_to_end(name)
            while len(self._entries) > self._capacity:
                self._entries.popitem(last=False)
        return found
