"""``reddit-assets where``: which assets and partitions in Dagster a file or a subreddit is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reddit_assets.cli.options import AsJson, DagsterUrl, Root, print_json

if TYPE_CHECKING:
    from reddit_assets.corpus.layout import Layout

__all__ = ["register"]

EPILOG = """
Examples:

\b
  reddit-assets where AskHistorians --root data
  reddit-assets where as/AskHistorians/chains_chunk_7
  reddit-assets where data/chains/as/AskHistorians/chains_chunk_7.parquet
  reddit-assets where AskHistorians --json | jq -r '.[].page'
"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("where", epilog=EPILOG)(where)


def where(
    name: Annotated[str, typer.Argument(help="A subreddit, a file's key, or a file.")],
    root: Root = None,
    dagster_url: DagsterUrl = None,
    as_json: AsJson = False,
) -> None:
    """Print the assets, the partition and the pages of a file or a subreddit."""
    from reddit_assets.cli.beside import load_beside_up, page_of_up
    from reddit_assets.corpus.buckets import read_buckets
    from reddit_assets.corpus.keys import cluster_key_of
    from reddit_assets.corpus.layout import Layout
    from reddit_assets.errors import without_login
    from reddit_assets.platform.reporting.assets import asset_path, page_path

    settings = load_beside_up(root=root, dagster_url=dagster_url)
    layout = Layout.from_settings(settings)
    buckets = read_buckets(layout)
    key, file = _key(layout, name)
    partitions = {"clusters": cluster_key_of(key) if file else key}
    if file:
        partitions = {"chains": key, "embeddings": key, **partitions}
    host = without_login(settings.dagster_url or page_of_up(settings)).rstrip("/")
    found = [
        {
            "asset": "/".join(asset_path(asset, partition, buckets)),
            "partition": partition,
            "page": host + page_path(asset, partition, buckets),
        }
        for asset, partition in partitions.items()
    ]
    if as_json:
        print_json(found)
        return
    for each in found:
        typer.echo(f"{each['asset']}  {each['partition']}\n  {each['page']}")


def _key(layout: Layout, name: str) -> tuple[str, bool]:
    """The key that is meant, and whether it is a file's.

    Raises:
        NotFoundError: there is no such file or subreddit.
        BadKeyError: a path that cannot be a key.
    """
    from reddit_assets.cli.names import one_named
    from reddit_assets.corpus.layout import SUFFIX
    from reddit_assets.corpus.walk import folders_of
    from reddit_assets.errors import BadKeyError

    if name.endswith(SUFFIX):
        return layout.key_of(Path(name).absolute()), True
    try:
        if layout.chain_path(name).is_file():
            return name, True
    except BadKeyError:
        pass  # it has the form of no file's key: a subreddit's name
    subreddits = list(folders_of(layout.chains, refuse=lambda _: None))
    missing = f"There is no subreddit or file {name} in {layout.chains}."
    return one_named(name, subreddits, missing, "Give SHARD/SUBREDDIT/CHUNK for a file."), False
