"""``reddit-assets sample``: a small corpus to try things on."""

from __future__ import annotations

from typing import Annotated

import typer

from reddit_assets.cli.options import Root

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "sample",
        epilog="Example:  reddit-assets sample --root demo",
    )(sample)


def sample(
    root: Root = None,
    as_dumps: Annotated[
        bool,
        typer.Option("--as-dumps", help="Write two public dumps to ROOT/dumps instead."),
    ] = False,
) -> None:
    """Write a small corpus to ROOT/chains: 14 subreddits, 60 files, more than 6,000 rows.

    With --as-dumps it is a month of submissions and of comments, with every quirk that public
    dumps have, for `reddit-assets ingest`.
    """
    from reddit_assets.cli.progress import progress
    from reddit_assets.local.sample import write_sample
    from reddit_assets.settings import load_settings

    folder = load_settings(root=root).require_root()
    if as_dumps:
        from reddit_assets.local.sample_dumps import write_sample_dumps

        for path in write_sample_dumps(folder):
            typer.echo(str(path))
        return
    with progress("Writing the sample", 60) as bar:
        written = write_sample(folder, lambda file: bar.step(file.path.as_posix()))
    typer.echo(f"{folder / 'chains'}: 60 files, {written} of them written now.")
