"""Provenance: what an output was made of and by whom, as a record inside the file itself.

It is a JSON text under the key ``reddit_assets`` of the Parquet file's key-value metadata.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from reddit_assets.corpus.fingerprints import Stamp, adopted_version
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.oserrors import open_file, unreadable
from reddit_assets.corpus.vectors import find_vectors, is_embedding_column
from reddit_assets.errors import BadFileError, first_line

__all__ = [
    "ADOPTED_KEY",
    "PROVENANCE_KEY",
    "ClusterProvenance",
    "EmbeddingProvenance",
    "ModelIdentity",
    "OutputFile",
    "Provenance",
    "SourceIdentity",
    "changed_inputs",
    "cluster_inputs",
    "not_whole",
    "parse_provenance",
    "read_output",
    "text_facts",
]

PROVENANCE_KEY = b"reddit_assets"
ADOPTED_KEY = b"adopted_version"
"""Of a converted file of the earlier system: the data version that it had before."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class SourceIdentity(_Record):
    """The chain file as it was read."""

    fingerprint: str
    size: int
    mtime_ns: int
    rows: int

    @property
    def stamp(self) -> Stamp:
        """Its size and modification time."""
        return Stamp(self.size, self.mtime_ns)


class ModelIdentity(_Record):
    """What determines a vector: weights, tokenizer, pooling and max tokens."""

    name: str
    fingerprint: str
    dimension: int
    max_tokens: int
    pooling: str


class EmbeddingProvenance(_Record):
    """The provenance of an embedding file."""

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
    # The choices of columns (see corpus.texts) that the texts are of; what of a setting's is there.
    text_column: str = ""
    # The setting, where it is not the usual one, and the share of rows without a text.
    text_columns: str = ""
    empty_texts: float = 0.0
    job_id: str = ""
    written_at: float = 0.0


def text_facts(made: EmbeddingProvenance) -> dict[str, Any]:
    """What a result says of the texts, where it is not the usual."""
    facts = {"text_columns": made.text_columns, "empty_texts": round(made.empty_texts, 4)}
    return {name: value for name, value in facts.items() if value}


class ClusterProvenance(_Record):
    """The provenance of a clustered file."""

    kind: Literal["cluster"] = "cluster"
    format: int = 1
    key: str
    data_version: str
    # Data version by key, its hash, and the hash of the files' stamps: a quick scan compares only
    # the last.
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


Provenance = Annotated[EmbeddingProvenance | ClusterProvenance, Field(discriminator="kind")]
_PROVENANCE: TypeAdapter[EmbeddingProvenance | ClusterProvenance] = TypeAdapter(Provenance)


@dataclass(frozen=True, slots=True)
class OutputFile:
    """What an output's metadata say.

    Attributes:
        rows: number of rows.
        dimension: numbers per vector; 0 if it holds none.
        stamp: size and time of the file when it was read.
        provenance: ours, or ``None`` when the earlier system wrote the file.
        kept_version: of a file of the earlier system that was converted, the version it had.
    """

    path: Path
    rows: int
    dimension: int
    stamp: Stamp
    provenance: EmbeddingProvenance | ClusterProvenance | None
    kept_version: str = ""

    @property
    def adopted(self) -> bool:
        """Whether the earlier system made the file."""
        return self.provenance is None

    @property
    def data_version(self) -> str:
        """The data version; for an adopted file, of its size and time."""
        if self.provenance is not None:
            return self.provenance.data_version
        return self.kept_version or adopted_version(self.stamp)


def parse_provenance(text: bytes, path: Path | str) -> EmbeddingProvenance | ClusterProvenance:
    """Provenance from its JSON.

    Raises:
        BadFileError: it cannot be understood.
    """
    try:
        return _PROVENANCE.validate_json(text)
    except ValidationError as error:
        raise BadFileError(
            f"{path} has provenance that cannot be understood ({error.error_count()} problems).",
            hint="Delete the file; the next scan makes it again.",
        ) from None


def not_whole(path: Path | str, why: str) -> BadFileError:
    """The error of an output that is truncated or damaged."""
    return BadFileError(
        f"{path} is not a whole parquet file: {why}.",
        hint="Delete it; the next scan makes it again.",
    )


def read_output(path: Path) -> OutputFile:
    """Open an embedding or clustered file and read its metadata with pyarrow.

    Raises:
        FileNotFoundError: there is no such file.
        BadFileError: it cannot be read, it is not a whole parquet file, or its provenance cannot be
            understood.
    """
    try:
        with open_file(path) as file:
            stamp = Stamp.of(os.fstat(file.fileno()))
            metadata = pq.read_metadata(file)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from error
        raise not_whole(path, first_line(error)) from None
    entries: Mapping[bytes, bytes] = metadata.metadata or {}
    text = entries.get(PROVENANCE_KEY)
    provenance = None if text is None else parse_provenance(text, path)
    kept = entries.get(ADOPTED_KEY, b"").decode("ascii", "replace")
    return OutputFile(path, metadata.num_rows, _dimension(metadata), stamp, provenance, kept)


def _dimension(metadata: pq.FileMetaData) -> int:
    columns = sum(1 for name in metadata.schema.names if is_embedding_column(name))
    if columns:  # An Arrow schema of 384 fields takes as long as all else.
        return columns
    vectors = find_vectors(metadata.schema.to_arrow_schema(), metadata)
    return vectors.dimension if vectors is not None else 0


def cluster_inputs(layout: Layout, keys: Iterable[str]) -> list[OutputFile]:
    """The embedding files that go into a cluster, opened for their provenance, in key order.

    ``set_hash({key: file.data_version})`` and ``set_hash({key: file.stamp})`` of them are a
    :class:`ClusterProvenance`'s ``inputs_hash`` and ``inputs_stamp``.

    Raises:
        FileNotFoundError: one is missing.
        BadFileError: one is not a whole file.
    """
    return [read_output(layout.embedding_path(key)) for key in sorted(keys)]


def changed_inputs(path: Path, versions: Mapping[str, str]) -> str:
    """How inputs differ from those that a clustered file was made of, in words.

    Args:
        versions: their data versions by key.
    """
    before: dict[str, str] = {}
    with suppress(FileNotFoundError, BadFileError):
        made = read_output(path).provenance
        before = made.inputs if isinstance(made, ClusterProvenance) else {}
    changed = sum(versions[key] != before[key] for key in versions.keys() & before.keys())
    added, gone = len(versions.keys() - before), len(before.keys() - versions)
    return f"{added} files are new, {changed} changed, {gone} gone"
