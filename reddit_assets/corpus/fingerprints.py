"""Fingerprints of contents, and the data versions and set hashes made of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping

__all__ = [
    "FORMAT_VERSION",
    "adopted_version",
    "cluster_version",
    "content_fingerprint",
    "embedding_version",
    "set_hash",
    "stamp_of",
]

# Changes when the meaning of an embedding file's columns or footer changes.
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


def stamp_of(stat: os.stat_result) -> str:
    """What a quick look knows of a file's content: its size and time of change."""
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def embedding_version(source_fingerprint: str, model_fingerprint: str) -> str:
    """The data version of an embedding file: source, model and format."""
    return _digest("embedding", str(FORMAT_VERSION), source_fingerprint, model_fingerprint)


def adopted_version(stamp: str) -> str:
    """The data version of an embedding file made by the original, which has no footer of ours."""
    return "adopted-" + _digest("adopted", stamp)


def set_hash(versions: Mapping[str, str]) -> str:
    """The hash of a subreddit's embedding files: every key with its data version."""
    return _digest("set", *(f"{key}\0{versions[key]}" for key in sorted(versions)))


def cluster_version(inputs_hash: str, settings_fingerprint: str) -> str:
    """The data version of a cluster: the set of its inputs and the clustering settings."""
    return _digest("cluster", str(FORMAT_VERSION), inputs_hash, settings_fingerprint)
