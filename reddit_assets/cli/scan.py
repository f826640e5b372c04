"""``reddit-assets scan``: queue what is missing or stale."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reddit_assets.cli.options import (
    AsJson,
    KindName,
    RedisUrl,
    Root,
    Subreddits,
    chosen_kinds,
    flag,
    print_json,
)
from reddit_assets.errors import printable

if TYPE_CHECKING:
    from reddit_assets.cli.progress import Bar
    from reddit_assets.corpus.scan import Scanner
    from reddit_assets.ledger.planner import ScanReport
    from reddit_assets.workspace import Workspace

__all__ = ["register", "report_fields"]

# Posts of Reddit on one processor of two cores, where nothing else is known.
ASSUMED_RATE = 200
# Files that are asked for the rate at which they were made.
LOOKED_AT = 50
# Fewer subreddits are looked at in a moment.
_MANY = 2_000

EPILOG = """
Examples:

\b
  reddit-assets scan --root data --dry-run
  reddit-assets scan --subreddits 'Ask*,!AskReddit'
  reddit-assets scan --deep --json
"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("scan", epilog=EPILOG)(scan)


def scan(
    root: Root = None,
    subreddits: Subreddits = None,
    redis_url: RedisUrl = None,
    kind: KindName = "any",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be queued; queue nothing.")
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read rows and columns of every output as well.")
    ] = False,
    whole: Annotated[
        bool | None,
        typer.Option(
            "--whole/--quick",
            help="Look at every file, or only at folders that changed and a share of the others; "
            "large trees (REDDIT_WHOLE_LOOK_FILES) are looked at quickly unless you say so.",
        ),
    ] = None,
    urgent: Annotated[
        bool, typer.Option("--urgent", help="Put the jobs before all others.")
    ] = False,
    adopt: Annotated[bool | None, flag("adopt", "--adopt/--no-adopt")] = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait", help="Wait until files that were just written have settled."
        ),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Queue a job for every missing or stale output that is not queued already.

    Safe to interrupt and to repeat. With --dry-run it also says how many rows that is and how
    long it would take at the rate measured so far.
    """
    from reddit_assets.cli.beside import load_beside_up
    from reddit_assets.cli.names import require_subreddits
    from reddit_assets.cli.progress import note
    from reddit_assets.corpus.verdicts import Verdict
    from reddit_assets.ledger.job import Kind
    from reddit_assets.ledger.planner import queue_wanted, sweep
    from reddit_assets.workspace import Workspace

    kinds = chosen_kinds(kind)
    settings = load_beside_up(root=root, subreddits=subreddits, redis_url=redis_url, adopt=adopt)
    require_subreddits(settings)
    reach = Workspace.of_trees if dry_run and settings.redis_url is None else Workspace.load
    workspace = reach(settings)
    scanner, queues = workspace.scanner(deep=deep, whole=whole), workspace.queues
    if not deep:
        _look(scanner)
    report = queue_wanted(scanner, queues, kinds=kinds, dry_run=dry_run, urgent=urgent)
    young = report.files[Verdict.SETTLING]
    if young and wait and not dry_run:
        note(
            f"{young:,} files were written less than {settings.settle_seconds:g} s ago: "
            "waiting until they have settled (not with --no-wait)."
        )
        time.sleep(settings.settle_seconds)
        first, scanner = report, workspace.scanner(deep=deep, whole=whole)
        report = queue_wanted(scanner, queues, kinds=kinds, urgent=urgent)
        report.add_queued(first)
    recovered = 0
    if not dry_run:
        for each in kinds:
            found = sweep(scanner, queues[each], lost_seconds=settings.foreign_lost_seconds)
            recovered += len(found.repushed)
    counts = queues[Kind.EMBED].counts() if queues else None
    rate, workers = (counts.rows_per_second, counts.workers) if counts else (None, 0)
    if as_json:
        print_json(
            {
                **report_fields(report),
                "dry_run": dry_run,
                "recovered": recovered,
                "rows_per_second": rate,
                "workers": workers,
            }
        )
        return
    for line in _lines(report, dry_run=dry_run, recovered=recovered):
        typer.echo(line)
    looked = scanner.looked
    if looked is not None and not looked.whole:
        typer.echo(
            f"Looked at {looked.listed:,} subreddits whose folders changed or whose turn it was; "
            "--whole looks at every file."
        )
    if report.files[Verdict.SETTLING]:
        typer.echo(
            f"{report.files[Verdict.SETTLING]:,} files were written less than "
            f"{settings.settle_seconds:g} s ago and are left out: run it again in "
            f"{settings.settle_seconds:g} s, or set REDDIT_SETTLE_SECONDS=0."
        )
    if dry_run and report.rows:
        held = sum(c.queued + c.delayed + c.leased for c in (q.counts() for q in queues.values()))
        if held:
            typer.echo(f"{held:,} jobs are queued or in work already; none is queued twice.")
        typer.echo(_estimate(report.rows, rate or _rate_of_files(workspace), workers))


def _look(scanner: Scanner) -> None:
    """Look at the trees, with a bar where it takes longer than a moment."""
    from reddit_assets.cli.progress import note, progress

    done = 0
    with ExitStack() as stack:
        bar: Bar | None = None

        def say(listed: int, total: int) -> None:
            nonlocal bar, done
            if bar is None and total > _MANY:
                bar = stack.enter_context(progress("Looking at subreddits", total))
            if bar is not None:
                bar.step("", listed - done)
            done = listed

        if scanner.snapshot.busy:
            note("Another process looks at the trees: waiting until it has finished.")
        snapshot = scanner.look(say)
    if snapshot.notice:
        note(snapshot.notice)


def report_fields(report: ScanReport) -> dict[str, Any]:
    """A report's fields as JSON has them."""
    from reddit_assets.corpus.verdicts import Verdict

    # Not asdict of the whole: it takes a Counter apart into pairs.
    fields = {name: getattr(report, name) for name in report.__dataclass_fields__ if name != "jobs"}
    return {
        **fields,
        "adopted": {
            "files": report.files[Verdict.ADOPTED],
            "clusters": report.clusters[Verdict.ADOPTED],
        },
        "files": dict(report.files),
        "clusters": dict(report.clusters),
        **{kind.value: asdict(jobs) for kind, jobs in report.jobs.items()},
    }


def _lines(report: ScanReport, *, dry_run: bool, recovered: int) -> list[str]:
    from reddit_assets.corpus.verdicts import Verdict
    from reddit_assets.ledger.job import Kind

    lines = [
        f"{report.subreddits:,} subreddits seen in {report.seconds:.1f} s.",
        f"Embedding files: {_counted(report.files) or 'none'}.",
        f"Cluster files: {_counted(report.clusters) or 'none'}.",
    ]
    adopted = report.files[Verdict.ADOPTED], report.clusters[Verdict.ADOPTED]
    if any(adopted):
        lines.append(
            f"Of the earlier system, adopted: {adopted[0]:,} embedding files and {adopted[1]:,} "
            "clusters (REDDIT_ADOPT=false has them made again)."
        )
    verb = "would be queued" if dry_run else "queued"
    embed, cluster = report.jobs[Kind.EMBED], report.jobs[Kind.CLUSTER]
    lines.append(f"{embed.queued:,} embedding jobs and {cluster.queued:,} cluster jobs {verb}.")
    both = embed + cluster
    if both.already:
        lines.append(f"{both.already:,} are queued or in work already.")
    if both.blocked:
        lines.append(f"{both.blocked:,} not queued: dead letters (`reddit-assets dead list`).")
    if recovered:
        lines.append(f"{recovered:,} were lost by plain consumers and are queued again.")
    if report.orphans:
        lines.append(f"{len(report.orphans):,} embedding files have no chain file any more.")
    if report.done and not both.queued:
        lines.append("Nothing to do: everything is fresh.")
    lines += [f"Cannot be used: {problem}" for problem in report.problems]
    for why, count in sorted(report.ignored.items()):
        lines.append(f"Ignored: {count:,} {why}, such as {printable(report.ignored_examples[why])}")
    if report.ignored:
        lines.append("Chain files belong at <shard>/<subreddit>/<chunk>.parquet.")
    if report.mostly_empty:
        lines.append(
            f"{len(report.mostly_empty):,} embedding files have more empty texts than others, such "
            f"as {report.mostly_empty[0]}: is the text in another column (REDDIT_TEXT_COLUMNS)?"
        )
    return lines


def _counted(found: Mapping[Any, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in sorted(found.items()))


def _estimate(rows: int, rate: float | None, workers: int) -> str:
    from reddit_assets.figures import duration

    if not rate:
        return (
            f"{rows:,} rows: about {duration(rows / ASSUMED_RATE)} with one worker on an ordinary "
            f"processor ({ASSUMED_RATE} rows/s; `reddit-assets bench` measures this host's rate)."
        )
    of = f"{workers} workers" if workers > 1 else "one worker"
    return (
        f"{rows:,} rows: about {duration(rows / (rate * max(workers, 1)))} with {of} at "
        f"{rate:,.0f} rows/s each, as measured."
    )


def _rate_of_files(workspace: Workspace) -> float | None:
    """Rows per second by what the latest embedding files say of their making; `None` without."""
    from contextlib import suppress

    from reddit_assets.corpus.provenance import EmbeddingProvenance, read_output
    from reddit_assets.errors import BadFileError

    rows, seconds = 0, 0.0
    for path in islice(workspace.layout.embeddings.rglob("*.parquet"), LOOKED_AT):
        with suppress(OSError, BadFileError):
            found = read_output(path)
            if isinstance(found.provenance, EmbeddingProvenance) and found.provenance.seconds:
                rows, seconds = rows + found.rows, seconds + found.provenance.seconds
    return rows / seconds if seconds else None
