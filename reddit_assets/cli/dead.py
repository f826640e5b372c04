"""``reddit-assets dead list|show|retry|purge``: jobs that were given up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reddit_assets.cli.options import AsJson, KindName, RedisUrl, Root, chosen_kinds, print_json

if TYPE_CHECKING:
    from reddit_assets.ledger.job import DeadLetter
    from reddit_assets.ledger.queue import JobQueue

__all__ = ["register"]

EPILOG = """
Examples:

\b
  reddit-assets dead list
  reddit-assets dead show as/AskReddit/chains_chunk_0
  reddit-assets dead retry --all
  reddit-assets dead purge as/AskReddit/chains_chunk_0
"""

Keys = Annotated[list[str] | None, typer.Argument(help="Partition keys.", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="Every dead letter.")]


def register(app: typer.Typer) -> None:
    """Adds the group."""
    group = typer.Typer(
        help="Jobs that were given up: look, retry, forget.",
        epilog=EPILOG,
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("list")(list_)
    group.command("show")(show)
    group.command("retry")(retry)
    group.command("purge")(purge)
    app.add_typer(group, name="dead")


def list_(
    kind: KindName = "any", root: Root = None, redis_url: RedisUrl = None, as_json: AsJson = False
) -> None:
    """List the dead letters: key, reason, host, attempts."""
    letters = [
        letter for queue in _queues(kind, root, redis_url) for letter in queue.dead_letters()
    ]
    if as_json:
        print_json([asdict(letter) for letter in letters])
        return
    if not letters:
        typer.echo("No dead letters.")
    for letter in letters:
        typer.echo(f"{letter.kind.value} {letter.key}: {letter.error} ({_fate(letter)})")


def show(
    keys: Annotated[list[str], typer.Argument(help="Partition keys.")],
    kind: KindName = "any",
    root: Root = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show everything known of dead letters: reason, job, traceback."""
    letters = [
        letter for queue in _queues(kind, root, redis_url) for letter in queue.dead_letters(keys)
    ]
    _require(keys, {letter.key for letter in letters})
    if as_json:
        print_json([asdict(letter) for letter in letters])
        return
    for letter in letters:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(letter.died_at))
        lines = (
            f"{letter.kind.value} {letter.key}",
            f"  reason     {letter.error_type}: {letter.error}",
            f"  what to do {letter.hint}" if letter.hint else "",
            f"  died       {when} ({_fate(letter)})",
            f"  job        {letter.payload}",
            letter.traceback.rstrip(),
        )
        typer.echo("\n".join(line for line in lines if line))


def retry(
    keys: Keys = None,
    every: All = False,
    kind: KindName = "any",
    root: Root = None,
    redis_url: RedisUrl = None,
) -> None:
    """Queue dead letters again, with their attempts counted from zero."""
    total = sum(
        queue.retry(chosen) for queue, chosen in _chosen(kind, root, redis_url, keys, every=every)
    )
    typer.echo(f"{total:,} queued again.")


def purge(
    keys: Keys = None,
    every: All = False,
    kind: KindName = "any",
    root: Root = None,
    redis_url: RedisUrl = None,
) -> None:
    """Forget dead letters; the next scan queues those again whose outputs are missing."""
    total = sum(
        queue.purge(chosen) for queue, chosen in _chosen(kind, root, redis_url, keys, every=every)
    )
    typer.echo(f"{total:,} forgotten.")


def _queues(kind: str, root: Path | None, redis_url: str | None) -> list[JobQueue]:
    from reddit_assets.cli.queue import queues_beside_up

    kinds = chosen_kinds(kind)
    queues = queues_beside_up(root, redis_url)
    return [queues[each] for each in kinds]


def _chosen(
    kind: str,
    root: Path | None,
    redis_url: str | None,
    keys: Sequence[str] | None,
    *,
    every: bool,
) -> list[tuple[JobQueue, list[str]]]:
    if bool(keys) == every:
        raise typer.BadParameter("Name the keys, or say --all.")
    queues = _queues(kind, root, redis_url)
    dead = {queue: queue.dead_keys() for queue in queues}
    if keys:
        _require(keys, set().union(*dead.values()))
    return [
        (queue, sorted(found if every else found.intersection(keys or ())))
        for queue, found in dead.items()
    ]


def _require(keys: Sequence[str], found: set[str]) -> None:
    from reddit_assets.errors import NotFoundError

    missing = sorted(set(keys) - found)
    if missing:
        raise NotFoundError(
            f"Not among the dead letters: {', '.join(missing)}.",
            hint="`reddit-assets dead list` shows their keys.",
        )


def _fate(letter: DeadLetter) -> str:
    parts = [f"attempts {letter.attempts}"]
    if letter.crashes:
        parts.append(f"crashes {letter.crashes}")
    if letter.host:
        parts.append(f"on {letter.host}")
    return ", ".join(parts)
