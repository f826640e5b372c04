"""``reddit-assets convert``: another form of the vectors, in place, file by file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reddit_assets.cli.options import AsJson, RedisUrl, Root, Subreddits, Threads, flag, print_json

if TYPE_CHECKING:
    from pathlib import Path

    from reddit_assets.corpus.layout import Layout
    from reddit_assets.corpus.vectors import VectorFormat
    from reddit_assets.ledger.job import Kind
    from reddit_assets.settings import Settings
    from reddit_assets.tasks.convert import Converted

    Target = tuple[Kind, str, Path]
    Busy = Callable[[Kind, str], bool]

__all__ = ["register"]

EPILOG = """
Examples:

\b
  reddit-assets convert --root data --vector-layout list
  reddit-assets convert --root data --vector-layout list --vector-dtype float16
  reddit-assets convert --root data --vector-layout columns --no-workers
"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("convert", epilog=EPILOG)(convert)


def convert(
    root: Root = None,
    layout: Annotated[str | None, flag("vector_layout")] = None,
    dtype: Annotated[str | None, flag("vector_dtype")] = None,
    subreddits: Subreddits = None,
    redis_url: RedisUrl = None,
    threads: Threads = None,
    no_workers: Annotated[
        bool, typer.Option("--no-workers", help="No worker runs on this tree: ask no queue.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Give all embedding and clustered files the wanted form of vectors, in place.

    Nothing is computed again, and data versions stay as they are. Files that are in that form are
    left, so an interrupted run resumes. Files whose jobs a worker has now are left, too; the exit
    status is 1 if there were such, or if a file failed.
    """
    from reddit_assets.cli.beside import load_beside_up
    from reddit_assets.corpus.layout import Layout
    from reddit_assets.corpus.vectors import VectorFormat
    from reddit_assets.settings import load_settings

    flags = {"root": root, "subreddits": subreddits, "redis_url": redis_url, "threads": threads}
    settings = load_beside_up(**flags, vector_layout=layout, vector_dtype=dtype)
    trees = Layout.from_settings(settings)
    wanted = VectorFormat.from_settings(settings)
    lock, busy = _beside_workers(settings, load_settings(**flags), trees, no_workers)
    with lock:
        found = _convert_all(settings, trees, wanted, busy)
    usual = VectorFormat.from_settings(load_settings(**flags))
    if as_json:
        print_json({"form": str(wanted), **found})
    else:
        _say(found, wanted, usual)
    raise typer.Exit(1 if found["failed"] or found["busy"] else 0)


def _beside_workers(
    settings: Settings, own: Settings, trees: Layout, no_workers: bool
) -> tuple[AbstractContextManager[object], Busy]:
    """What keeps this command and workers from writing the same file.

    Args:
        settings: with the queue of the root's ``up``, if one runs.
        own: without it.

    Raises:
        SettingsError: there is no queue to ask.
        StartupError: an ``up`` with another queue works on the tree.
    """
    from reddit_assets.errors import SettingsError
    from reddit_assets.ledger.connection import connect
    from reddit_assets.ledger.job import Kind, new_token
    from reddit_assets.ledger.queue import JobQueue
    from reddit_assets.local.treelock import TreeLock

    if settings.redis_url is None or no_workers:
        if not no_workers:
            raise SettingsError(
                "REDIS_URL is not set, so nobody can say which files workers are writing.",
                hint="Set it to the workers' queue, or pass --no-workers if none runs.",
            )
        lock = TreeLock(
            trees.embeddings, f"convert {new_token()}", {"command": "convert"}, lambda why: None
        )
        return lock, lambda kind, key: False
    client = connect(settings)
    queues = {kind: JobQueue(client, kind) for kind in Kind}

    def busy(kind: Kind, key: str) -> bool:
        return any(state == "leased" for _, (state,) in queues[kind].fields([key], "state"))

    if own.redis_url is None:  # The root's own `up` runs, and holds the tree.
        return nullcontext(), busy
    identity = queues[Kind.EMBED].identity()
    facts = {"command": "convert"}
    return TreeLock(trees.embeddings, identity, facts, lambda why: None), busy


def _targets(
    settings: Settings, trees: Layout, refuse: Callable[[Exception], None]
) -> Iterator[list[Target]]:
    """The files of one subreddit after the other."""
    from reddit_assets.corpus.walk import files_of
    from reddit_assets.ledger.job import Kind
    from reddit_assets.workspace import Workspace

    for cluster_key in Workspace.of_trees(settings, trees).scanner().subreddits():
        made = files_of(trees.embeddings, cluster_key, refuse)
        if made.unreadable is not None:
            refuse(made.unreadable)
        found = [
            (Kind.EMBED, key, trees.embedding_path(key))
            for key, stamp in sorted(made.files.items())
            if stamp.size
        ]
        clustered = trees.cluster_path(cluster_key)
        if clustered.is_file():
            found.append((Kind.CLUSTER, cluster_key, clustered))
        yield found


def _convert_all(
    settings: Settings, trees: Layout, wanted: VectorFormat, busy: Busy
) -> dict[str, Any]:
    """Counts by outcome, bytes before and after, failures by file."""
    from concurrent.futures import ThreadPoolExecutor

    from reddit_assets.cli.progress import note, progress
    from reddit_assets.engines.host import available_cores

    counts: Counter[str] = Counter()
    failed: dict[str, str] = {}

    def one(target: Target) -> tuple[str, Converted | str]:
        kind, key, path = target
        return f"{kind} {key}", _converted(path, wanted, lambda: busy(kind, key))

    def refuse(error: Exception) -> None:
        failed[str(error)] = str(error)

    pool = ThreadPoolExecutor(settings.threads or available_cores(), "convert")
    try:
        with progress("Converting") as bar:
            for targets in _targets(settings, trees, refuse):
                for name, result in pool.map(one, targets):
                    if isinstance(result, str):
                        failed[name] = result
                        note(result)
                    else:
                        counts[result.outcome] += 1
                        counts["widened"] += result.widened
                        counts["before"] += result.before
                        counts["after"] += result.after
                    bar.step(name)
    finally:
        pool.shutdown(cancel_futures=True)
    names = ("converted", "already", "busy", "widened", "before", "after")
    return {**{name: counts[name] for name in names}, "failed": failed}


def _converted(path: Path, wanted: VectorFormat, busy: Callable[[], bool]) -> Converted | str:
    """What became of a file, or why it could not be converted: the others go on."""
    from reddit_assets.errors import BadFileError, WriteError
    from reddit_assets.ledger.job import new_token
    from reddit_assets.tasks.convert import Converted, convert_file

    try:
        return convert_file(path, wanted, new_token(), busy)
    except FileNotFoundError:
        return Converted("busy", 0, 0)  # Deleted, or about to be written again.
    except WriteError as error:
        if error.host_fault:
            raise  # A full disk: the next files would fare the same.
        return str(error)
    except BadFileError as error:
        return str(error)


def _say(found: dict[str, Any], wanted: VectorFormat, usual: VectorFormat) -> None:
    typer.echo(
        f"{found['converted']:,} converted to {wanted}, {found['already']:,} were so already, "
        f"{len(found['failed']):,} failed; {found['before'] / 1e6:,.1f} MB before, "
        f"{found['after'] / 1e6:,.1f} MB now."
    )
    if found["busy"]:
        typer.echo(f"{found['busy']:,} are being made by workers now: run this again for them.")
    if found["widened"]:
        typer.echo(
            f"{found['widened']:,} held float16 numbers: they are float32 now, but as exact as "
            "float16."
        )
    for why in found["failed"].values():
        typer.echo(f"Failed: {why}")
    if wanted != usual:
        typer.echo(
            f"New files are written as {usual}: set REDDIT_VECTOR_LAYOUT={wanted.layout} and "
            f"REDDIT_VECTOR_DTYPE={wanted.dtype} for the workers."
        )
