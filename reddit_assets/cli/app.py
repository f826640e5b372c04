"""The command's root: registers the groups, turns errors into one line and an exit status."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Annotated

import typer

from reddit_assets import __version__
from reddit_assets.errors import RedditAssetsError

__all__ = ["app", "run"]

EXAMPLES = """
Examples:

\b
  reddit-assets sample --root demo            make a small corpus to try things on
  reddit-assets up --root demo                everything on this machine, with the Dagster page
  reddit-assets up --root data --exit-when-done --json
  reddit-assets scan --root data --dry-run    what would be queued, and how long it would take
  reddit-assets worker --kind embed --backend onnx
  reddit-assets status --watch                how far everything is
  reddit-assets dead list                     jobs that were given up, and why
  reddit-assets clusters AskHistorians        what a subreddit's clusters are about
  reddit-assets news                          clusters born, growing, fading since yesterday
  reddit-assets settings                      every setting, its variable and its value
"""

app = typer.Typer(
    name="reddit-assets",
    help="Embed and cluster a large text corpus, seen and steered in Dagster.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)

_GROUPS = (
    "up",
    "sample",
    "ingest",
    "scan",
    "status",
    "worker",
    "cluster",
    "clusters",
    "corpus_map",
    "news",
    "where",
    "maps",
    "queue",
    "dead",
    "model",
    "export",
    "bench",
    "verify",
    "convert",
    "report",
    "nightly",
    "prune",
    "doctor",
    "reconcile",
    "settings",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


for _name in _GROUPS:
    importlib.import_module(f"reddit_assets.cli.{_name}").register(app)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; the exit status. Errors that a user can correct take one line."""
    try:
        # Typer prints its own usage errors and ends with SystemExit; ours come through.
        app(args=None if arguments is None else list(arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except RedditAssetsError as error:
        _complain(error.message, error.hint)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _complain(message: str, hint: str) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(Text.assemble((message, "bold red"), " " if hint else "", hint))
