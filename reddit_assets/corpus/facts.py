"""What a scan compares of an output, read fast and kept while the file stays the same.

pyarrow takes 1.7 ms to read the metadata of 384 columns, of which a scan needs a few fields of the
JSON text in them. :func:`read_facts` finds that text in the raw bytes of the Parquet footer in
55 µs. Where the bytes are not exactly as expected, pyarrow reads them after all.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from reddit_assets.corpus.fingerprints import Stamp, adopted_version
from reddit_assets.corpus.oserrors import not_regular, unreadable
from reddit_assets.corpus.provenance import (
    ADOPTED_KEY,
    PROVENANCE_KEY,
    ClusterProvenance,
    EmbeddingProvenance,
    OutputFile,
    not_whole,
    parse_provenance,
    read_output,
)
from reddit_assets.errors import BadFileError

__all__ = [
    "AdoptedFacts",
    "ClusterFacts",
    "EmbeddingFacts",
    "Facts",
    "facts_of",
    "provenance_text",
    "read_facts",
]

_MAGIC = b"PAR1"
_TAIL = 16_384
# A KeyValue of Thrift's compact protocol: field 1 (string): length, key; field 2 (string): …
_ENTRY = b"\x18" + bytes([len(PROVENANCE_KEY)]) + PROVENANCE_KEY + b"\x18"
# A SchemaElement's fields 3 and 4: repetition (an enum), name (string): length, text.
_VECTOR = re.compile(rb"\x25[\0\2\4]\x18[\x07-\x0c](emb_[0-9]{3,8})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class EmbeddingFacts:
    """What is compared of an embedding file that we made.

    Attributes:
        size, mtime_ns: of the file itself. Numbers, since two stamps would be a third of an entry.
        source_size, source_mtime_ns: of the chain file that it was made of.
        data_version: as its provenance says.
        made_for: the key that it was made for, where that is not the one it lies under.
        model: the model's fingerprint, and
        model_name: its name.
        conformant: whether the backend was.
        text_columns: where they are not the usual ones.
        empty_texts: share of rows without a text.
    """

    size: int
    mtime_ns: int
    source_size: int
    source_mtime_ns: int
    data_version: str
    made_for: str
    model: str
    model_name: str
    conformant: bool
    text_columns: str = ""
    empty_texts: float = 0.0

    @property
    def stamp(self) -> Stamp:
        """Of the file itself."""
        return Stamp(self.size, self.mtime_ns)

    @property
    def source(self) -> Stamp:
        """Of the chain file that it was made of."""
        return Stamp(self.source_size, self.source_mtime_ns)


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What is compared of a clustered file that we made.

    Attributes:
        stamp: of the file itself.
        data_version: as its provenance says.
        inputs_hash: hash of the data versions of its inputs.
        inputs_stamp: hash of the stamps of its inputs.
        settings: fingerprint of the clustering settings.
    """

    stamp: Stamp
    data_version: str
    inputs_hash: str
    inputs_stamp: str
    settings: str


@dataclass(frozen=True, slots=True)
class AdoptedFacts:
    """What is known of an output without provenance: the earlier system made it.

    Attributes:
        stamp: of the file itself.
        dimension: numbers per vector.
        kept_version: its data version, if it was converted since.
    """

    stamp: Stamp
    dimension: int
    kept_version: str = ""

    @property
    def data_version(self) -> str:
        """Of its size and time."""
        return self.kept_version or adopted_version(self.stamp)


Facts = EmbeddingFacts | ClusterFacts | AdoptedFacts


def _facts(
    stamp: Stamp,
    provenance: EmbeddingProvenance | ClusterProvenance,
    key: str,
) -> EmbeddingFacts | ClusterFacts:
    if isinstance(provenance, ClusterProvenance):
        return ClusterFacts(
            stamp,
            provenance.data_version,
            provenance.inputs_hash,
            provenance.inputs_stamp,
            sys.intern(provenance.settings_fingerprint),
        )
    return EmbeddingFacts(
        *stamp,
        *provenance.source.stamp,
        provenance.data_version,
        "" if provenance.key == key else provenance.key,
        # The same in all files: one string each, however many entries a cache has.
        sys.intern(provenance.model.fingerprint),
        sys.intern(provenance.model.name),
        provenance.conformant,
        sys.intern(provenance.text_columns),
        provenance.empty_texts,
    )


def facts_of(output: OutputFile, key: str) -> Facts:
    """The facts of an output that pyarrow has read, which lies under ``key``."""
    if output.provenance is None:
        return AdoptedFacts(output.stamp, output.dimension, output.kept_version)
    return _facts(output.stamp, output.provenance, key)


def read_facts(path: str, key: str) -> Facts:
    """The facts of the output ``path``, which lies under ``key``, by a quick look.

    Sees that a file is truncated or was never finished, but no damage between its two ends.

    Raises:
        FileNotFoundError: there is no such file.
        BadFileError: it cannot be read, it is not a whole parquet file, or its provenance cannot be
            understood.
    """
    stamp, footer = _footer(path)
    if PROVENANCE_KEY not in footer:
        names = set(_VECTOR.findall(footer))
        # How long the vectors of a list are is not in these bytes, or not in one place.
        if names and ADOPTED_KEY not in footer:
            return AdoptedFacts(stamp, len(names))
        return facts_of(read_output(Path(path)), key)
    text = provenance_text(footer)
    if text is not None:
        try:
            return _facts(stamp, parse_provenance(text, path), key)
        except BadFileError:
            pass  # pyarrow decides whether it is ours
    return facts_of(read_output(Path(path)), key)


def _footer(path: str) -> tuple[Stamp, bytes]:
    try:
        # Not open_file: a scan opens a million of these. What is no plain file is told apart after.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise not_regular(path, status.st_mode)
        size = status.st_size
        # Most footers are in the last pages.
        tail = os.pread(descriptor, _TAIL, max(0, size - _TAIL))
        if size < 12 or tail[-4:] != _MAGIC:
            raise not_whole(path, "its end is missing")
        length = int.from_bytes(tail[-8:-4], "little")
        if not 0 < length <= size - 12:
            raise not_whole(path, f"its footer would be {length} bytes long")
        if length + 8 > len(tail):
            return Stamp.of(status), os.pread(descriptor, length, size - 8 - length)
        return Stamp.of(status), tail[-8 - length : -8]
    except OSError as error:
        raise unreadable(path, error) from error
    finally:
        os.close(descriptor)


def provenance_text(footer: bytes) -> bytes | None:
    """Our text out of a Parquet footer's bytes; ``None`` where pyarrow must look."""
    at = footer.rfind(_ENTRY)
    if at < 0 or footer.find(_ENTRY, 0, at) >= 0:
        return None
    at += len(_ENTRY)
    length = shift = 0
    for byte in footer[at : at + 5]:
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    text = footer[at : at + length]
    # Behind the value ends the KeyValue.
    if text[:1] != b"{" or text[-1:] != b"}" or footer[at + length : at + length + 1] != b"\0":
        return None
    return text
