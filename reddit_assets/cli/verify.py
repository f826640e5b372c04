"""``reddit-assets verify``: whether embedding files hold what the exact backend makes of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reddit_assets.cli.options import AsJson, Model, ModelDir, Root, Threads, print_json

if TYPE_CHECKING:
    from reddit_assets.corpus.layout import Layout
    from reddit_assets.engines.embedding.engine import Embedder

__all__ = ["register"]

EPILOG = """
Examples:

\b
  reddit-assets verify --root data
  reddit-assets verify --root data --files 100 --rows 64 --json
  reddit-assets verify --root data co/Cooking/Cooking_000
"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("verify", epilog=EPILOG)(verify)


def verify(
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY]...", help="Partition keys; without any, files are drawn."),
    ] = None,
    root: Root = None,
    files: Annotated[int, typer.Option("--files", min=1, help="Files drawn at random.")] = 20,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows of each file.")] = 16,
    model: Model = None,
    model_dir: ModelDir = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Embed rows of embedding files again in fp32 and compare with what the files hold.

    Files of the earlier system are compared too. The exit status is 1 if a file is below the
    bound of its precision, or cannot be compared.
    """
    from reddit_assets.corpus.layout import Layout
    from reddit_assets.engines.embedding.model import find_model
    from reddit_assets.engines.embedding.select import open_embedder
    from reddit_assets.settings import load_settings

    settings = load_settings(root=root, model=model, model_dir=model_dir, threads=threads)
    layout = Layout.from_settings(settings)
    chosen = keys or _drawn(layout, files)
    spec = find_model(settings.model, settings.model_dir)
    found = []
    with open_embedder(spec, device="cpu", precision="fp32", threads=settings.threads) as reference:
        for one in _compared(layout, chosen, reference, rows):
            found.append(one)
            if not as_json:
                typer.echo(_line(one))
    failed = sum(not one["conformant"] for one in found)
    if as_json:
        print_json(found)
    else:
        typer.echo(f"{len(found) - failed:,} of {len(found):,} files agree with {spec.name}.")
    raise typer.Exit(1 if failed else 0)


def _drawn(layout: Layout, files: int) -> list[str]:
    """Keys of some embedding files of the tree, drawn at random."""
    from reddit_assets.errors import BadKeyError, SettingsError

    every = []
    for path in layout.embeddings.rglob("*.parquet"):
        try:
            every.append(layout.key_of(path))
        except BadKeyError:
            continue  # Not an embedding file of a chain file: a scan names it.
    if not every:
        raise SettingsError(
            f"There is no embedding file in {layout.embeddings}.",
            hint="Embed first: `reddit-assets up` or `reddit-assets worker --kind embed`.",
        )
    return sorted(random.sample(every, min(files, len(every))))


def _compared(
    layout: Layout, keys: list[str], reference: Embedder, rows: int
) -> Iterator[dict[str, Any]]:
    """One JSON object per file; ``problem`` says why one could not be compared."""
    from reddit_assets.errors import BadFileError
    from reddit_assets.tasks.verification import verify_file

    for key in keys:
        one: dict[str, Any] = {"key": key, "conformant": False, "problem": ""}
        try:
            found = verify_file(
                layout.embedding_path(key), reference, rows, seed=random.randrange(2**32)
            )
        except FileNotFoundError:
            yield one | {"problem": "There is no embedding file."}
        except BadFileError as error:
            yield one | {"problem": error.message}
        else:
            facts = {
                "rows": found.rows,
                "min_cosine": found.min_cosine,
                "mean_cosine": found.mean_cosine,
                "bound": found.bound,
                "adopted": found.adopted,
                "only_long_deviate": found.only_long_deviate,
            }
            if found.model not in ("", reference.spec.fingerprint):
                yield one | facts | {"problem": "Another model made it."}
            else:
                yield one | facts | {"conformant": found.conformant}


def _line(one: dict[str, Any]) -> str:
    if one["problem"]:
        return f"{one['key']}: {one['problem']}"
    verdict = "agrees" if one["conformant"] else "DIFFERS"
    whose = ", of the earlier system" if one["adopted"] else ""
    if one["adopted"] and one["only_long_deviate"]:
        whose += (
            ". Only long texts differ: it looks like 512-token vectors of the earlier ONNX worker; "
            "REDDIT_ADOPT=false has such files made again"
        )
    return (
        f"{one['key']}: {verdict}; {one['rows']:,} rows, smallest cosine {one['min_cosine']:.6f}, "
        f"mean {one['mean_cosine']:.6f}, bound {one['bound']}{whose}"
    )
