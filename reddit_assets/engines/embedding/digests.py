"""Digests of model files, and the fingerprint that says whether two models are the same."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = ["file_digest", "model_fingerprint", "tokenizer_digest"]

FINGERPRINT_FORMAT = 1


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes; computed once per process for an unchanged file.

    Raises:
        OSError: it cannot be read.
    """
    path = Path(path)
    status = path.stat()
    return _file_digest(str(path.resolve()), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _file_digest(path: str, _size: int, _mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tokenizer_digest(path: Path) -> str:
    """SHA-256 (hex) of what a ``tokenizer.json`` means.

    Spacing and key order do not count, nor do its truncation and padding sections: this project
    sets both itself, and libraries rewrite them whenever they save a tokenizer.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON.
    """
    status = Path(path).stat()
    return _tokenizer_digest(str(Path(path).resolve()), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _tokenizer_digest(path: str, _size: int, _mtime_ns: int) -> str:
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    content.pop("truncation", None)
    content.pop("padding", None)
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def model_fingerprint(
    *,
    weights: list[tuple[str, str]],
    tokenizer: str,
    pooling: str,
    normalize: bool,
    max_tokens: int,
    text: dict[str, Any],
) -> str:
    """SHA-256 (hex) over everything that decides a model's vectors, and over no path.

    Args:
        weights: name inside the model's folder and digest of each weights file.
        tokenizer: its :func:`tokenizer_digest`.
        pooling: name of the pooling.
        normalize: whether vectors are scaled to length one.
        max_tokens: tokens kept of a text.
        text: what is done to texts before they are tokenized (lower case, prompt).
    """
    stated = {
        "format": FINGERPRINT_FORMAT,
        "weights": sorted(weights),
        "tokenizer": tokenizer,
        "pooling": pooling,
        "normalize": normalize,
        "max_tokens": max_tokens,
        "text": text,
    }
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
