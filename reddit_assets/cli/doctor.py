"""``reddit-assets doctor``: whether this host can do its part, and what to do if not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from reddit_assets.cli.options import (
    AsJson,
    Backend,
    DagsterUrl,
    Device,
    Model,
    ModelDir,
    Precision,
    RedisUrl,
    Root,
    print_json,
)

if TYPE_CHECKING:
    from reddit_assets.doctor.findings import Finding, Look
    from reddit_assets.settings import Settings

__all__ = ["findings", "register"]

EPILOG = """
Examples:

\b
  reddit-assets doctor
  reddit-assets doctor --quick                without loading the model
  reddit-assets doctor --json
"""

_SIGNS = {"ok": "[green]ok[/]", "warning": "[yellow]look[/]", "fault": "[red]FAULT[/]"}


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("doctor", epilog=EPILOG)(doctor)


def doctor(
    root: Root = None,
    redis_url: RedisUrl = None,
    dagster_url: DagsterUrl = None,
    model: Model = None,
    model_dir: ModelDir = None,
    backend: Backend = None,
    device: Device = None,
    precision: Precision = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not load the engine to compare its vectors.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check this host, its storage, Redis and Dagster, and say what to do about each fault.

    Exit status 1 if something does not work; warnings leave it 0.
    """
    from reddit_assets.cli.beside import load_beside_up

    settings = load_beside_up(
        root=root,
        redis_url=redis_url,
        dagster_url=dagster_url,
        model=model,
        model_dir=model_dir,
        backend=backend,
        device=device,
        precision=precision,
    )
    faults, seen = 0, []
    for found in findings(settings, quick=quick):
        seen.append(found)
        faults += found.grade == "fault"
        if not as_json:
            _show(found)
    if as_json:
        print_json([asdict(found) for found in seen])
    raise typer.Exit(1 if faults else 0)


def _show(found: Finding) -> None:
    from rich.markup import escape

    from reddit_assets.cli.progress import printer

    sign = _SIGNS.get(found.grade.value, "[dim]–[/]")
    console = printer()
    console.print(f"{sign}\t{found.topic}: {escape(found.said)}", highlight=False, soft_wrap=True)
    if found.advice:
        console.print(f"\t  → {escape(found.advice)}", highlight=False, soft_wrap=True)


def findings(settings: Settings, *, quick: bool = False) -> Iterator[Finding]:
    """Everything, in an order in which causes come before their effects.

    Args:
        quick: do not load the engine.
    """
    from reddit_assets.doctor.findings import Finding, Grade, examine

    for topic, look in _looks(settings, quick=quick):
        yield from examine(topic, look)
    if quick:
        yield Finding("conformance", Grade.SKIPPED, "The engine was not loaded (--quick).")


def _looks(settings: Settings, *, quick: bool) -> Iterator[tuple[str, Look]]:
    from reddit_assets.corpus.layout import Layout
    from reddit_assets.doctor import host, servers, storage
    from reddit_assets.ledger.connection import connect
    from reddit_assets.ledger.job import Kind
    from reddit_assets.ledger.queue import JobQueue

    yield "packages", host.packages
    yield "host", partial(host.host, settings)
    yield "redis", lambda: servers.redis(JobQueue(connect(settings), Kind.EMBED))
    yield "dagster", partial(servers.dagster, settings)
    yield "chains", lambda: storage.chains(Layout.from_settings(settings))
    for topic, name in (("embeddings", ".model.json"), ("clusters", "clusters.table")):
        yield (
            topic,
            lambda topic=topic, name=name: storage.tree(  # type: ignore[misc]
                topic, getattr(Layout.from_settings(settings), topic), name
            ),
        )
    yield "model", lambda: host.model(settings, Layout.from_settings(settings))
    if not quick:
        yield "conformance", partial(host.engine, settings)
