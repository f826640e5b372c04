"""``reddit-assets bench``: what this host can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reddit_assets.cli.options import (
    AsJson,
    Backend,
    Device,
    Model,
    ModelDir,
    Precision,
    Root,
    Threads,
    print_json,
)

__all__ = ["register"]

TEXTS = 300

EPILOG = """
Examples:

\b
  reddit-assets bench
  reddit-assets bench --root data --backend onnx --threads 1
  reddit-assets bench --budget 512 --budget 2048 --json
"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("bench", epilog=EPILOG)(bench)


def bench(
    root: Root = None,
    backend: Backend = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    budget: Annotated[
        list[int] | None,
        typer.Option(
            "--budget", help="Tokens per batch to try; may be repeated.", show_default=False
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, help="Seconds to measure each line.")
    ] = 2.0,
    model: Model = None,
    model_dir: ModelDir = None,
    as_json: AsJson = False,
) -> None:
    """Measure tokens/s and rows/s of every backend here, and name the best settings.

    Takes texts from ROOT's chain files where a root is given, else from the generated sample.
    """
    from reddit_assets.cli.progress import note
    from reddit_assets.engines.embedding.bench import bench_table, run_bench
    from reddit_assets.engines.embedding.model import find_model
    from reddit_assets.settings import load_settings

    settings = load_settings(
        root=root,
        backend=backend,
        device=device,
        precision=precision,
        threads=threads,
        model=model,
        model_dir=model_dir,
    )
    texts = _texts(settings.root)
    report = run_bench(
        find_model(settings.model, settings.model_dir),
        backend=settings.backend,
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
        budgets=tuple(budget) if budget else None,
        texts=texts,
        seconds=seconds,
        progress=note,
    )
    if as_json:
        print_json(report)
    else:
        from reddit_assets.cli.progress import printer

        printer().print(bench_table(report))


def _texts(root: Path | None) -> list[str]:
    """Up to ``TEXTS`` texts, spread over the chain files or the sample."""
    import pyarrow.parquet as pq

    from reddit_assets.local.sample import sample_files

    texts: list[str] = []
    if root is None:
        for file in sample_files():
            texts += [text for text in file.table["body"].to_pylist() if text]
        return texts[:: max(1, len(texts) // TEXTS)][:TEXTS]
    from reddit_assets.corpus.layout import Layout
    from reddit_assets.corpus.texts import TEXT_COLUMNS

    layout = Layout.of(root)
    layout.require_chains()
    files = sorted(layout.chains.rglob("*.parquet"))
    for path in files[:: max(1, len(files) // 40)]:
        names = pq.read_schema(path).names
        column = next((name for name in TEXT_COLUMNS if name in names), None)
        if column is not None:
            texts += [str(text) for text in pq.read_table(path, columns=[column])[0].to_pylist()]
    return texts[:: max(1, len(texts) // TEXTS)][:TEXTS]
