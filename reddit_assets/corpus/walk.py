"""Walking the trees: which folders are subreddits, and which files lie in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from reddit_assets.corpus.fingerprints import Stamp
from reddit_assets.corpus.keys import join_key
from reddit_assets.corpus.layout import SUFFIX
from reddit_assets.corpus.oserrors import reading, unreadable
from reddit_assets.corpus.output import is_temporary
from reddit_assets.errors import BadKeyError

__all__ = ["files_of", "folders_of", "temporary_in"]

Refuse = Callable[[BadKeyError], None]


def _entries(folder: Path, *, hidden: bool = False) -> list[os.DirEntry[str]]:
    """A folder's entries; none if there is no such folder.

    Args:
        hidden: also those whose names begin with a dot.

    Raises:
        UnreadableFileError: no permission, or the storage fails. To call it empty instead would
            make orphans of all its outputs.
    """
    try:
        with os.scandir(folder) as found:
            return [entry for entry in found if hidden or not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(folder, error) from error


def folders_of(root: Path, refuse: Refuse) -> Iterator[str]:
    """Cluster keys below ``root``: folders with files in them, or below a shard."""
    for entry in _entries(root):
        if not entry.is_dir():
            if entry.name.endswith(SUFFIX):
                refuse(
                    BadKeyError(
                        f"{entry.path} lies directly in {root}.",
                        hint="Files belong at <shard>/<subreddit>/<chunk>.parquet.",
                    )
                )
            continue
        flat = False
        for inner in _entries(Path(entry.path)):
            if inner.is_dir():
                yield from _key((entry.name, inner.name), inner.path, refuse)
            else:
                flat = flat or inner.name.endswith(SUFFIX)
        if flat:
            yield from _key((entry.name,), entry.path, refuse)


def _key(parts: tuple[str, ...], path: str, refuse: Refuse) -> Iterator[str]:
    try:
        yield join_key(parts, path=path)
    except BadKeyError as error:
        refuse(error)


def files_of(
    root: Path, cluster_key: str, refuse: Refuse, temporary: list[Path] | None = None
) -> dict[str, Stamp]:
    """The parquet files in a subreddit's folder below ``root``, by key.

    Args:
        temporary: takes leftover temporary files; ``None`` for the tree that we only read.
    """
    found: dict[str, Stamp] = {}
    for entry in _entries(root / cluster_key):
        if temporary is not None and is_temporary(entry.name):
            temporary.append(Path(entry.path))
        elif entry.name.endswith(SUFFIX):
            try:
                parts = (*cluster_key.split("/"), entry.name.removesuffix(SUFFIX))
                with reading(entry.path):
                    for key in _key(parts, entry.path, refuse):
                        found[key] = Stamp.of(entry.stat())
            except FileNotFoundError:
                continue  # vanished between listing and stat: the next scan knows
    return found


def temporary_in(folder: Path) -> list[Path]:
    """Leftover temporary files in a folder of the embeddings' or the clusters' tree."""
    return [Path(e.path) for e in _entries(folder, hidden=True) if is_temporary(e.name)]
