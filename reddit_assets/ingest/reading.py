"""A dump's messages, block by block: decompressed, parsed and cleaned side by side."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reddit_assets.corpus.oserrors import reading, unreadable
from reddit_assets.errors import BadFileError, first_line
from reddit_assets.ingest.clean import clean
from reddit_assets.ingest.filters import Filters
from reddit_assets.ingest.parse import COLUMNS, Parsed, Parser
from reddit_assets.ingest.source import Block, Damage, blocks

__all__ = ["Cleaned", "cleaned"]

_PARQUET_ROWS = 30_000
_MOST_PARSERS = 6
"""Decompression takes a fifth of parsing's time, and is done by one thread."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What became of a block.

    Attributes:
        table: its messages, of ``clean.MESSAGES``.
        lines: those that are not blank.
        rejected: in the order of the dump.
        filtered: rows by the filter that took them.
        read: bytes of the file up to its end.
        text: bytes of the decompressed text up to its end; 0 if there is none.
    """

    table: pa.Table
    lines: int
    rejected: tuple[Damage, ...]
    read: int
    text: int = 0
    filtered: Counter[str] = field(default_factory=Counter)


def cleaned(path: Path, filters: Filters, *, threads: int, skip_corrupt: bool) -> Iterator[Cleaned]:
    """The blocks of a dump, in order.

    Raises:
        BadFileError: the dump is damaged; with the place.
        UnreadableFileError: the operating system does not let us read it.
    """
    if path.suffix == ".parquet":
        return _of_parquet(path, filters)
    return _of_lines(path, filters, min(threads, _MOST_PARSERS), skip_corrupt)


def _of_lines(path: Path, filters: Filters, parsers: int, skip_corrupt: bool) -> Iterator[Cleaned]:
    def work(block: Block) -> Cleaned:
        parsed = parser.parse(block.data)
        table, rejected, filtered = _clean(parsed, block.data, block.offset, filters)
        return Cleaned(
            table,
            parsed.rows.num_rows,
            (*block.damage, *rejected),
            block.read,
            block.offset + len(block.data),
            filtered,
        )

    waiting: deque[Future[Cleaned]] = deque()
    with (
        closing(Parser()) as parser,
        ThreadPoolExecutor(1) as reader,
        ThreadPoolExecutor(parsers) as pool,
    ):
        source = blocks(path, skip_corrupt=skip_corrupt)
        ahead = reader.submit(next, source, None)
        while (block := ahead.result()) is not None:
            ahead = reader.submit(next, source, None)
            waiting.append(pool.submit(work, block))
            if len(waiting) > parsers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _of_parquet(path: Path, filters: Filters) -> Iterator[Cleaned]:
    try:
        with reading(path), pq.ParquetFile(path) as file:
            there = [name for name in COLUMNS if name in file.schema_arrow.names]
            size, total, first = path.stat().st_size, max(1, file.metadata.num_rows), 0
            for batch in file.iter_batches(_PARQUET_ROWS, columns=there):
                columns = [
                    batch[name].cast(pa.string())
                    if name in there
                    else pa.nulls(len(batch), pa.string())
                    for name in COLUMNS
                ]
                places = np.arange(len(batch), dtype=np.int64)
                parsed = Parsed(pa.table(columns, names=list(COLUMNS)), places, places, {})
                table, rejected, filtered = _clean(parsed, b"", first, filters)
                first += len(batch)
                read = size * first // total
                yield Cleaned(table, len(batch), rejected, read, filtered=filtered)
    except FileNotFoundError as error:
        raise unreadable(path, error) from None
    except pa.ArrowException as error:
        raise BadFileError(
            f"{path} is no parquet file of messages: {first_line(error)}.", hint="Fetch it again."
        ) from None


def _clean(
    parsed: Parsed, data: bytes, offset: int, filters: Filters
) -> tuple[pa.Table, tuple[Damage, ...], Counter[str]]:
    filtered: Counter[str] = Counter()
    table, reasons = clean(parsed, offset, filters, filtered)
    rejected = tuple(
        Damage(
            offset + int(parsed.starts[row]),
            reasons[row],
            data[parsed.starts[row] : parsed.ends[row]],
        )
        for row in sorted(reasons)
    )
    return table, rejected, filtered
