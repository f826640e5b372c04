"""``reddit-assets export-onnx``: the ONNX model directory, built without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reddit_assets.cli.options import Model, ModelDir

__all__ = ["register"]

EPILOG = """
Examples:

\b
  reddit-assets export-onnx --model all-MiniLM-L6-v2 --output models/onnx/minilm/
  reddit-assets export-onnx -m all-MiniLM-L6-v2 -o models/onnx/minilm/ --quantize
"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("export-onnx", epilog=EPILOG)(export_onnx)


def export_onnx(
    model: Model = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder of the export; default: MODEL_DIR/onnx/minilm."
        ),
    ] = None,
    quantize: Annotated[
        bool,
        typer.Option("--quantize", help="Write an int8 model_quantized.onnx as well."),
    ] = False,
    model_dir: ModelDir = None,
) -> None:
    """Write model.onnx and tokenizer.json, with the earlier system's input and output names.

    The int8 model is for other programs: its vectors differ, and no worker of ours uses it.
    """
    from reddit_assets.engines.embedding import export
    from reddit_assets.engines.embedding.model import find_model
    from reddit_assets.settings import load_settings

    settings = load_settings(model=model, model_dir=model_dir)
    folder = output or settings.model_dir / "onnx" / "minilm"
    spec = find_model(settings.model, settings.model_dir)
    written = export.export_onnx(spec, folder)
    if quantize:
        typer.echo(f"{export.export_quantized(written)}: int8, inexact, for other programs")
    typer.echo(f"{written}: {spec.name}, {spec.dimension} dimensions, from {spec.path}")
