"""``reddit-assets cluster``: all subreddits, or one, in this process and without a queue."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Annotated

import typer

from reddit_assets.cli.options import Root, Subreddits, Threads, flag

if TYPE_CHECKING:
    from reddit_assets.cli.progress import Bar
    from reddit_assets.corpus.layout import Layout
    from reddit_assets.corpus.scan import SubredditStatus
    from reddit_assets.corpus.vectors import VectorFormat
    from reddit_assets.engines.clustering.params import ClusterParams
    from reddit_assets.tasks.phrase_model import HostModel

__all__ = ["register"]

EPILOG = """
Examples:

\b
  reddit-assets cluster --root data
  reddit-assets cluster --root data --subreddit AskHistorians
  reddit-assets cluster --root data --reduction umap --force
"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("cluster", epilog=EPILOG)(cluster)


def cluster(
    root: Root = None,
    subreddit: Annotated[
        str | None,
        typer.Option("--subreddit", help="Only this one: NAME or SHARD/NAME.", show_default=False),
    ] = None,
    subreddits: Subreddits = None,
    reduction: Annotated[str | None, flag("reduction")] = None,
    min_cluster_size: Annotated[int | None, flag("min_cluster_size")] = None,
    min_samples: Annotated[int | None, flag("min_samples")] = None,
    selection_method: Annotated[str | None, flag("selection_method")] = None,
    threads: Threads = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Make fresh cluster files again as well, by clustering all rows; otherwise few "
            "new rows are placed into the clusters that stand.",
        ),
    ] = False,
) -> None:
    """Cluster subreddits here and now, without the queue.

    Fresh cluster files are skipped, so an interrupted run resumes; --subreddit makes the one it
    names again. Dagster learns of the results when its sensors next look at the disk.
    """
    from reddit_assets.cli.names import one_named, require_subreddits
    from reddit_assets.cli.progress import note, progress
    from reddit_assets.corpus.cluster_table import rename_old_table
    from reddit_assets.corpus.layout import Layout
    from reddit_assets.corpus.vectors import VectorFormat
    from reddit_assets.corpus.verdicts import Verdict
    from reddit_assets.engines.clustering.params import ClusterParams
    from reddit_assets.errors import RedditAssetsError, first_line
    from reddit_assets.settings import load_settings
    from reddit_assets.tasks.phrase_model import HostModel
    from reddit_assets.workspace import Workspace

    settings = load_settings(
        root=root,
        subreddits=subreddits,
        reduction=reduction,
        min_cluster_size=min_cluster_size,
        min_samples=min_samples,
        selection_method=selection_method,
        threads=threads,
    )
    layout = Layout.from_settings(settings)
    params = ClusterParams.from_settings(settings)
    form = VectorFormat.from_settings(settings)
    model = HostModel(settings)
    if subreddit:
        settings = settings.model_copy(update={"subreddits": ""})
    scanner = Workspace.of_trees(settings, layout).scanner(settle_seconds=0)
    require_subreddits(settings)
    keys = scanner.subreddits()
    if subreddit is not None:
        missing = f"There is no subreddit {subreddit} in {layout.chains}."
        keys = [one_named(subreddit, keys, missing, "--subreddits takes patterns.")]
    made = fresh = waiting = adopted = adopted_files = 0
    failed: dict[str, str] = {}
    with progress("Clustering", len(keys)) as bar:
        for key in keys:
            try:
                rename_old_table(layout.cluster_dir(key))
                status = scanner.subreddit(key)
                found = status.cluster
                adopted_files += sum(file.verdict is Verdict.ADOPTED for file in status.files)
                if found is None or not status.files or not found.inputs or _unfinished(status):
                    waiting += 1
                elif found.verdict.done and not (force or subreddit):
                    fresh += found.verdict is Verdict.FRESH
                    adopted += found.verdict is Verdict.ADOPTED
                else:
                    said = _one(layout, status, params, form, model, bar, full=force)
                    note(f"{key}: {said}")
                    made += 1
            except Exception as error:  # Only this subreddit failed: the others go on.
                ours = isinstance(error, RedditAssetsError)
                why = str(error) if ours else f"{type(error).__name__}: {first_line(error)}."
                failed[key] = why
                note(f"{key} failed: {why}")
            bar.step(key)
    typer.echo(
        f"{made:,} clustered, {fresh:,} were fresh, {waiting:,} wait for embeddings, "
        f"{len(failed):,} failed."
    )
    if adopted:
        typer.echo(
            f"{adopted:,} more were clustered by the earlier system and are adopted; with --force "
            "they are clustered with ours, and keep their ids."
        )
    if adopted_files:
        typer.echo(f"{adopted_files:,} embedding files of the earlier system are adopted.")
    for key, why in failed.items():
        typer.echo(f"{key} failed: {why}")
    raise typer.Exit(1 if failed else 0)


def _unfinished(status: SubredditStatus) -> bool:
    return any(not file.verdict.done for file in status.files)


def _one(
    layout: Layout,
    status: SubredditStatus,
    params: ClusterParams,
    form: VectorFormat,
    model: HostModel,
    bar: Bar,
    *,
    full: bool,
) -> str:
    """Clusters a subreddit and publishes its files; a sentence about it."""
    from reddit_assets.corpus.output import publish
    from reddit_assets.ledger.job import new_token
    from reddit_assets.tasks.subreddit import cluster_subreddit

    assert status.cluster is not None
    layout.cluster_dir(status.cluster_key).mkdir(parents=True, exist_ok=True)
    result = cluster_subreddit(
        layout,
        status.cluster_key,
        status.cluster.inputs,
        params,
        token=new_token(),
        vectors=form,
        model=model,
        full=full,
        writer={"host": socket.gethostname(), "by": "reddit-assets cluster"},
        progress=lambda stage: bar.step(f"{status.cluster_key}: {stage}", 0),
    )
    for temporary, final in result.files:
        publish(temporary, final)
    facts = result.metadata
    return (
        f"{result.rows:,} rows, {facts.get('clusters', 0):,} clusters, "
        f"{facts.get('noise_share', 0):.0%} noise, {result.seconds:.1f} s"
    )
