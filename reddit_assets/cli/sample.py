"""``reddit-assets sample``: a small corpus to try things on."""

from __future__ import annotations

import typer

from reddit_assets.cli.options import Root

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "sample",
        epilog="Example:  reddit-assets sample --root demo",
    )(sample)


def sample(root: Root = None) -> None:
    """Write a small corpus to ROOT/chains: 14 subreddits, 60 files, more than 6,000 rows."""
    from reddit_assets.cli.progress import progress
    from reddit_assets.local.sample import write_sample
    from reddit_assets.settings import load_settings

    folder = load_settings(root=root).require_root()
    with progress("Writing the sample", 60) as bar:
        written = write_sample(folder, lambda file: bar.step(file.path.as_posix()))
    typer.echo(f"{folder / 'chains'}: 60 files, {written} of them written now.")
