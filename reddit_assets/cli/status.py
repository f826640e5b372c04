"""``reddit-assets status``: how far everything is, on one screen."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reddit_assets.cli.options import AsJson, RedisUrl, Root, Subreddits, print_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from reddit_assets.figures import Figures, Observer, Tally
    from reddit_assets.workspace import Workspace

__all__ = ["register", "screen"]

EPILOG = """
Examples:

\b
  reddit-assets status --root demo
  reddit-assets status --watch
  reddit-assets status --json | jq .seconds_left
"""

_WATCH_SECONDS = 2.0
_MOST_WORKERS = 30


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("status", epilog=EPILOG)(status)


def status(
    root: Root = None,
    redis_url: RedisUrl = None,
    subreddits: Subreddits = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again every 2 seconds.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Ask the queue alone, without a look at the trees.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what is done, what is left, who works on it, and how long it will take.

    Exit status 1 if the trees or the queue could not be looked at.
    """
    from reddit_assets.cli.beside import load_beside_up
    from reddit_assets.cli.progress import printer
    from reddit_assets.figures import Observer

    settings = load_beside_up(root=root, redis_url=redis_url, subreddits=subreddits)
    observer = Observer(_workspace(settings, quick=quick), trees=not quick)
    if watch:
        _watch(observer, as_json=as_json)
        return
    figures = observer.figures()
    if settings.redis_url is None:
        figures.problems.append(
            "The queue is not asked: REDIS_URL is not set, and no `reddit-assets up` is found."
        )
    if as_json:
        print_json(figures.fields())
    else:
        printer().print(screen(figures))
    raise typer.Exit(1 if figures.problems else 0)


def _workspace(settings: Any, *, quick: bool) -> Workspace:
    from reddit_assets.workspace import Workspace

    if settings.redis_url is None and not quick:
        return Workspace.of_trees(settings)
    return Workspace.load(settings)


def _watch(observer: Observer, *, as_json: bool) -> None:
    """Again and again until Ctrl+C; in a file or pipe one JSON object or sentence per look."""
    import json

    from rich.console import Console
    from rich.live import Live

    if as_json or not sys.stdout.isatty():
        while True:
            figures = observer.figures()
            line = json.dumps(figures.fields(), default=str) if as_json else figures.line()
            typer.echo(line)
            time.sleep(_WATCH_SECONDS)
    with Live(screen(observer.figures()), console=Console(), screen=True) as live:
        while True:
            time.sleep(_WATCH_SECONDS)
            live.update(screen(observer.figures()))


def screen(figures: Figures) -> RenderableType:
    """The figures as people read them."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(_headline(figures), style="bold")]
    if figures.trees is not None:
        parts.append(_outputs(figures))
    if figures.queues:
        parts += [_queues(figures), *_workers(figures)]
    parts += [Text(line) for line in _advice(figures)]
    parts += [Text(problem, style="red") for problem in figures.problems]
    return Group(*parts)


def _headline(figures: Figures) -> str:
    from reddit_assets.figures import duration

    if figures.done:
        return "Everything is done."
    left = figures.seconds_left()
    if left:
        return f"About {duration(left)} left."
    if figures.trees is None:
        return "The queue; the trees were not looked at."
    return "Work is left; how long it takes is known when some of it is done."


def _outputs(figures: Figures) -> RenderableType:
    from rich.table import Table

    names = ("done", "missing", "stale", "settling", "waiting", "failed")
    table = Table("", "of", *names, "share", box=None, pad_edge=False, header_style="dim")
    for column in table.columns[1:]:
        column.justify = "right"
    assert figures.trees is not None
    seen = figures.trees.outputs
    for kind, outputs in seen.items():
        cells = (_cell(name, outputs) for name in names)
        share = outputs.done / outputs.total if outputs.total else 1.0
        # Rounded down: 99.99 % is not done.
        table.add_row(kind.asset, f"{outputs.total:,}", *cells, f"{int(1000 * share) / 10:g} %")
    return table


def _cell(name: str, outputs: Tally) -> str:
    number = getattr(outputs, name)
    colour = {"failed": "red", "stale": "yellow"}.get(name)
    text = f"{number:,}"
    return f"[{colour}]{text}[/]" if colour and number else text


def _queues(figures: Figures) -> RenderableType:
    from rich.table import Table

    from reddit_assets.figures import duration

    headings = ("waiting", "computing", "fetched ahead", "delayed", "dead letters", "unreported")
    table = Table("queue", *headings, "oldest", "rows/s", "jobs/min", box=None, pad_edge=False)
    table.header_style = "dim"
    for column in table.columns[1:]:
        column.justify = "right"
    for kind, queue in figures.queues.items():
        counts, computing = queue.counts, queue.computing
        waiting = counts.queued
        numbers = (waiting, computing, counts.leased - computing, counts.delayed, counts.dead)
        table.add_row(
            kind.value + (" (paused)" if counts.paused else ""),
            *(f"{number:,}" for number in (*numbers, counts.outbox)),
            duration(counts.oldest_seconds) if waiting else "",
            f"{queue.pace.per_second('rows'):,.0f}",
            f"{60 * queue.pace.per_second('done'):,.1f}",
        )
    return table


def _workers(figures: Figures) -> list[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    from reddit_assets.figures import duration

    workers = figures.workers
    if not workers:
        return [Text("No worker is running.")]
    headings = ("kind", "host", "device", "rows/s", "done", "failed", "holds", "last seen")
    table = Table(*headings, "computes", box=None, pad_edge=False, header_style="dim")
    for column in table.columns[3:8]:
        column.justify = "right"
    # Those that were silent for longest first: they may be in trouble.
    for worker in sorted(workers, key=lambda one: -one.seen_seconds)[:_MOST_WORKERS]:
        engine = " ".join(filter(None, (worker.backend, worker.device, worker.precision)))
        table.add_row(
            worker.kind.value,
            worker.host,
            engine,
            f"{worker.rows_per_second:,.0f}",
            f"{worker.done:,}",
            f"{worker.failed:,}",
            f"{worker.held:,}",
            f"{duration(worker.seen_seconds)} ago",
            Text(worker.current if worker.computing else "–", overflow="ellipsis", no_wrap=True),
        )
    more = len(workers) - _MOST_WORKERS
    return [table, *([Text(f"… and {more:,} more workers.")] if more > 0 else [])]


def _advice(figures: Figures) -> list[str]:
    """What a person should do, if anything."""
    lines = []
    for kind, queue in figures.queues.items():
        counts = queue.counts
        if counts.paused:
            lines.append(f"{kind.value} is paused: `reddit-assets resume` goes on.")
        if (counts.queued or counts.delayed) and not queue.workers and not counts.paused:
            lines.append(
                f"{kind.value} jobs wait, and no worker is there: `reddit-assets worker --kind "
                f"{kind.value}`."
            )
        if counts.dead:
            lines.append(f"{counts.dead:,} {kind.value} jobs have failed: `reddit-assets dead`.")
        if counts.rejected:
            lines.append(f"{counts.rejected:,} results were set aside: see docs/reliability.md.")
    trees = figures.trees
    if trees is not None and figures.queues and not figures.done:
        left = sum(outputs.missing + outputs.stale for outputs in trees.outputs.values())
        if left and not any(queue.counts.unfinished for queue in figures.queues.values()):
            lines.append(f"{left:,} outputs are to be made and not queued: `reddit-assets scan`.")
    return lines
