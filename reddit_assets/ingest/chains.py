"""Messages of all dumps to chain files: subreddit by subreddit, in bounded memory."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reddit_assets.corpus.oserrors import writing
from reddit_assets.corpus.output import sync_file
from reddit_assets.errors import StartupError
from reddit_assets.ingest.journal import Journal
from reddit_assets.ingest.pieces import Piece, Source, pieces, rows_of
from reddit_assets.ingest.store import Record, Store

__all__ = ["Built", "ChainOptions", "build_chains"]

GROUP_ROWS = 150_000
MARK = {b"reddit_assets.ingest": b"1"}
_BUILT = "built.jsonl"
_SYNCS = 16
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
        return f"1-{self.chunk_rows}-{self.text}-{tokens}"


@dataclass
class Built:
    """What became of chain files.

    Attributes:
        subreddits, unchanged: made again, and left alone.
        rows: of the subreddits made again.
        files_new, files_changed, files_same, files_removed: chain files of those.
        structure: messages known to threads alone.
    """

    subreddits: int = 0
    unchanged: int = 0
    rows: int = 0
    orphans: int = 0
    doubles: int = 0
    structure: int = 0
    files_new: int = 0
    files_changed: int = 0
    files_same: int = 0
    files_removed: int = 0
    bytes_out: int = 0

    def add(self, other: Built) -> None:
        """Count another part's as well."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True)
class _Group:
    """Consecutive subreddits, each with the digest of its inputs; one alone if it is large."""

    places: tuple[str, ...]
    digests: tuple[str, ...]
    known: tuple[int, ...]  # chunks that there were, -1 if it is new
    ranges: tuple[tuple[int, int], ...]  # rows in each dump
    rows: int


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
        StartupError: other programs' files are where chain files should be.
        WriteError: the disk is full.
    """
    records = [record for record in store.records() if record.messages]
    sections = sorted({record.section for record in records})
    sources = [Source(store.messages(record), sections.index(record.section)) for record in records]
    journal = Journal(store.root / _BUILT, options.fingerprint)
    built = Built()
    groups, current = _groups(store, records, journal)
    built.unchanged = len(current) - sum(len(group.places) for group in groups)
    for place in [place for place in journal.places if place not in current]:
        built.files_removed += _remove_chunks(chains / place, 0, journal.chunks(place))
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
        groups: list[_Group],
        arguments: tuple[object, ...],
    ) -> Iterator[tuple[_Group, tuple[Built, list[int]]]]:
        """Pairs of a group and its result, as they come."""
        if self._pool is None:
            for group in groups:
                yield group, work(group, *arguments)
            return
        futures = {self._pool.submit(work, group, *arguments): group for group in groups}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _groups(store: Store, records: list[Record], journal: Journal) -> tuple[list[_Group], set[str]]:
    """The subreddits to make again, in groups; and all subreddits."""
    inputs: dict[str, list[tuple[int, int, int, int]]] = {}
    for number, record in enumerate(records):
        index = pq.read_table(store.index(record)).to_pydict()
        columns = (index["first"], index["rows"], index["digest"])
        for place, first, rows, digest in zip(index["place"], *columns, strict=True):
            inputs.setdefault(place, []).append((number, first, rows, digest))
    names = [f"{record.section}/{record.key}" for record in records]
    groups: list[_Group] = []
    held: list[tuple[str, str, list[tuple[int, int, int, int]]]] = []

    def close() -> None:
        if held:
            groups.append(_group(held, len(records), journal))
            held.clear()

    size = 0
    for place in sorted(inputs, key=lambda place: place.encode()):
        parts = inputs[place]
        said = [f"{names[number]}:{rows}:{digest}" for number, _, rows, digest in parts]
        digest = hashlib.blake2b("\n".join(said).encode(), digest_size=12).hexdigest()
        rows = sum(part[2] for part in parts)
        if journal.has(place, digest):
            close()
            size = 0
            continue
        if size + rows > GROUP_ROWS:
            close()
            size = 0
        held.append((place, digest, parts))
        size += rows
    close()
    return groups, set(inputs)


def _group(
    held: list[tuple[str, str, list[tuple[int, int, int, int]]]], dumps: int, journal: Journal
) -> _Group:
    ranges = []
    for number in range(dumps):
        found = [part for _, _, parts in held for part in parts if part[0] == number]
        first = min((part[1] for part in found), default=0)
        ranges.append((first, first + sum(part[2] for part in found)))
    return _Group(
        tuple(place for place, _, _ in held),
        tuple(digest for _, digest, _ in held),
        tuple(journal.chunks(place) if journal.knows(place) else -1 for place, _, _ in held),
        tuple(ranges),
        sum(high - low for low, high in ranges),
    )


# --- one group, in a process of its own ------------------------------------------------------
def _build(
    group: _Group, sources: list[Source], chains: Path, options: ChainOptions, scratch: Path
) -> tuple[Built, list[int]]:
    built = Built(subreddits=len(group.places))
    for place, known in zip(group.places, group.known, strict=True):
        if known < 0:
            _refuse_others(chains / place)
    publisher = _Publisher(chains, options.chunk_rows, built)
    if len(group.places) == 1 and group.rows > GROUP_ROWS:
        _large(group, sources, options, scratch, publisher, built)
    else:
        piece = rows_of(sources, group.ranges)
        for place, table in _finished(piece, options, built):
            publisher.add(place, table)
    publisher.finish()
    for place, known in zip(group.places, group.known, strict=True):
        built.files_removed += _remove_chunks(chains / place, publisher.chunks.get(place, 0), known)
    return built, [publisher.chunks.get(place, 0) for place in group.places]


def _finished(piece: Piece, options: ChainOptions, built: Built) -> Iterator[tuple[str, pa.Table]]:
    """A piece's rows by subreddit, in the order of the chain files."""
    table, codes, sections = piece.finished(options.text, options.tokens)
    built.orphans += piece.orphans
    built.doubles += piece.doubles
    built.structure += piece.structure
    order = np.lexsort((np.arange(len(codes)), sections, codes))
    table, codes = table.take(pa.array(order)), codes[order]
    edges = np.flatnonzero(np.diff(codes)) + 1
    for start, end in zip([0, *edges], [*edges, len(codes)], strict=True):
        if end > start:
            yield piece.places[codes[start]], table.slice(start, end - start)


def _large(
    group: _Group,
    sources: list[Source],
    options: ChainOptions,
    scratch: Path,
    publisher: _Publisher,
    built: Built,
) -> None:
    """A subreddit that does not fit: by ranges of threads, then by sections."""
    spilled: dict[int, tuple[Path, pq.ParquetWriter]] = {}
    token = secrets.token_hex(8)
    for piece in pieces(sources, group.ranges, GROUP_ROWS):
        table, _, sections = piece.finished(options.text, options.tokens)
        built.orphans += piece.orphans
        built.doubles += piece.doubles
        built.structure += piece.structure
        for section in np.unique(sections).tolist():
            if section not in spilled:
                path = scratch / f"{token}-{section}.parquet"
                spilled[section] = path, pq.ParquetWriter(path, table.schema, compression="lz4")
            part = table.filter(pa.array(sections == section))
            with writing(spilled[section][0]):
                spilled[section][1].write_table(part)
    for section in sorted(spilled):
        path, writer = spilled[section]
        writer.close()
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(options.chunk_rows):
                publisher.add(group.places[0], pa.Table.from_batches([batch]))
        path.unlink()


class _Publisher:
    """Cuts rows into chain files and replaces those that differ."""

    def __init__(self, chains: Path, rows: int, built: Built) -> None:
        self._chains, self._rows, self._built = chains, rows, built
        self._held: list[pa.Table] = []
        self._count, self._place = 0, ""
        self._waiting: list[tuple[Path, Path]] = []
        self._token = secrets.token_hex(8)
        self.chunks: dict[str, int] = {}

    def add(self, place: str, table: pa.Table) -> None:
        """More rows of a subreddit, in their order."""
        if place != self._place:
            self._flush()
            self._place = place
        while table.num_rows:
            part = table.slice(0, self._rows - self._count)
            self._held.append(part)
            self._count += part.num_rows
            table = table.slice(part.num_rows)
            if self._count == self._rows:
                self._flush()

    def finish(self) -> None:
        """The last file; then all new ones get their names."""
        self._flush()
        self._publish()

    def _flush(self) -> None:
        if not self._count:
            return
        table = pa.concat_tables(self._held).combine_chunks()
        self._held, self._count = [], 0
        number = self.chunks.get(self._place, 0)
        self.chunks[self._place] = number + 1
        path = self._chains / self._place / f"chains_chunk_{number}.parquet"
        sink = pa.BufferOutputStream()
        pq.write_table(
            table.replace_schema_metadata(MARK), sink, compression="zstd", compression_level=1
        )
        data = sink.getvalue()
        self._built.rows += table.num_rows
        self._built.bytes_out += data.size
        if _holds(path, data):
            self._built.files_same += 1
            return
        self._built.files_new += not path.exists()
        self._built.files_changed += path.exists()
        temporary = path.with_name(f"{path.name}.{self._token}.tmp")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(data)
        self._waiting.append((temporary, path))

    def _publish(self) -> None:
        """Synced side by side: a group may be a thousand small files."""
        if not self._waiting:
            return
        with ThreadPoolExecutor(_SYNCS) as pool, writing(self._waiting[0][1]):
            list(pool.map(sync_file, [temporary for temporary, _ in self._waiting]))
        for temporary, path in self._waiting:
            with writing(path):
                os.replace(temporary, path)
        self._waiting = []


def _holds(path: Path, data: pa.Buffer) -> bool:
    try:
        return path.stat().st_size == data.size and path.read_bytes() == data.to_pybytes()
    except OSError:
        return False


def _refuse_others(folder: Path) -> None:
    """
    Raises:
        StartupError: there are chain files that were not made from dumps.
    """
    for path in sorted(folder.glob("*.parquet")):
        with suppress(OSError, pa.ArrowException):
            if MARK.items() <= (pq.read_schema(path).metadata or {}).items():
                continue
        raise StartupError(
            f"{path} is a chain file that was not made from dumps.",
            hint="Use another root for the dumps, or move the folder away.",
        )


def _remove_chunks(folder: Path, first: int, known: int) -> int:
    """Deletes the files of numbers that are no more, and what a killed process left."""
    removed = 0
    for number in range(first, max(first, known)):
        with suppress(FileNotFoundError):
            (folder / f"chains_chunk_{number}.parquet").unlink()
            removed += 1
    for path in folder.glob("chains_chunk_*.parquet*"):
        name, _, rest = path.name.removeprefix("chains_chunk_").partition(".")
        if name.isdigit() and (rest.endswith(".tmp") or int(name) >= first):
            path.unlink(missing_ok=True)
            removed += rest == "parquet"
    return removed
