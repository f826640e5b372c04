"""``reddit-assets export-onnx``: the ONNX model directory, built without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reddit_assets.cli.options import Model, ModelDir

__all__ = ["register"]

EPILOG = """
Example:

\b
  reddit-assets export-onnx --model all-MiniLM-L6-v2 --output models/onnx/minilm/
"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("export-onnx", epilog=EPILOG)(export_onnx)


def export_onnx(
    model: Model = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Folder of the export; default: MODEL_DIR/onnx/minilm."),
    ] = None,
    model_dir: ModelDir = None,
) -> None:
    """Write model.onnx and tokenizer.json, with the input and output names of the original."""
    from reddit_assets.engines.embedding import export
    from reddit_assets.engines.embedding.model import find_model
    from reddit_assets.settings import load_settings

    settings = load_settings(model=model, model_dir=model_dir)
    folder = output or settings.model_dir / "onnx" / "minilm"
    spec = find_model(settings.model, settings.model_dir)
    written = export.export_onnx(spec, folder)
    typer.echo(f"{written}: {spec.name}, {spec.dimension} dimensions, from {spec.path}")
