"""Walking the trees: which folders are subreddits, which files lie in them, and what is passed by.

An entry that the operating system refuses is that entry's problem; the walk goes on. Where one
cannot be looked at, nothing is concluded from its absence.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from reddit_assets.corpus.fingerprints import Stamp
from reddit_assets.corpus.keys import is_plain, join_chunk, join_key, shard_of
from reddit_assets.corpus.layout import SUFFIX
from reddit_assets.corpus.oserrors import unreadable
from reddit_assets.corpus.output import is_temporary
from reddit_assets.errors import (
    BadFileError,
    BadKeyError,
    RedditAssetsError,
    UnreadableFileError,
)

__all__ = [
    "Found",
    "Ignored",
    "Passed",
    "Refuse",
    "entries_of",
    "files_of",
    "folders_of",
    "keys_below",
    "temporary_in",
]

Refuse = Callable[[RedditAssetsError], None]

_PLACE = "<shard>/<subreddit>/<chunk>.parquet"
_UNFINISHED = "_temporary"
# What file managers, Spark and network file systems leave beside files.
_LITTER = re.compile(
    r"\._.*|\.DS_Store|Thumbs\.db|desktop\.ini|\.nfs[0-9a-f]+|\.directory|\.gitkeep|\.keep"
    r"|_SUCCESS|_metadata|_common_metadata|_(committed|started)_.*|.*\.crc",
    re.DOTALL,
)
# Entries of one folder that are counted at the most.
_COUNTED = 10_000


class Ignored(StrEnum):
    """Why something in the tree of chain files is passed by. The value follows a number."""

    DEEPER = "files in folders below the subreddit's"
    SUFFIX = "files with a name that does not end in .parquet"
    HIDDEN = "files or folders that are hidden (their names begin with a dot)"
    UNFINISHED = "files of unfinished Spark jobs (_temporary)"
    OUTSIDE = "links that lead out of the tree"


@dataclass(slots=True)
class Passed:
    """What a walk has passed by.

    Attributes:
        counts: entries by reason.
        examples: the path of the first by reason.
        litter: files that everybody expects to be ignored: ``.DS_Store``, ``_SUCCESS``, ….
        links: symbolic links, wherever they lead.
    """

    counts: Counter[Ignored] = field(default_factory=Counter)
    examples: dict[Ignored, str] = field(default_factory=dict)
    litter: int = 0
    links: int = field(default=0, compare=False)

    def add(self, why: Ignored, path: str, count: int = 1) -> None:
        """Count one more, or several."""
        self.counts[why] += count
        self.examples.setdefault(why, path)

    def update(self, other: Passed) -> None:
        """Add what another walk has passed by."""
        self.counts.update(other.counts)
        self.examples = {**other.examples, **self.examples}
        self.litter += other.litter


@dataclass(slots=True)
class Found:
    """The files in a subreddit's folder.

    Attributes:
        files: stamps by key.
        closed: keys that something has which is no readable file, each with the sentence.
        unreadable: why the folder cannot be listed.
    """

    files: dict[str, Stamp] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    unreadable: RedditAssetsError | None = None


def entries_of(folder: Path | str) -> list[os.DirEntry[str]]:
    """A folder's entries; none if there is no such folder.

    Raises:
        UnreadableFileError: no permission, or the storage fails. To call it empty instead would
            make orphans of all its outputs.
    """
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(folder, error) from error


def _seen(
    entries: Iterable[os.DirEntry[str]], refuse: Refuse, passed: Passed | None
) -> Iterator[os.DirEntry[str]]:
    """A folder's entries without litter and what is hidden."""
    for entry in entries:
        name = entry.name
        # Most names; no litter is called so.
        if name[-8:] == SUFFIX and name[0] not in "._":
            yield entry
        elif _LITTER.fullmatch(name):
            if passed is not None:
                passed.litter += 1
        elif name.startswith("."):
            if passed is not None:
                passed.add(Ignored.HIDDEN, entry.path)
        elif name == _UNFINISHED:
            if passed is not None:
                _count_below(entry, Ignored.UNFINISHED, refuse, passed)
        else:
            yield entry


@contextmanager
def _alone(path: str, refuse: Refuse) -> Iterator[None]:
    """What the operating system refuses of an entry is said, and stops nothing."""
    try:
        yield
    except FileNotFoundError:
        pass  # vanished between listing and look: the next scan knows
    except UnreadableFileError as error:
        refuse(error)
    except OSError as error:
        refuse(unreadable(path, error))


def folders_of(
    root: Path,
    refuse: Refuse,
    passed: Passed | None = None,
    below: Callable[..., list[str]] | None = None,
) -> Iterator[str]:
    """Cluster keys below ``root``: folders with files in them, or below a shard.

    Args:
        refuse: takes what cannot be a subreddit or cannot be looked at.
        passed: counts what is ignored; ``None`` for the trees of outputs.
        below: :func:`keys_below`, or what knows its answers.

    Raises:
        UnreadableFileError: ``root`` itself cannot be listed.
    """
    for entry in _seen(entries_of(root), refuse, passed):
        keys: list[str] = []
        with _alone(entry.path, refuse):
            keys = (below or keys_below)(root, entry, refuse, passed)
        yield from keys


def keys_below(
    root: Path, entry: os.DirEntry[str], refuse: Refuse, passed: Passed | None
) -> list[str]:
    """The cluster keys of a folder directly below ``root``."""
    if _leads_out(entry, root, passed):
        return []
    if not entry.is_dir():
        if entry.name.endswith(SUFFIX):
            refuse(
                BadKeyError(
                    f"{entry.path} lies directly in {root}.", hint=f"Files belong at {_PLACE}."
                )
            )
        elif passed is not None:
            passed.add(Ignored.SUFFIX, entry.path)
        return []
    keys: list[str] = []
    flat, others = False, []
    for inner in _seen(entries_of(entry.path), refuse, passed):
        with _alone(inner.path, refuse):
            if _leads_out(inner, root, passed):
                pass
            elif inner.is_dir():
                keys += _key((entry.name, inner.name), inner.path, refuse)
            elif inner.name.endswith(SUFFIX):
                flat = True
            else:
                others.append(inner.path)
    if flat:
        keys += _key((entry.name,), entry.path, refuse)
    elif passed is not None:
        for path in others:
            passed.add(Ignored.SUFFIX, path)
    return keys


def _leads_out(entry: os.DirEntry[str], root: Path, passed: Passed | None) -> bool:
    """Whether it is a link out of the tree, which workers refuse to follow."""
    link = entry.is_symlink()
    if link and passed is not None:
        passed.links += 1
    out = link and not _inside(entry.path, root)
    if out and passed is not None:
        passed.add(Ignored.OUTSIDE, entry.path)
    return out


def _inside(path: str | Path, root: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _key(parts: tuple[str, ...], path: str, refuse: Refuse) -> Iterator[str]:
    try:
        yield join_key(parts, path=path)
    except BadKeyError as error:
        refuse(error)


def files_of(
    root: Path,
    cluster_key: str,
    refuse: Refuse,
    temporary: list[Path] | None = None,
    passed: Passed | None = None,
) -> Found:
    """The parquet files in a subreddit's folder below ``root``.

    Args:
        refuse: takes what cannot be a partition or cannot be looked at.
        temporary: takes leftover temporary files; ``None`` for the tree that we only read.
        passed: counts what is ignored; ``None`` for the trees of outputs.
    """
    found = Found()
    folder = f"{root}/{cluster_key}"
    try:
        if _is_link(root, cluster_key) and not _inside(folder, root):
            found.unreadable = BadFileError(
                f"{folder} leads outside {root} through a symbolic link.",
                hint="Replace the link by the folder itself.",
            )
            return found
        entries = entries_of(folder)
    except UnreadableFileError as error:
        found.unreadable = error
        refuse(error)
        return found
    deepest = "/" in cluster_key
    others = [entry for entry in entries if not _taken(entry, cluster_key, found)]
    for entry in list(_seen(others, refuse, passed)):
        if temporary is not None and is_temporary(entry.name):
            temporary.append(Path(entry.path))
        elif entry.name.endswith(SUFFIX):
            _take(entry, root, cluster_key, found, refuse, passed)
        elif passed is not None:
            with _alone(entry.path, refuse):
                if not entry.is_dir():
                    passed.add(Ignored.SUFFIX, entry.path)
                elif deepest and not _leads_out(entry, root, passed):
                    _count_below(entry, Ignored.DEEPER, refuse, passed)
    return found


def _is_link(root: Path, cluster_key: str) -> bool:
    """Whether the subreddit's folder or its shard's is a symbolic link."""
    shard = shard_of(cluster_key)
    return os.path.islink(f"{root}/{cluster_key}") or (
        shard is not None and os.path.islink(f"{root}/{shard}")
    )


def _taken(entry: os.DirEntry[str], cluster_key: str, found: Found) -> bool:
    """Add an entry that is a file with a usual name, as nearly all are; whether it is that."""
    name = entry.name
    if name[-8:] != SUFFIX or name[0] == "_" or not is_plain(name[:-8]):
        return False
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return False  # looked at once more, with the reason
    if not stat.S_ISREG(status.st_mode):
        return False
    found.files[f"{cluster_key}/{name[:-8]}"] = Stamp(status.st_size, status.st_mtime_ns)
    return True


def _take(
    entry: os.DirEntry[str],
    root: Path,
    cluster_key: str,
    found: Found,
    refuse: Refuse,
    passed: Passed | None,
) -> None:
    """Add an entry that is named like a chunk, if it is a file."""
    try:
        key = join_chunk(cluster_key, entry.name.removesuffix(SUFFIX), path=entry.path)
    except BadKeyError as error:
        refuse(error)
        return
    problem: RedditAssetsError
    try:
        if _leads_out(entry, root, passed):
            found.closed[key] = f"{entry.path} leads outside {root} through a symbolic link."
            return
        status = entry.stat()
        if stat.S_ISREG(status.st_mode):
            found.files[key] = Stamp.of(status)
            return
        if not stat.S_ISDIR(status.st_mode):
            problem = BadFileError(
                f"{entry.path} is a pipe, socket or device instead of a file.",
                hint="Move it out of the tree.",
            )
        elif "/" in cluster_key or passed is None:
            problem = _folder(entry.path)
        else:
            return  # a subreddit of the shard that this flat subreddit is too
    except FileNotFoundError:
        if not entry.is_symlink():
            return  # vanished between listing and look: the next scan knows
        problem = BadFileError(f"{entry.path} is a link to nothing.", hint="Remove it.")
    except OSError as error:
        problem = unreadable(entry.path, error)
    found.closed[key] = problem.message
    refuse(problem)


def _folder(path: str) -> BadFileError:
    return BadFileError(
        f"{path} is a folder with a file's name, as Spark writes them.",
        hint=f"Move the files in it up, to {_PLACE}, or give the folder another name.",
    )


def _count_below(entry: os.DirEntry[str], why: Ignored, refuse: Refuse, passed: Passed) -> None:
    """Count the files in an ignored folder."""

    def failed(error: OSError) -> None:
        refuse(unreadable(error.filename or entry.path, error))

    count = 0
    for folder, _, names in os.walk(entry.path, onerror=failed):
        for name in names:
            if _LITTER.fullmatch(name):
                passed.litter += 1
                continue
            count += 1
            passed.add(why, os.path.join(folder, name))
        if count > _COUNTED:
            break


def temporary_in(folder: Path) -> list[Path]:
    """Leftover temporary files in a folder of the embeddings' or the clusters' tree.

    Raises:
        UnreadableFileError: the folder cannot be listed.
    """
    return [Path(entry.path) for entry in entries_of(folder) if is_temporary(entry.name)]
