"""Files that nobody needs: outputs whose chain files have vanished, abandoned temporary files.

Only below embeddings/ and clusters/, and only files of the names that we give: the tree of chain
files is never written to, and no folder is deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from reddit_assets.corpus.layout import CLUSTER_FILES, CLUSTERED_NAME, Layout
from reddit_assets.corpus.output import is_temporary
from reddit_assets.corpus.scan import SubredditStatus

__all__ = ["Say", "abandoned", "orphans", "remove", "shown"]

# A temporary file that nobody has touched for this long belongs to nobody.
_TEMPORARY_SECONDS = 86_400.0

Say = Callable[[str], None]


def orphans(layout: Layout, statuses: Iterable[SubredditStatus]) -> list[Path]:
    """Embeddings and clusters whose chain files have vanished."""
    found: list[Path] = []
    for status in statuses:
        found += [layout.embedding_path(key) for key in status.orphans]
        folder = layout.cluster_dir(status.cluster_key)
        if status.gone and (folder / CLUSTERED_NAME).is_file():
            found += [folder / name for name in sorted(CLUSTER_FILES)]
    return [path for path in found if path.is_file()]


def abandoned(paths: Iterable[Path]) -> list[Path]:
    """Those of the temporary files that nobody has touched for a day."""
    horizon = time.time() - _TEMPORARY_SECONDS
    return [path for path in paths if is_temporary(path.name) and _mtime(path) < horizon]


def remove(layout: Layout, paths: Iterable[Path], say: Say) -> list[Path]:
    """Delete files below embeddings/ and clusters/; those that were there."""
    removed: list[Path] = []
    for path in paths:
        ours = path.is_relative_to(layout.embeddings) or path.is_relative_to(layout.clusters)
        if not ours or path.is_relative_to(layout.chains) or path.is_dir():
            say(f"{path} is not removed: it is not a file below embeddings/ or clusters/.")
            continue
        try:
            path.unlink()
            removed.append(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            say(f"{path} cannot be removed: {error.strerror}.")
    if removed:
        say(f"{len(removed)} files removed: {shown(removed)}")
    return removed


def shown(paths: Sequence[Path]) -> str:
    """The first paths, as the end of a sentence."""
    text = ", ".join(str(path) for path in paths[:20])
    return f"{text}, … and {len(paths) - 20} more." if len(paths) > 20 else f"{text}."


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
