"""The map of the corpus, made by the nightly where clustering is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from reddit_assets.corpus.cluster_table import find_table
from reddit_assets.corpus.layout import Layout
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.errors import RedditAssetsError
from reddit_assets.workspace import Workspace

__all__ = ["draw_corpus_map"]


def draw_corpus_map(workspace: Workspace, keys: Sequence[str], say: Callable[[str], None]) -> None:
    """Draw it if there are clusters that are newer than it is. What hinders it is said: the nightly
    goes on.

    Args:
        keys: cluster keys.
        say: is told what was done, in a sentence.
    """
    layout = workspace.layout
    if not _outdated(layout, keys):
        return
    if find_spec("hdbscan") is None:
        say("The map of the corpus is not made here: `reddit-assets corpus-map` on a worker does.")
        return
    from reddit_assets.tasks.corpus_map import make_corpus_map

    try:
        made = make_corpus_map(layout, keys, ClusterParams.from_settings(workspace.settings))
    except RedditAssetsError as error:
        say(f"The map of the corpus is not made: {error}")
        return
    say(f"The map of the corpus has {made.clusters:,} clusters of {made.subreddits:,} subreddits.")


def _outdated(layout: Layout, keys: Sequence[str]) -> bool:
    try:
        drawn = layout.corpus_map.stat().st_mtime
    except OSError:
        drawn = 0.0
    for key in keys:
        try:
            if find_table(layout.cluster_dir(key)).stat().st_mtime > drawn:
                return True
        except OSError:
            continue  # not clustered, or not any more
    return False
