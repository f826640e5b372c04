"""``reddit-assets queue|pause|resume``: where the jobs are, holding them, forgetting them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reddit_assets.cli.options import AsJson, KindName, RedisUrl, Root, chosen_kinds, print_json

if TYPE_CHECKING:
    from reddit_assets.ledger.job import Kind
    from reddit_assets.ledger.queue import JobQueue
    from reddit_assets.settings import Settings

__all__ = ["open_queues", "queues_beside_up", "register"]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(
        epilog="Example:  watch -n 2 reddit-assets queue",
        invoke_without_command=True,
        rich_markup_mode=None,
    )
    group.callback()(show)
    group.command("clear", epilog="Example:  reddit-assets queue clear --kind embed")(clear)
    app.add_typer(group, name="queue")
    app.command("pause", epilog="Example:  reddit-assets pause --kind cluster")(pause)
    app.command("resume", epilog="Example:  reddit-assets resume")(resume)


def queues_beside_up(root: Path | None, redis_url: str | None) -> dict[Kind, JobQueue]:
    """Both queues, by the flags, the environment, or the root's ``up``.

    Raises:
        SettingsError: REDIS_URL is missing or wrong, and no ``up`` runs.
    """
    from reddit_assets.cli.beside import load_beside_up

    return open_queues(load_beside_up(root=root, redis_url=redis_url))


def open_queues(settings: Settings) -> dict[Kind, JobQueue]:
    """Both queues over one connection.

    Raises:
        SettingsError: REDIS_URL is missing or wrong.
    """
    from reddit_assets.ledger.connection import connect
    from reddit_assets.ledger.job import Kind
    from reddit_assets.ledger.queue import JobQueue

    client = connect(settings)
    return {kind: JobQueue(client, kind) for kind in Kind}


def show(
    context: typer.Context,
    root: Root = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show where the jobs are: waiting, in work, delayed, dead, not yet reported."""
    if context.invoked_subcommand:
        return
    from reddit_assets.ledger.server import check_server

    queues = queues_beside_up(root, redis_url)
    counts = {kind: queue.counts() for kind, queue in queues.items()}
    workers = {name: facts for queue in queues.values() for name, facts in queue.workers().items()}
    warnings = check_server(next(iter(queues.values())).client)
    if as_json:
        found = {kind.value: asdict(count) for kind, count in counts.items()}
        print_json({**found, "workers": workers, "server": warnings})
        return
    from rich.table import Table

    from reddit_assets.cli.progress import printer

    table = Table()
    for heading in ("", *(kind.value for kind in queues)):
        table.add_column(heading, justify="right" if heading else "left")
    rows = {
        "waiting": "queued",
        "of these in the public list": "public",
        "in work": "leased",
        "waiting to be tried again": "delayed",
        "dead letters": "dead",
        "not yet reported to Dagster": "outbox",
        "entries set aside": "rejected",
        "Dagster runs waiting": "runs",
    }
    for label, name in rows.items():
        table.add_row(label, *(f"{getattr(count, name):,}" for count in counts.values()))
    table.add_row("paused", *("yes" if count.paused else "no" for count in counts.values()))
    console = printer()
    console.print(table)
    for warning in warnings:
        console.print(warning, highlight=False)
    if not workers:
        console.print("No worker is running.")
    for name, facts in sorted(workers.items()):
        shown = ", ".join(f"{key} {value}" for key, value in facts.items() if key != "seen")
        console.print(f"{name}: {shown}", highlight=False)


def clear(
    kind: KindName = "any",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    root: Root = None,
    redis_url: RedisUrl = None,
) -> None:
    """Forget all waiting jobs, those of other programs in the public list included.

    What is being computed goes on; the next scan queues what is missing on disk.
    """
    kinds = chosen_kinds(kind)
    queues = queues_beside_up(root, redis_url)
    counts = [queues[each].counts() for each in kinds]
    waiting = sum(max(count.public, count.queued) + count.delayed for count in counts)
    named = " and ".join(each.value for each in kinds)
    if not yes:
        typer.confirm(f"Forget about {waiting:,} waiting jobs ({named})?", abort=True)
    lines, jobs = (sum(each) for each in zip(*(queues[k].clear() for k in kinds), strict=True))
    typer.echo(f"Forgotten: {lines:,} lines of the public lists, {jobs:,} jobs of the ledger.")
    after = [queues[each].counts() for each in kinds]
    kept = sum(count.queued + count.delayed for count in after)
    if kept:
        typer.echo(f"{kept:,} stay: Dagster runs wait for them (cancel those), or they are new.")
    if any(count.dead for count in after):
        dead = sum(count.dead for count in after)
        typer.echo(f"{dead:,} dead letters stay: `reddit-assets dead purge --all` forgets them.")


def pause(kind: KindName = "any", root: Root = None, redis_url: RedisUrl = None) -> None:
    """Let workers claim nothing new; work in progress finishes."""
    queues = queues_beside_up(root, redis_url)
    for each in chosen_kinds(kind):
        queues[each].pause()
    typer.echo("Paused: nothing new is claimed. `reddit-assets resume` goes on.")


def resume(kind: KindName = "any", root: Root = None, redis_url: RedisUrl = None) -> None:
    """Let workers claim jobs again."""
    queues = queues_beside_up(root, redis_url)
    for each in chosen_kinds(kind):
        queues[each].resume()
    typer.echo("Workers claim jobs again.")
