"""Chain files: cut to size, written where they differ, published together."""

from __future__ import annotations

import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reddit_assets.corpus.oserrors import writing
from reddit_assets.corpus.output import sync_file
from reddit_assets.errors import StartupError
from reddit_assets.ingest.pieces import Piece

__all__ = ["Built", "Publisher", "refuse_others", "remove_chunks"]

MARK = {b"reddit_assets.ingest": b"1"}
_SYNCS = 16
# Numbers are hardly smaller when compressed, and dictionaries of what does not repeat are in vain:
# two thirds of the time, a tenth more bytes.
_TEXTS = ("id", "parent_id", "link_id", "body", "author", "permalink", "title", "selftext",
          "thread_id", "text")  # fmt: skip
_REPEATED = ["subreddit", "author", "link_id", "thread_id", "title", "selftext", "depth", "downs",
             "thread_size"]  # fmt: skip


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

    def count(self, piece: Piece) -> None:
        """What was found in a finished piece."""
        self.orphans += piece.orphans
        self.doubles += piece.doubles
        self.structure += piece.structure

    def add(self, other: Built) -> None:
        """Count another part's as well."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Publisher:
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
        pq.write_table(table.replace_schema_metadata(MARK), sink, **_options(table.column_names))
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
        # The journal must not know of names that a power failure takes away.
        folders = {folder for _, path in self._waiting for folder in list(path.parents)[:2]}
        with ThreadPoolExecutor(_SYNCS) as pool, writing(self._chains):
            list(pool.map(sync_file, [*folders, self._chains]))
        self._waiting = []


def _options(columns: list[str]) -> dict[str, Any]:
    texts = [name for name in columns if name in _TEXTS]
    return {
        "compression": {name: "zstd" if name in texts else "none" for name in columns},
        "compression_level": dict.fromkeys(texts, 1),
        "use_dictionary": _REPEATED,
        "write_statistics": ["created_utc"],
    }


def _holds(path: Path, data: pa.Buffer) -> bool:
    try:
        return path.stat().st_size == data.size and data.equals(pa.py_buffer(path.read_bytes()))
    except OSError:
        return False


def refuse_others(folder: Path) -> None:
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


def remove_chunks(folder: Path, first: int, known: int) -> int:
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
