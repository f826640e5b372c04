"""One command, ``reddit-assets``: parses flags, calls the rooms, prints. No logic of its own.

May import every other room. Each command imports what it needs when it runs, so that ``--help``
is quick and a host without Dagster or torch can run the commands that need neither.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """The entry point of ``reddit-assets``: runs a command and exits with its status."""
    from reddit_assets.cli.app import run

    raise SystemExit(run())
