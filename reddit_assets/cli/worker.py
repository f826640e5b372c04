"""``reddit-assets worker``: takes jobs and does them until it is stopped."""

from __future__ import annotations

from typing import Annotated

import typer

from reddit_assets.cli.options import (
    Backend,
    BatchTokens,
    DagsterUrl,
    Device,
    KindName,
    Model,
    ModelDir,
    Precision,
    RedisUrl,
    Root,
    Threads,
    chosen_kinds,
    flag,
)

__all__ = ["register"]

EPILOG = """
Examples:

\b
  reddit-assets worker --kind embed --backend onnx
  reddit-assets worker --kind embed --backend torch --device cuda
  reddit-assets worker --kind cluster --until-empty

Ctrl+C or SIGTERM finishes the current job and gives back the rest; a second one stops at once.
"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("worker", epilog=EPILOG)(worker)


def worker(
    kind: KindName = "embed",
    root: Root = None,
    backend: Backend = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    max_batch_tokens: BatchTokens = None,
    model: Model = None,
    model_dir: ModelDir = None,
    allow_nonconformant: Annotated[
        bool | None, flag("allow_nonconformant", "--allow-nonconformant")
    ] = None,
    redis_url: RedisUrl = None,
    dagster_url: DagsterUrl = None,
    report: Annotated[str | None, flag("report")] = None,
    metrics_port: Annotated[int | None, flag("metrics_port")] = None,
    log_format: Annotated[str | None, flag("log_format")] = None,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End when no job is left.")
    ] = False,
) -> None:
    """Embed files or cluster subreddits: take jobs from the queue until stopped.

    Shows progress in a terminal and plain lines elsewhere. Fresh outputs are skipped.
    """
    from reddit_assets.cli.beside import load_beside_up
    from reddit_assets.cli.logs import start_logging
    from reddit_assets.worker.run import run_worker

    kinds = chosen_kinds(kind)
    settings = load_beside_up(
        root=root,
        backend=backend,
        device=device,
        precision=precision,
        threads=threads,
        max_batch_tokens=max_batch_tokens,
        model=model,
        model_dir=model_dir,
        allow_nonconformant=allow_nonconformant,
        redis_url=redis_url,
        dagster_url=dagster_url,
        report=report,
        metrics_port=metrics_port,
        log_format=log_format,
    )
    start_logging(settings.log_format)
    raise typer.Exit(run_worker(settings, kinds, until_empty=until_empty))
