"""Fingerprints of contents, and the data versions and set hashes made of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import NamedTuple

__all__ = [
    "EXACT",
    "FORMAT_VERSION",
    "Stamp",
    "adopted_version",
    "cluster_version",
    "content_fingerprint",
    "embedding_version",
    "set_hash",
    "text_stamp",
]

# Changes when the meaning of an embedding file's columns or provenance changes.
FORMAT_VERSION = 1

_BLOCK = 1 << 20


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def content_fingerprint(descriptor: int) -> str:
    """BLAKE2b-128 (hex) of an open file's whole content, read by ``pread``.

    Args:
        descriptor: an open file; its position is neither used nor moved.
    """
    digest = hashlib.blake2b(digest_size=16)
    offset = 0
    while block := os.pread(descriptor, _BLOCK, offset):
        digest.update(block)
        offset += len(block)
    return digest.hexdigest()


class Stamp(NamedTuple):
    """What a folder listing says of a file's content: its size and its modification time.

    As text, on the wire and in files, ``<bytes>-<nanoseconds since the epoch>``.
    """

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Stamp:
        """The stamp of the file that ``stat`` describes."""
        return cls(stat.st_size, stat.st_mtime_ns)

    def __str__(self) -> str:
        return f"{self.size}-{self.mtime_ns}"

    def job_stamp(self, text_columns: str = "", *, exact: bool = False) -> str:
        """The stamp of a chain file's job.

        Args:
            text_columns: what its text is made of, if that is set.
            exact: it is queued since its present vectors are inexact.
        """
        text = f"-{text_stamp(text_columns)}" if text_columns else ""
        return f"{self}{text}{EXACT if exact else ''}"

    @property
    def changed_at(self) -> float:
        """The modification time, seconds since the epoch."""
        return self.mtime_ns / 1e9


EXACT = "-exact"
"""The end of the stamp of a job that a backend with inexact vectors must not do."""


def text_stamp(text_columns: str) -> str:
    """What stands for the text columns in a job's stamp; empty for the usual ones."""
    return _digest(text_columns)[:12] if text_columns else ""


def embedding_version(source_fingerprint: str, model_fingerprint: str, text: str = "") -> str:
    """The data version of an embedding file: source, model and format.

    Args:
        text: the text columns, where they are not the usual ones.
    """
    parts = (source_fingerprint, model_fingerprint, *([text] if text else []))
    return _digest("embedding", str(FORMAT_VERSION), *parts)


def adopted_version(stamp: Stamp) -> str:
    """The data version of a file of the earlier system, which has no provenance."""
    return "adopted-" + _digest("adopted", str(stamp))


def set_hash(versions: Mapping[str, str | Stamp]) -> str:
    """The hash of a subreddit's embedding files: every key with its data version or stamp."""
    return _digest("set", *(f"{key}\0{versions[key]}" for key in sorted(versions)))


def cluster_version(inputs_hash: str, settings_fingerprint: str) -> str:
    """The data version of a cluster: the set of its inputs and the clustering settings."""
    return _digest("cluster", str(FORMAT_VERSION), inputs_hash, settings_fingerprint)
