"""One dump: parsed, cleaned, filtered, sorted, and published with its record."""

from __future__ import annotations

import io
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

import pyarrow as pa

from reddit_assets.corpus.oserrors import writing
from reddit_assets.corpus.output import sync_file
from reddit_assets.errors import BadFileError, UnreadableFileError, WriteError, first_line
from reddit_assets.ingest.clean import MESSAGES
from reddit_assets.ingest.engine import connect, duckdb, quoted
from reddit_assets.ingest.filters import Filters
from reddit_assets.ingest.reading import cleaned
from reddit_assets.ingest.source import Damage
from reddit_assets.ingest.store import Record, Store, dump_stamp, section_of

__all__ = ["ORDER", "Seen", "ingest_dump"]

ORDER = "place, thread, kind, created, num, retrieved, line"
_ROW_GROUP = 30_720
_MEMORY = "800MB"


@dataclass
class Seen:
    """How far a dump is."""

    bytes_in: int = 0
    lines: int = 0
    rows: int = 0
    written: int = 0
    rejected: int = 0
    bytes_text: int = 0
    filtered: Counter[str] = field(default_factory=Counter)


def ingest_dump(
    store: Store,
    path: Path,
    key: str,
    filters: Filters,
    *,
    threads: int = 2,
    skip_corrupt: bool = False,
    progress: Callable[[Seen], None] = lambda seen: None,
) -> Record:
    """Read a dump and publish its messages, all or none.

    Raises:
        BadFileError: it is damaged; the place is named. The dump's record says so from then on; the
            messages of the dump before it, if any, stay.
        UnreadableFileError: the operating system does not let us read it; nothing is changed.
        WriteError: the disk is full.
    """
    started = time.monotonic()
    stamp = dump_stamp(path, filters, skip_corrupt=skip_corrupt)
    work = _Dump(store, path, key, filters, threads, skip_corrupt, progress)
    try:
        record = work.run(stamp, started)
    except UnreadableFileError:
        raise
    except BadFileError as error:
        before = store.record(key) or Record(key, section_of(key), stamp)
        store.publish(replace(before, stamp=stamp, error=str(error)))
        raise
    return record


class _Dump:
    def __init__(
        self,
        store: Store,
        path: Path,
        key: str,
        filters: Filters,
        threads: int,
        skip_corrupt: bool,
        progress: Callable[[Seen], None],
    ) -> None:
        self.store, self.path, self.key, self.filters = store, path, key, filters
        self.threads, self.skip_corrupt, self.progress = threads, skip_corrupt, progress
        self.seen = Seen()
        self.error: Exception | None = None
        self._rejected: TextIO = io.StringIO()
        self.subreddits: set[str] = set()

    def run(self, stamp: str, started: float) -> Record:
        with self.store.scratch() as scratch:
            messages, index = scratch / "messages.parquet", scratch / "messages.index"
            rejected = scratch / "rejected.jsonl"
            with writing(rejected), open(rejected, "w", encoding="utf-8") as self._rejected:
                self._sort(self._messages(), messages, scratch)
            self._write_index(messages, index)
            size = messages.stat().st_size
            seen = self.seen
            record = Record(
                key=self.key,
                section=section_of(self.key),
                stamp=stamp,
                messages=f"messages-{secrets.token_hex(8)}.parquet",
                lines=seen.lines,
                rows=seen.rows,
                written=seen.written,
                rejected=seen.rejected,
                filtered=dict(sorted(seen.filtered.items())),
                subreddits=len(self.subreddits),
                bytes_in=seen.bytes_in,
                bytes_text=seen.bytes_text,
                bytes_out=size,
                seconds=round(time.monotonic() - started, 3),
            )
            files = {
                messages: self.store.messages(record),
                index: self.store.index(record),
                rejected: self.store.rejected_path(self.key),
            }
            if not seen.rejected:
                del files[rejected]
                self.store.rejected_path(self.key).unlink(missing_ok=True)
            with writing(messages):
                for made in files:
                    sync_file(made)
            self.store.publish(record, files)
        return record

    # --- reading -------------------------------------------------------------------------
    def _messages(self) -> Iterator[pa.RecordBatch]:
        """Batches of messages; lines that are none are rejected."""
        seen = self.seen
        source = cleaned(
            self.path, self.filters, threads=self.threads, skip_corrupt=self.skip_corrupt
        )
        for part in source:
            for damage in part.rejected:
                self._reject(damage)
            seen.bytes_in, seen.bytes_text = part.read, part.text
            seen.lines += part.lines
            seen.rows += part.table.num_rows
            seen.written += part.table["written"].combine_chunks().true_count
            seen.filtered.update(part.filtered)
            self.subreddits.update(part.table["place"].unique().to_pylist())
            self.progress(seen)
            yield from part.table.combine_chunks().to_batches()

    def _reject(self, damage: Damage) -> None:
        self.seen.rejected += 1
        text = damage.line.rstrip(b"\r\n")[:100_000].decode("utf-8", "backslashreplace")
        said = {"offset": damage.offset, "reason": damage.reason, "line": text}
        self._rejected.write(json.dumps(said) + "\n")

    # --- sorting -------------------------------------------------------------------------
    def _sort(self, batches: Iterator[pa.RecordBatch], target: Path, scratch: Path) -> None:
        """Out of core: by place, thread, and time."""

        def watched() -> Iterator[pa.RecordBatch]:
            try:
                yield from batches
            except Exception as error:  # DuckDB would say it in its own words
                self.error = error
                raise

        reader = pa.RecordBatchReader.from_batches(MESSAGES, watched())
        names = ", ".join(name for name in MESSAGES.names if name != "line")
        with self._database(scratch) as connection:
            connection.register("messages", reader)
            connection.execute(
                f"COPY (SELECT *, hash({names}) AS digest FROM messages ORDER BY {ORDER}) "
                f"TO '{quoted(target)}' (FORMAT parquet, COMPRESSION zstd, "
                f"COMPRESSION_LEVEL 1, ROW_GROUP_SIZE {_ROW_GROUP})"
            )

    def _write_index(self, messages: Path, target: Path) -> None:
        """Place, first row, rows and a digest of each subreddit."""
        with self._database(messages.parent) as connection:
            connection.execute(
                "COPY (SELECT place, min(file_row_number) AS first, count(*) AS rows, "
                "bit_xor(digest) AS digest "
                f"FROM read_parquet('{quoted(messages)}', file_row_number=true) "
                f"GROUP BY place ORDER BY place) TO '{quoted(target)}' (FORMAT parquet)"
            )

    @contextmanager
    def _database(self, scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
        """
        Raises:
            WriteError: the disk is full, or cannot be written.
        """
        try:
            with closing(connect(self.threads, _MEMORY, scratch)) as connection:
                yield connection
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            if self.error is not None:
                raise self.error from None
            raise WriteError(
                f"The messages of {self.key} could not be sorted: {first_line(error)}.",
                hint=f"Make room in {scratch.parent}.",
                host_fault=True,
            ) from None
