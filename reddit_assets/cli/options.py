"""Flags that several commands share, and the one way to declare them.

A parameter of a command is ``Annotated[type, ...]`` with its default behind the ``=``. What is a
setting is declared by :func:`flag`: its help is the setting's sentence and variable.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from reddit_assets.settings import Settings, variable_of

__all__ = [
    "AsJson",
    "Backend",
    "BatchTokens",
    "DagsterUrl",
    "Device",
    "KindName",
    "Model",
    "ModelDir",
    "Precision",
    "RedisUrl",
    "Root",
    "Subreddits",
    "Threads",
    "chosen_kinds",
    "flag",
    "print_json",
]


def flag(name: str, *declarations: str) -> Any:
    """The option of a setting: ``--its-name``, its sentence, its variable."""
    sentence = (Settings.model_fields[name].description or "").rstrip(".")
    return typer.Option(
        *(declarations or (f"--{name.replace('_', '-')}",)),
        help=f"{sentence}. [{variable_of(name)}]",
        show_default=False,
    )


Root = Annotated[Path | None, flag("root")]
RedisUrl = Annotated[str | None, flag("redis_url")]
DagsterUrl = Annotated[str | None, flag("dagster_url")]
Subreddits = Annotated[str | None, flag("subreddits")]
Model = Annotated[str | None, flag("model", "--model", "-m")]
ModelDir = Annotated[Path | None, flag("model_dir")]
Backend = Annotated[str | None, flag("backend")]
Device = Annotated[str | None, flag("device")]
Precision = Annotated[str | None, flag("precision")]
Threads = Annotated[int | None, flag("threads")]
BatchTokens = Annotated[
    int | None, flag("max_batch_tokens", "--batch-tokens", "--max-batch-tokens")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KindName = Annotated[
    str,
    typer.Option("--kind", help="Which jobs: embed, cluster, ingest or any (embed and cluster)."),
]


def chosen_kinds(name: str) -> tuple[Any, ...]:
    """The kinds of jobs that ``--kind`` names.

    Raises:
        typer.BadParameter: it is not one of these words.
    """
    from reddit_assets.ledger.job import WORK, Kind

    chosen = {kind.value: (kind,) for kind in Kind} | {"any": WORK}
    try:
        return chosen[name]
    except KeyError:
        raise typer.BadParameter(
            "must be embed, cluster, ingest or any (embed and cluster).", param_hint="--kind"
        ) from None


def print_json(value: object) -> None:
    """Prints a value as JSON, text in its own letters."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))
