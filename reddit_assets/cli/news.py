"""``reddit-assets news``: what is new in the clusters of a subreddit, or of all of them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reddit_assets.cli.options import AsJson, Root, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from reddit_assets.corpus.news import CorpusNews, Event, SubredditNews

__all__ = ["register"]

EPILOG = """
Examples:

\b
  reddit-assets news --root data              all subreddits clustered in the last 24 hours
  reddit-assets news --since 7d
  reddit-assets news Cooking                  the last clustering that has news of this subreddit
  reddit-assets news Cooking --since 2026-11-01
  reddit-assets news --json | jq '.subreddits[].events[] | select(.what == "born").name'
"""
UNITS = {"h": 3_600, "d": 86_400, "w": 7 * 86_400}


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("news", epilog=EPILOG)(news)


def news(
    subreddit: Annotated[
        str | None, typer.Argument(help="NAME or SHARD/NAME; all subreddits without it.")
    ] = None,
    root: Root = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            help="Sum the nights since then: 12h, 7d, 2w, or a date (UTC). Without it: the last "
            "night of a subreddit, the last 24 hours of all.",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Show N pieces of news at most.")
    ] = 40,
    as_json: AsJson = False,
) -> None:
    """Print which clusters were born, split, merged, grow, fade or are gone.

    A cluster grows or fades where it wins clearly more or fewer posts than others of its size.
    """
    from reddit_assets.cli.names import cluster_key, clustered_keys
    from reddit_assets.corpus.layout import Layout
    from reddit_assets.corpus.news import CorpusNews, corpus_news, read_news
    from reddit_assets.settings import load_settings

    layout = Layout.from_settings(load_settings(root=root))
    start = None if since is None else _moment(since)
    if subreddit is not None:
        key = cluster_key(layout, subreddit)
        nights = 1 if start is None else None
        found = CorpusNews((read_news(layout, key, since=start, nights=nights),))
    else:
        start = time.time() - UNITS["d"] if start is None else start
        found = corpus_news(layout, clustered_keys(layout), start)
    if as_json:
        subreddits = [one.to_json() for one in found.found]
        print_json({"since": _written(start), "counts": found.counts(), "subreddits": subreddits})
        return
    from reddit_assets.cli.progress import printer

    out = printer()
    lines = _of_all(found, start) if subreddit is None else _of_one(found.found[0], start)
    for line in lines:
        out.print(line, highlight=False)
    events = found.largest()
    if events:
        out.print(_table(events[:limit], with_subreddit=subreddit is None))
    if len(events) > limit:
        out.print(f"and {len(events) - limit} more; --limit shows them.", style="dim")


def _moment(text: str) -> float:
    """Seconds since 1970 of what ``--since`` says."""
    span = re.fullmatch(r"(\d+)\s*([hdw])", text.strip())
    try:
        if span:
            ago = timedelta(seconds=int(span[1]) * UNITS[span[2]])
            return (datetime.now(UTC) - ago).timestamp()
        when = datetime.fromisoformat(text.strip())
        when = when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
        return when.timestamp()
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is neither a span (12h, 7d, 2w) nor a date (2026-11-25).",
            param_hint="--since",
        ) from None


def _written(at: float | None) -> str | None:
    from reddit_assets.corpus.nights import moment

    return None if at is None else moment(at)


def _of_all(found: CorpusNews, start: float | None) -> list[str]:
    counts = ", ".join(f"{count:,} {what}" for what, count in found.counts().items())
    clustered = f"{len(found.found):,} subreddits clustered since {_written(start)}"
    return [f"{clustered}: {counts or 'no news'}."]


def _of_one(one: SubredditNews, start: float | None) -> list[str]:
    if not one.nights:
        when = f" since {_written(start)}" if start is not None else ""
        return [f"{one.key} has no record of a night{when}; each clustering adds one."]
    lines = []
    for night in one.nights:
        how = "all posts clustered" if night.full else "new posts placed"
        line = f"{one.key}, {_written(night.at)}: {night.rows:,} posts, {how}"
        if night.first:
            line += "; nothing to compare with"
        else:
            line += f"; {night.new:,} came, {night.lost:,} went, {night.moved_share:.1%} moved"
        lines.append(f"{line}.")
    if not one.events and not all(night.first for night in one.nights):
        lines.append("No cluster was born, split, merged or lost; none grows or fades by itself.")
    return lines


def _table(events: list[tuple[str, Event]], *, with_subreddit: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, expand=True)
    if with_subreddit:
        table.add_column("subreddit", no_wrap=True)
    table.add_column("what", no_wrap=True, style="bold")
    table.add_column("cluster", ratio=3)
    table.add_column("posts", justify="right", no_wrap=True)
    table.add_column("growth", justify="right", no_wrap=True)
    table.add_column("example", ratio=4, style="italic")
    for key, event in events:
        name = event.name + (f" (from {' + '.join(event.parents)})" if event.parents else "")
        cells: list[Any] = [
            event.what,
            Text(name),
            f"{event.before:,} → {event.posts:,}" if event.before else f"{event.posts:,}",
            event.growth,
            Text(event.example),
        ]
        table.add_row(*([key] if with_subreddit else []), *cells)
    return table
