"""``reddit-assets model show|set``: the model that a tree of embeddings wants."""

from __future__ import annotations

from typing import Annotated

import typer

from reddit_assets.cli.options import AsJson, ModelDir, Root, print_json

__all__ = ["register"]

EPILOG = """
Examples:

\b
  reddit-assets model show --root data
  reddit-assets model set all-MiniLM-L6-v2 --root data
"""


def register(app: typer.Typer) -> None:
    """Adds the group."""
    group = typer.Typer(
        help="The model that the embeddings are made with.",
        epilog=EPILOG,
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("show")(show)
    group.command("set")(set_)
    app.add_typer(group, name="model")


def show(root: Root = None, as_json: AsJson = False) -> None:
    """Show the model that this tree wants."""
    from reddit_assets.corpus.layout import Layout
    from reddit_assets.corpus.wanted import read_wanted_model
    from reddit_assets.settings import load_settings

    layout = Layout.from_settings(load_settings(root=root))
    wanted = read_wanted_model(layout)
    if as_json:
        print_json(None if wanted is None else wanted.model_dump())
    elif wanted is None:
        typer.echo(f"{layout.embeddings} wants no model yet: the first worker states its own.")
    else:
        typer.echo(
            f"{wanted.name}: {wanted.dimension} dimensions, "
            f"{wanted.max_tokens} tokens, {wanted.pooling} pooling, "
            f"fingerprint {wanted.fingerprint}"
        )


def set_(
    name: Annotated[str, typer.Argument(help="A model's name, or a path to its folder.")],
    root: Root = None,
    model_dir: ModelDir = None,
) -> None:
    """Change the wanted model: files made with the previous one become stale."""
    from reddit_assets.corpus.layout import Layout
    from reddit_assets.corpus.provenance import ModelIdentity
    from reddit_assets.corpus.wanted import set_wanted_model
    from reddit_assets.engines.embedding.model import find_model
    from reddit_assets.settings import load_settings

    settings = load_settings(root=root, model_dir=model_dir)
    layout = Layout.from_settings(settings)
    spec = find_model(name, settings.model_dir)
    identity = ModelIdentity(
        name=spec.name,
        fingerprint=spec.fingerprint,
        dimension=spec.dimension,
        max_tokens=spec.max_tokens,
        pooling=spec.pooling,
    )
    set_wanted_model(layout, identity)
    typer.echo(
        f"{layout.embeddings} wants {spec.name} now. `reddit-assets scan` queues what is stale."
    )
