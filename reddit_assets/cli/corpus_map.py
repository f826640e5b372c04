"""``reddit-assets corpus-map``: the clusters of all subreddits on one map."""

from __future__ import annotations

from typing import Annotated

import typer

from reddit_assets.cli.options import Root, Threads

__all__ = ["register"]

EPILOG = """
Examples:

\b
  reddit-assets corpus-map --root data
  reddit-assets corpus-map --root data --open

The nightly makes it, too, on a Dagster host on which clustering is installed.
"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("corpus-map", epilog=EPILOG)(corpus_map)


def corpus_map(
    root: Root = None,
    threads: Threads = None,
    open_map: Annotated[bool, typer.Option("--open", help="Open the map in a browser.")] = False,
) -> None:
    """Make clusters/map.html: all subreddits' clusters, each linked to its subreddit's map."""
    from reddit_assets.cli.names import clustered_keys
    from reddit_assets.cli.pages import open_page
    from reddit_assets.cli.progress import progress
    from reddit_assets.corpus.layout import Layout
    from reddit_assets.engines.clustering.params import ClusterParams
    from reddit_assets.settings import load_settings
    from reddit_assets.tasks.corpus_map import make_corpus_map

    settings = load_settings(root=root, threads=threads)
    layout = Layout.from_settings(settings)
    keys = clustered_keys(layout)
    with progress("Reading", len(keys)) as bar:
        made = make_corpus_map(layout, keys, ClusterParams.from_settings(settings), bar.step)
    typer.echo(f"{made.clusters:,} clusters of {made.subreddits:,} subreddits: {made.page}")
    if made.left_out:
        typer.echo(
            f"{len(made.left_out):,} subreddits are left out, whose tables cannot be read or are "
            f"of another model: {', '.join(made.left_out[:5])}."
        )
    if open_map:
        open_page(made.page)
