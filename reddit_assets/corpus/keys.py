"""Partition keys: ``<shard>/<subreddit>/<chunk>`` of a file, ``<shard>/<subreddit>`` of a cluster.

A flat tree has no shards: its keys are ``<subreddit>/<chunk>`` and ``<subreddit>``. Keys are
text; any Unicode is welcome except what Dagster's partition ranges or a file system cannot hold.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from reddit_assets.errors import BadKeyError

__all__ = [
    "check_key",
    "cluster_key_of",
    "is_plain",
    "join_chunk",
    "join_key",
    "shard_of",
    "subreddit_of",
]

# `...` and `|` have a meaning in Dagster's partition selections.
_FORBIDDEN = ("...", "|")

_PLAIN = re.compile(r"[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*")


def is_plain(part: str) -> bool:
    """Whether a name is of letters, digits and harmless signs, as most are: it can be in a key."""
    return _PLAIN.fullmatch(part) is not None


def _problem(part: str) -> str | None:
    """Why ``part`` (a folder or file name) cannot be part of a key; ``None`` if it can."""
    if _PLAIN.fullmatch(part):
        return None
    if part in ("", ".", ".."):
        return f"contains the path part {part!r}"
    if part != part.strip():
        return "begins or ends with white space"
    for forbidden in _FORBIDDEN:
        if forbidden in part:
            return f"contains {forbidden!r}"
    for character in part:
        category = unicodedata.category(character)
        if category == "Cs":
            return "is not valid UTF-8"
        if category in ("Cc", "Zl", "Zp"):
            return f"contains the control character U+{ord(character):04X}"
    return None


def join_key(parts: Iterable[str], *, path: object = None) -> str:
    """The key made of ``parts``, after checking each of them.

    Raises:
        BadKeyError: a part cannot be in a key; the message names ``path``.
    """
    checked = list(parts)
    for part in checked:
        problem = _problem(part)
        if problem is not None:
            shown = ascii("/".join(checked)) if path is None else ascii(str(path))
            raise BadKeyError(
                f"{shown} cannot be a partition key: it {problem}.",
                hint="Rename the file or folder.",
            )
    return "/".join(checked)


def join_chunk(cluster_key: str, chunk: str, *, path: object = None) -> str:
    """The key of a chunk of a subreddit whose own key was checked before.

    Raises:
        BadKeyError: ``chunk`` cannot be in a key; the message names ``path``.
    """
    if _PLAIN.fullmatch(chunk):
        return f"{cluster_key}/{chunk}"
    return join_key((*cluster_key.split("/"), chunk), path=path)


def check_key(key: str, *, parts: tuple[int, ...] = (2, 3)) -> str:
    """``key`` itself, if it is a key with one of the given numbers of parts.

    Raises:
        BadKeyError: it is not.
    """
    pieces = key.split("/")
    join_key(pieces)
    if len(pieces) not in parts:
        wanted = " or ".join(str(number) for number in parts)
        raise BadKeyError(
            f"{key!r} has {len(pieces)} parts instead of {wanted}.",
            hint="A file's key is <shard>/<subreddit>/<chunk>, a cluster's <shard>/<subreddit>.",
        )
    return key


def cluster_key_of(key: str) -> str:
    """The subreddit that a file belongs to: ``as/AskReddit/c_0`` → ``as/AskReddit``."""
    return key.rsplit("/", 1)[0]


def subreddit_of(cluster_key: str) -> str:
    """The subreddit's name without its shard: ``as/AskReddit`` → ``AskReddit``."""
    return cluster_key.rsplit("/", 1)[-1]


def shard_of(cluster_key: str) -> str | None:
    """The shard of a cluster key, ``None`` in a flat tree: ``as/AskReddit`` → ``as``."""
    shard, separator, _ = cluster_key.rpartition("/")
    return shard if separator else None
