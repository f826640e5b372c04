"""Opening a page in the user's browser."""

from __future__ import annotations

from pathlib import Path

from reddit_assets.errors import NotFoundError, StartupError

__all__ = ["open_page"]


def open_page(page: Path) -> None:
    """
    Raises:
        NotFoundError: there is no such page.
        StartupError: there is no browser here.
    """
    import webbrowser

    if not page.exists():
        raise NotFoundError(f"There is no map {page}.", hint="Cluster the subreddit again.")
    if not webbrowser.open(page.absolute().as_uri()):
        raise StartupError(
            "No browser can be opened here.", hint=f"Open {page} where there is one."
        )
