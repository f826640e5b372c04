"""Subreddits by name, as people give them to a command."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from reddit_assets.errors import NotFoundError

if TYPE_CHECKING:
    from reddit_assets.corpus.layout import Layout
    from reddit_assets.settings import Settings

__all__ = ["cluster_key", "clustered_keys", "one_named", "require_subreddits"]


def require_subreddits(settings: Settings) -> None:
    """Looks whether every subreddit that a filter names is there; patterns may match none.

    Raises:
        NotFoundError: one is not, with those of a similar name.
    """
    from reddit_assets.corpus.subreddits import SubredditFilter
    from reddit_assets.workspace import Workspace

    wanted = SubredditFilter.parse(settings.subreddits).include
    names = [name for name in wanted if not set(name) & set("*?[")]
    if not names:
        return
    all_of_them = settings.model_copy(update={"subreddits": ""})
    workspace = Workspace.of_trees(all_of_them)
    keys = workspace.scanner(dead=()).subreddits()
    there = {*keys, *(key.rpartition("/")[2] for key in keys)}
    for name in names:
        if name not in there:
            missing = f"There is no subreddit {name} in {workspace.layout.chains}."
            one_named(name, keys, missing, "--subreddits takes names and patterns.")


def clustered_keys(layout: Layout) -> list[str]:
    """The cluster keys of folders that hold files, ours or the earlier system's."""
    folders = [*layout.clusters.glob("*"), *layout.clusters.glob("*/*")]
    return sorted(f.relative_to(layout.clusters).as_posix() for f in folders if _has_files(f))


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(path.is_file() for path in folder.iterdir())


def cluster_key(layout: Layout, subreddit: str) -> str:
    """The cluster key of a subreddit with clusters, given by name or by key.

    Raises:
        NotFoundError: there are none of it, or several shards have one.
    """
    return one_named(
        subreddit,
        clustered_keys(layout),
        f"There are no clusters of {subreddit} in {layout.clusters}.",
        f"`reddit-assets cluster --subreddit {subreddit}` makes them.",
    )


def one_named(name: str, keys: Iterable[str], missing: str, hint: str = "") -> str:
    """The cluster key among ``keys`` that is ``name`` (SHARD/NAME), or whose subreddit is.

    Names are taken literally: ``*`` and ``!`` mean themselves.

    Args:
        missing: the sentence for a name that is not there.
        hint: what to do then, where no name is near.

    Raises:
        NotFoundError: none has that name, or several shards have one.
    """
    found = sorted(keys)
    if name in found:
        return name
    same = [key for key in found if key.rpartition("/")[2] == name]
    if len(same) == 1:
        return same[0]
    if same:
        raise NotFoundError(
            f"{name} exists {len(same)} times: {', '.join(same)}.", hint="Name the shard as well."
        )
    near = _near(name, found)
    if near:
        hint = f"Did you mean {' or '.join(near)}? Names are case-sensitive."
    raise NotFoundError(missing, hint=hint)


def _near(name: str, keys: list[str]) -> list[str]:
    """At most three names like ``name``, the most similar first; case counts little."""
    import difflib

    names: dict[str, list[str]] = {}
    for key in keys:
        shown = key if "/" in name else key.rpartition("/")[2]
        names.setdefault(shown.casefold(), []).append(shown)
    near = difflib.get_close_matches(name.casefold(), names, n=3)
    return list(dict.fromkeys(each for folded in near for each in names[folded]))[:3]
