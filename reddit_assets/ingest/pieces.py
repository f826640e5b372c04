"""Rows of the dumps' sorted files, and threads made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from reddit_assets.corpus.oserrors import reading
from reddit_assets.errors import BadFileError
from reddit_assets.ingest.ancestors import with_ancestors
from reddit_assets.ingest.threads import Messages, Threads, build

__all__ = ["Piece", "Source", "pieces", "rows_of"]

Ranges = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Source:
    """A dump's sorted messages.

    Attributes:
        section: number of its section, in order.
    """

    path: Path
    section: int


class Piece:
    """Messages of whole threads.

    Attributes:
        places: the subreddits; their places here are the codes.
        orphans, doubles, structure: counts.
    """

    def __init__(self, table: pa.Table, sections: NDArray[np.int64]) -> None:
        encoded = table["place"].combine_chunks().dictionary_encode()
        self.places: list[str] = encoded.dictionary.to_pylist()
        codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        self._table = table
        column = {
            name: table[name].to_numpy() for name in ("thread", "kind", "created", "num", "parent")
        }
        # The same thread number in two subreddits is two threads.
        thread = _one_number(codes, column["thread"])
        self._threads = build(
            Messages(
                thread=thread,
                kind=column["kind"].astype(np.int64),
                section=sections,
                created=column["created"],
                num=column["num"],
                parent=column["parent"],
                retrieved=table["retrieved"].to_numpy(),
            )
        )
        self._codes = codes[self._threads.rows]
        self.orphans = int(self._threads.orphans.sum())
        self.doubles = self._threads.doubles
        self.structure = 0

    def finished(
        self, text: str, tokens: int
    ) -> tuple[pa.Table, NDArray[np.int64], NDArray[np.int64]]:
        """The rows of chain files, in the order of threads; codes and sections of each.

        Args:
            text: ``message``, or ``chain`` for the column ``text``.
            tokens: its budget.
        """
        made = self._threads
        table = self._table.take(pa.array(made.rows))
        written = table["written"].combine_chunks()
        names = pa.array([place.partition("/")[2] for place in self.places], pa.string())
        result = _columns(table, names.take(pa.array(self._codes)), made)
        if text == "chain":
            texts = with_ancestors(result["body"].to_pylist(), made.above, tokens)
            result = result.append_column("text", pa.array(texts, pa.string()))
        self.structure = len(written) - written.true_count
        codes, sections = self._codes, made.section
        if self.structure:
            keep = written.to_numpy(zero_copy_only=False)
            result, codes, sections = result.filter(written), codes[keep], sections[keep]
        return result, codes, sections


def _columns(table: pa.Table, subreddit: pa.Array, made: Threads) -> pa.Table:
    """The earlier system's columns, then ours."""
    comment = pc.equal(table["kind"], 1)
    parts = pc.binary_join_element_wise(
        pc.fill_null(table["title"], ""), pc.fill_null(table["selftext"], ""), "\n\n"
    )
    post = pc.utf8_trim(parts, "\n")
    body = pc.if_else(comment, table["body"], pc.if_else(pc.equal(post, ""), None, post))
    thread_id = pc.if_else(comment, pc.utf8_slice_codeunits(table["link_id"], 3), table["id"])
    return pa.table(
        {
            "id": table["id"],
            "parent_id": table["parent_id"],
            "link_id": table["link_id"],
            "body": body,
            "subreddit": subreddit,
            "author": table["author"],
            "permalink": table["permalink"],
            "created_utc": table["created"],
            "ups": table["ups"],
            "downs": table["downs"],
            "title": table["title"],
            "selftext": table["selftext"],
            "thread_id": thread_id,
            "depth": pa.array(made.depth.astype(np.int32)),
            "position": pa.array(made.position.astype(np.int32)),
            "thread_size": pa.array(made.size.astype(np.int32)),
        }
    ).combine_chunks()


def _one_number(codes: NDArray[np.int64], threads: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number per pair, in the pairs' order."""
    order = np.lexsort((threads, codes))
    new = np.zeros(len(order), np.int64)
    new[1:] = (np.diff(codes[order]) != 0) | (np.diff(threads[order]) != 0)
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.cumsum(new)
    return numbers


def rows_of(sources: Sequence[Source], ranges: Ranges, without: Set[str] = frozenset()) -> Piece:
    """A piece of these rows of each dump, ``without`` those of some subreddits.

    Raises:
        BadFileError: what was kept of a dump is damaged.
    """
    tables, sections = [], []
    for source, (low, high) in zip(sources, ranges, strict=True):
        if high > low:
            table = _rows(source.path, low, high)
            if without:
                other = pc.is_in(table["place"], pa.array(sorted(without), pa.string()))
                table = table.filter(pc.invert(other))
            tables.append(table)
            sections.append(np.full(table.num_rows, source.section, np.int64))
    return Piece(pa.concat_tables(tables), np.concatenate(sections))


def pieces(sources: Sequence[Source], ranges: Ranges, rows: int) -> Iterator[Piece]:
    """One subreddit's rows by ranges of threads, about ``rows`` each: threads stay whole."""
    groups: list[tuple[int, int]] = []  # first thread and rows of each row group
    for source, (low, high) in zip(sources, ranges, strict=True):
        if high > low:
            groups += _first_threads(source.path, low, high)
    groups.sort()
    bounds, held = [-1], 0
    for thread, size in groups:
        if held >= rows and thread > bounds[-1]:
            bounds.append(thread)
            held = 0
        held += size
    bounds.append(2**62)
    cursor = [low for low, _ in ranges]
    for end in bounds[1:]:
        tables, sections = [], []
        for number, (source, (_, high)) in enumerate(zip(sources, ranges, strict=True)):
            table = _until(source.path, cursor[number], high, end)
            cursor[number] += table.num_rows
            if table.num_rows:
                tables.append(table)
                sections.append(np.full(table.num_rows, source.section, np.int64))
        if tables:
            yield Piece(pa.concat_tables(tables), np.concatenate(sections))


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Says so of one of our own files that is no Parquet file any more. Raises BadFileError."""
    try:
        yield
    except (pa.ArrowException, FileNotFoundError):
        key = path.parent.name
        raise BadFileError(
            f"{path} is damaged.",
            hint=f"Ingest its dump again: reddit-assets ingest --forget {key}, then as before.",
        ) from None


@lru_cache(maxsize=8)
def _open(path: Path) -> tuple[pq.ParquetFile, NDArray[np.int64]]:
    """The file and the first row of each of its row groups, and the number of rows."""
    with reading(path), damaged(path):
        file = pq.ParquetFile(path)
    sizes = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
    return file, np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def _rows(path: Path, low: int, high: int, columns: list[str] | None = None) -> pa.Table:
    file, edges = _open(path)
    first = int(np.searchsorted(edges, low, "right")) - 1
    last = int(np.searchsorted(edges, high, "left"))
    with reading(path), damaged(path):
        table = file.read_row_groups(range(first, last), columns=columns, use_threads=False)
    return table.slice(low - int(edges[first]), high - low)


def _first_threads(path: Path, low: int, high: int) -> list[tuple[int, int]]:
    _, edges = _open(path)
    starts = [low, *(int(edge) for edge in edges if low < edge < high)]
    ends = [*starts[1:], high]
    return [
        (_rows(path, start, start + 1, ["thread"])["thread"][0].as_py(), end - start)
        for start, end in zip(starts, ends, strict=True)
    ]


def _until(path: Path, low: int, high: int, thread: int) -> pa.Table:
    """Rows from ``low`` on, up to the first of a thread that is not below ``thread``."""
    _, edges = _open(path)
    at = low
    while at < high:  # the row group where it ends
        end = min(high, int(edges[np.searchsorted(edges, at, "right")]))
        threads = _rows(path, at, end, ["thread"])["thread"].to_numpy()
        below = int(np.searchsorted(threads, thread, "left"))
        at += below
        if below < end - (at - below):
            break
    return _rows(path, low, at) if at > low else _EMPTY


_EMPTY = pa.table({})
