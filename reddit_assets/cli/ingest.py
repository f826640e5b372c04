"""``reddit-assets ingest``: public dumps to chain files, here and without a queue."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reddit_assets.cli.options import AsJson, Root, Subreddits, Threads, flag

if TYPE_CHECKING:
    from reddit_assets.ingest.dump import Seen
    from reddit_assets.ingest.run import Summary

__all__ = ["register"]

EPILOG = """
Examples:

\b
  reddit-assets ingest RC_2023-05.zst RS_2023-05.zst --root data
  reddit-assets ingest /dumps --root data --subreddits 'Ask*,!AskReddit'
  curl -s URL | reddit-assets ingest - --name RC_2023-05.zst --root data
"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("ingest", epilog=EPILOG)(ingest)


def ingest(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Dumps (.zst, .zst_blocks, .gz, .jsonl, .parquet), folders of them, or - for "
            "standard input; ROOT/dumps if none is given.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", help="Of the dump on standard input; its month is that of the messages."
        ),
    ] = None,
    root: Root = None,
    subreddits: Subreddits = None,
    dates: Annotated[str | None, flag("ingest_dates", "--dates")] = None,
    min_score: Annotated[int | None, flag("ingest_min_score", "--min-score")] = None,
    min_length: Annotated[int | None, flag("ingest_min_length", "--min-length")] = None,
    removed: Annotated[str | None, flag("ingest_removed", "--removed")] = None,
    bots: Annotated[str | None, flag("ingest_bots", "--bots")] = None,
    text: Annotated[str | None, flag("ingest_text", "--text")] = None,
    text_tokens: Annotated[int | None, flag("ingest_text_tokens", "--text-tokens")] = None,
    chunk_rows: Annotated[int | None, flag("chunk_rows")] = None,
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="As REDDIT_SKIP_CORRUPT.")
    ] = False,
    forget: Annotated[
        list[str] | None,
        typer.Option("--forget", help="Take the rows of this dump out again (its name)."),
    ] = None,
    no_space_check: Annotated[
        bool, typer.Option("--no-space-check", help="Begin although the disk may be too small.")
    ] = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Make chain files of public dumps: parse, filter, build threads, write.

    Dumps that are ingested already are left alone, so an interrupted run resumes. A dump that
    changed replaces its rows. Files of subreddits that gain nothing stay as they are.
    """
    from reddit_assets.cli.options import print_json
    from reddit_assets.cli.progress import note
    from reddit_assets.corpus.layout import Layout
    from reddit_assets.ingest.run import Ingest
    from reddit_assets.ingest.store import STDIN, find_dumps
    from reddit_assets.settings import load_settings

    settings = load_settings(
        root=root,
        subreddits=subreddits,
        ingest_dates=dates,
        ingest_min_score=min_score,
        ingest_min_length=min_length,
        ingest_removed=removed,
        ingest_bots=bots,
        ingest_text=text,
        ingest_text_tokens=text_tokens,
        chunk_rows=chunk_rows,
        skip_corrupt=skip_corrupt or None,
        threads=threads,
    )
    work = Ingest(settings, Layout.from_settings(settings))
    for key in forget or []:
        note(f"{key}: {'forgotten' if work.store.forget(key) else 'was not ingested'}.")
    dumps = (
        {}
        if forget and not paths
        else find_dumps(paths or [work.store.dumps], work.store.dumps, name=name or "")
    )
    waiting = work.waiting(dumps)
    need = work.need(waiting)
    if waiting:
        note(f"{len(waiting):,} of {len(dumps):,} dumps to ingest: {need}.")
        if not no_space_check:
            need.check()
    said = _Said(sum(path.stat().st_size for path in waiting if path != STDIN))
    summary = work.all(dumps, said.seen, said.rows)
    if as_json:
        print_json(summary.to_json())
    else:
        _show(summary)
        if settings.ingest_text == "chain" and settings.text_columns != "text":
            typer.echo("To embed the column text, set REDDIT_TEXT_COLUMNS=text.")
    raise typer.Exit(1 if summary.failed else 0)


class _Said:
    """Progress on standard error: bytes of all bytes, rows per second, time left."""

    _EVERY = 2.0

    def __init__(self, total: int) -> None:
        self._total, self._before, self._last = total, 0, ""
        self._begun = self._at = time.monotonic()
        self._bytes = self._rows = self._rows_before = 0

    def seen(self, key: str, so_far: Seen) -> None:
        """A dump has come so far."""
        from reddit_assets.cli.progress import note

        if key != self._last:
            self._last, self._before = key, self._before + self._bytes
            self._rows_before += self._rows
        self._bytes, self._rows = so_far.bytes_in, so_far.lines
        now = time.monotonic()
        if now - self._at < self._EVERY:
            return
        self._at = now
        done, spent = self._before + self._bytes, now - self._begun
        rate = (self._rows_before + self._rows) / spent
        left = spent * (self._total - done) / done if done and self._total else 0.0
        note(
            f"{key}: {done / 1e6:,.0f} of {self._total / 1e6:,.0f} MB, {rate:,.0f} rows/s, "
            f"{left:,.0f} s left"
        )

    def rows(self, done: int, total: int) -> None:
        """Rows of chain files."""
        from reddit_assets.cli.progress import note

        now = time.monotonic()
        if now - self._at >= self._EVERY:
            self._at = now
            note(f"threads: {done:,} of {total:,} rows")


def _show(summary: Summary) -> None:
    for record in summary.records:
        typer.echo(
            f"{record.key}: {record.lines:,} lines, {record.rows:,} messages, "
            f"{record.rejected:,} rejected, {record.subreddits:,} subreddits, "
            f"{record.seconds:,.1f} s."
        )
        for why, count in record.filtered.items():
            typer.echo(f"  {count:,} {why}")
    built = summary.built
    typer.echo(
        f"{built.files_new:,} chain files are new, {built.files_changed:,} changed, "
        f"{built.files_removed:,} went; {built.files_same:,} were looked at and stay as they are."
    )
    typer.echo(
        f"{built.subreddits:,} subreddits made again, {built.unchanged:,} unchanged; "
        f"{built.rows:,} rows, {built.orphans:,} orphans, {built.doubles:,} doubles, "
        f"{built.structure:,} messages are thread structure only."
    )
    if built.files_new + built.files_changed:
        typer.echo(f"To embed: {built.files_new + built.files_changed:,} files.")
    for key, why in summary.failed.items():
        typer.echo(f"{key} failed: {why}")
