"""Which file here a path in a job means: the job's producer may know the trees by other roots."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePath

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import BadJobError, ElsewhereError
from reddit_assets.ledger.job import Kind

__all__ = ["inside", "key_of_paths"]

_SEE = "See docs/wire-format.md."


def key_of_paths(layout: Layout, kind: Kind, job: Mapping[str, object]) -> str:
    """The key that a job's paths mean.

    A path below another root means the file here that has the same last parts, if there is one.

    Raises:
        BadJobError: a path is missing or is not one, or the two name different files.
        ElsewhereError: a path lies outside this host's trees, and no such file is here.
        BadKeyError: a path has a name that cannot be a key.
    """
    if kind is Kind.INGEST:
        raise BadJobError("The job has no key.", hint="Its key is the dump's path below dumps/.")
    if kind is Kind.CLUSTER:
        return layout.cluster_key_of_path(_path(job, "subreddit_path", layout, layout.embeddings))
    found = layout.key_of(_path(job, "input_path", layout, layout.chains))
    target = layout.key_of(_path(job, "output_path", layout, layout.embeddings))
    if found != target:
        raise BadJobError(
            f"The job's input_path is {found} and its output_path {target}.",
            hint="An embedding file has the name of its chain file.",
        )
    return found


def inside(path: str, root: str) -> bool:
    """Whether a path lies below a folder, as far as the two texts say."""
    return path.startswith(root.rstrip(os.sep) + os.sep)


def _path(job: Mapping[str, object], name: str, layout: Layout, root: Path) -> Path:
    """The path in a field of a job, as a path below ``root``."""
    value = job.get(name)
    if value is None:
        raise BadJobError(f"The job has no {name}.", hint=_SEE)
    if not isinstance(value, str):
        raise BadJobError(f"The job's {name} is {type(value).__name__}, not text.", hint=_SEE)
    if "\0" in value or not os.path.isabs(value) or not _can_be_a_name(value):
        raise BadJobError(f"The job's {name} {value[:500]!r} is not an absolute path.")
    if ".." in PurePath(value).parts:
        raise BadJobError(f"The job's {name} {value[:500]!r} leads outside {root} with '..'.")
    normal = os.path.normpath(value)
    for theirs, ours in layout.prefixes:
        if inside(normal, theirs):
            normal = ours + normal[len(theirs.rstrip(os.sep)) :]
            break
    if inside(normal, str(root)):
        return Path(normal)
    # A cluster job names a subreddit's folder, the others a file in it.
    depths = (2, 1) if name == "subreddit_path" else (3, 2)
    there = os.path.isdir if name == "subreddit_path" else os.path.isfile
    tree = layout.embeddings if name == "subreddit_path" else layout.chains
    names = {root.name, "chains" if name == "input_path" else "embeddings"}
    tails = _tails(normal, names, depths)
    tail = _below_the_same_folder(normal, root, depths)
    tail = tail or next((tail for _, tail in tails if there(tree / tail)), None)
    if tail is None:
        raise _elsewhere(name, normal, root, tails)
    return root / tail


def _can_be_a_name(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _below_the_same_folder(path: str, root: Path, depths: tuple[int, ...]) -> str | None:
    """The part below ``root``, where the path leads there by a link, or ``root`` is a link."""
    real = os.path.realpath(root)
    parts = PurePath(path).parts
    for depth in depths:
        if len(parts) > depth and os.path.realpath(os.path.join(*parts[:-depth])) == real:
            return os.path.join(*parts[-depth:])
    return None


def _tails(path: str, names: set[str], depths: tuple[int, ...]) -> list[tuple[str, str]]:
    """What may be the tree's folder on another host, each with the part below it."""
    parts = PurePath(path).parts
    return [
        (os.path.join(*parts[:-depth]), os.path.join(*parts[-depth:]))
        for depth in depths
        if len(parts) > depth and parts[-depth - 1] in names
    ]


def _elsewhere(name: str, path: str, root: Path, tails: list[tuple[str, str]]) -> ElsewhereError:
    """The same message for all jobs of one producer: they become one dead letter."""
    parts = PurePath(path).parts
    folder = tails[0][0] if tails else os.path.join(*parts[: min(3, max(1, len(parts) - 1))])
    theirs, ours = PurePath(folder), PurePath(root)
    if theirs.name == ours.name:
        theirs, ours = theirs.parent, ours.parent
    return ElsewhereError(
        f"The job's {name} lies below {folder[:500]}, outside {root}, and no such file is here.",
        hint=f"If {theirs} is {ours} here, start the workers with "
        f'REDDIT_PATH_PREFIXES="{theirs}={ours}", then `reddit-assets dead retry`. To drop these '
        "jobs: `reddit-assets dead purge`, `reddit-assets queue clear`.",
    )
