"""``reddit-assets clusters``: what a subreddit's clusters are about."""

from __future__ import annotations

from typing import Annotated

import typer

from reddit_assets.cli.options import AsJson, Root, print_json

__all__ = ["register"]

EPILOG = """
Examples:

\b
  reddit-assets clusters AskHistorians --root data
  reddit-assets clusters as/AskHistorians --limit 20
  reddit-assets clusters AskHistorians --json | jq '.clusters[0].keywords'
  reddit-assets clusters AskHistorians --open
"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("clusters", epilog=EPILOG)(clusters)


def clusters(
    subreddit: Annotated[str, typer.Argument(help="NAME or SHARD/NAME.")],
    root: Root = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Show the largest N clusters only.")
    ] = None,
    open_map: Annotated[bool, typer.Option("--open", help="Open the map in a browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a subreddit's clusters: size, keywords, the most representative posts."""
    from reddit_assets.cli.names import cluster_key
    from reddit_assets.corpus.layout import Layout
    from reddit_assets.settings import load_settings
    from reddit_assets.tasks.report import clusters_report, render

    layout = Layout.from_settings(load_settings(root=root))
    folder = layout.cluster_dir(cluster_key(layout, subreddit))
    report = clusters_report(folder)
    page = folder / "map.html"
    if as_json:
        if limit is not None:
            report["clusters"] = report["clusters"][:limit]
        print_json(report)
    else:
        from reddit_assets.cli.progress import printer

        printer().print(render(report, limit))
        if page.exists():
            typer.echo(f"Map: {page}")
    if open_map:
        from reddit_assets.cli.pages import open_page

        open_page(page)
