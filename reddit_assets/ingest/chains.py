"""Messages of all dumps to chain files: subreddit by subreddit, in bounded memory."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reddit_assets.corpus.oserrors import writing
from reddit_assets.errors import StartupError
from reddit_assets.ingest import groups as grouping
from reddit_assets.ingest.chainfiles import Built, Publisher, refuse_others, remove_chunks
from reddit_assets.ingest.groups import Group, find_groups
from reddit_assets.ingest.journal import Journal
from reddit_assets.ingest.pieces import Piece, Source, pieces, rows_of
from reddit_assets.ingest.store import Store

__all__ = ["Built", "ChainOptions", "build_chains"]

_BUILT = "built.jsonl"
_ROWS_PER_PROCESS = 300_000  # fewer are done before another process has started


@dataclass(frozen=True)
class ChainOptions:
    """Settings of the chain files.

    Attributes:
        chunk_rows: rows of a file.
        text: ``message`` or ``chain``.
        tokens: budget of the column ``text``.
    """

    chunk_rows: int = 20_000
    text: str = "message"
    tokens: int = 256

    @property
    def fingerprint(self) -> str:
        """Changes with what is written."""
        tokens = self.tokens if self.text == "chain" else 0
        return f"2-{self.chunk_rows}-{self.text}-{tokens}"


def build_chains(
    store: Store,
    chains: Path,
    options: ChainOptions,
    *,
    processes: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Built:
    """Make the chain files be those of the dumps in the store. Safe to interrupt and to repeat.

    The caller holds the store's lock.

    Args:
        progress: called with rows done and rows to do.

    Raises:
        StartupError: other programs' files are where chain files should be, or one of the processes
            was killed.
        BadFileError: what was kept of a dump is damaged.
        WriteError: the disk is full.
    """
    records = [record for record in store.records() if record.messages]
    sections = sorted({record.section for record in records})
    sources = [Source(store.messages(record), sections.index(record.section)) for record in records]
    journal = Journal(store.root / _BUILT, options.fingerprint)
    built = Built()
    groups, current = find_groups(store, records, journal, chains)
    built.unchanged = len(current) - sum(len(group.places) for group in groups)
    for place in [place for place in journal.places if place not in current]:
        built.files_removed += remove_chunks(chains / place, 0, journal.chunks(place))
        with suppress(OSError):
            (chains / place).rmdir()
        journal.drop(place)
    total = sum(group.rows for group in groups)
    done = 0
    enough = min(processes, len(groups), 1 + total // _ROWS_PER_PROCESS)
    with _Pool(enough) as pool, store.scratch() as scratch:
        for group, (part, chunks) in pool.run(_build, groups, (sources, chains, options, scratch)):
            journal.add(group.places, group.digests, chunks)
            built.add(part)
            done += group.rows
            progress(done, total)
    journal.compact()
    return built


class _Pool:
    """Runs groups in several processes; in this one if one is enough."""

    def __init__(self, processes: int) -> None:
        self._pool = (
            ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
            if processes > 1
            else None
        )

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def run(
        self,
        work: Callable[..., tuple[Built, list[int]]],
        groups: list[Group],
        arguments: tuple[object, ...],
    ) -> Iterator[tuple[Group, tuple[Built, list[int]]]]:
        """Pairs of a group and its result, as they come."""
        if self._pool is None:
            for group in groups:
                yield group, work(group, *arguments)
            return
        futures = {self._pool.submit(work, group, *arguments): group for group in groups}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise StartupError(
                "A process that made chain files was killed; most often memory ran out.",
                hint="Set REDDIT_THREADS=1, or give the host more memory; done work is kept.",
                host_fault=True,
            ) from None


# --- one group, in a process of its own ------------------------------------------------------
def _build(
    group: Group, sources: list[Source], chains: Path, options: ChainOptions, scratch: Path
) -> tuple[Built, list[int]]:
    built = Built(subreddits=len(group.places))
    for place, known in zip(group.places, group.known, strict=True):
        if known < 0:
            refuse_others(chains / place)
    publisher = Publisher(chains, options.chunk_rows, built)
    if group.rows > grouping.GROUP_ROWS:
        _large(group, sources, options, scratch, publisher, built)
    else:
        piece = rows_of(sources, group.ranges, without=group.fresh)
        for place, table in _finished(piece, options, built):
            publisher.add(place, table)
    publisher.finish()
    for place, known in zip(group.places, group.known, strict=True):
        built.files_removed += remove_chunks(chains / place, publisher.chunks.get(place, 0), known)
    return built, [publisher.chunks.get(place, 0) for place in group.places]


def _finished(piece: Piece, options: ChainOptions, built: Built) -> Iterator[tuple[str, pa.Table]]:
    """A piece's rows by subreddit, in the order of the chain files."""
    table, codes, sections = piece.finished(options.text, options.tokens)
    built.count(piece)
    order = np.lexsort((np.arange(len(codes)), sections, codes))
    table, codes = table.take(pa.array(order)), codes[order]
    edges = np.flatnonzero(np.diff(codes)) + 1
    for start, end in zip([0, *edges], [*edges, len(codes)], strict=True):
        if end > start:
            yield piece.places[codes[start]], table.slice(start, end - start)


def _large(
    group: Group,
    sources: list[Source],
    options: ChainOptions,
    scratch: Path,
    publisher: Publisher,
    built: Built,
) -> None:
    """A subreddit that does not fit: by ranges of threads, then by sections."""
    paths: dict[int, Path] = {}
    token = secrets.token_hex(8)
    with writing(scratch), ExitStack() as stack:
        writers: dict[int, pq.ParquetWriter] = {}
        for piece in pieces(sources, group.ranges, grouping.GROUP_ROWS):
            table, _, sections = piece.finished(options.text, options.tokens)
            built.count(piece)
            for section in np.unique(sections).tolist():
                if section not in paths:
                    paths[section] = scratch / f"{token}-{section}.parquet"
                    writer = pq.ParquetWriter(paths[section], table.schema, compression="lz4")
                    writers[section] = stack.enter_context(writer)
                writers[section].write_table(table.filter(pa.array(sections == section)))
    for _, path in sorted(paths.items()):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(options.chunk_rows):
                publisher.add(group.places[0], pa.Table.from_batches([batch]))
        path.unlink()
