"""Lines of JSON to columns of text, and what is wrong with the lines that are none.

DuckDB parses whole blocks. It gives a row without values for a line that it cannot read, so that
rows and lines correspond; where they do not, the block's lines are parsed one by one.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from reddit_assets.ingest.engine import connect, duckdb, quoted
from reddit_assets.ingest.source import LONGEST_LINE

__all__ = ["COLUMNS", "Parsed", "Parser"]

COLUMNS = (
    "id",
    "name",
    "parent_id",
    "link_id",
    "body",
    "title",
    "selftext",
    "subreddit",
    "author",
    "permalink",
    "created_utc",
    "score",
    "ups",
    "downs",
    "retrieved_on",
    "retrieved_utc",
    "_meta",
)
"""The keys that are read; every value as text, null where a line has none."""

_SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS])
_READ = (
    "SELECT {names} FROM read_json('{path}', format='newline_delimited', ignore_errors=true, "
    "compression='uncompressed', columns={{{types}}}, maximum_object_size=16777216)"
)
_NEWLINE, _SPACE = 10, b" \t\r\n\v\f\0"


@dataclass(frozen=True, slots=True)
class Parsed:
    """A block's lines that are not blank.

    Attributes:
        rows: a column of strings per key.
        starts: where in the block each row's line begins, int64 (rows,).
        ends: where it ends, newline included, int64 (rows,).
        reasons: why a row is none, by its number.
    """

    rows: pa.Table
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    reasons: dict[int, str]


class Parser:
    """Parses blocks; several threads may share one."""

    def __init__(self) -> None:
        self._connection = connect(1, "2GB")  # a block is one thread's
        names = ", ".join(f'"{name}"' for name in COLUMNS)
        types = ", ".join(f"'{name}': 'VARCHAR'" for name in COLUMNS)
        self._sql = _READ.replace("{names}", names).replace("{types}", types)

    def close(self) -> None:
        """Frees DuckDB's memory."""
        self._connection.close()

    def parse(self, data: bytes) -> Parsed:
        """The rows of a block of whole lines."""
        starts, ends = _lines(data)
        if not len(starts):
            return Parsed(_SCHEMA.empty_table(), starts, ends, {})
        rows = None
        if int((ends - starts).max()) <= LONGEST_LINE:
            rows = self._block(data)
        if rows is None or rows.num_rows != len(starts):
            return _one_by_one(data, starts, ends)
        return _with_odd_ones(rows, data, starts, ends)

    def _block(self, data: bytes) -> pa.Table | None:
        with _as_file(data) as path:
            sql = self._sql.replace("{path}", quoted(path)).replace("{{", "{")
            try:
                with closing(self._connection.cursor()) as cursor:
                    table = cursor.sql(sql.replace("}}", "}")).to_arrow_table()
            except duckdb.Error:
                return None  # one line that it cannot pass by: one by one, then
        return table.cast(_SCHEMA)


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """A name under which DuckDB can open the data."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("block")
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
            file.write(data)
            file.flush()
            yield file.name


def _lines(data: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the lines that are not blank begin and end."""
    signs = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(signs == _NEWLINE).astype(np.int64) + 1
    if len(data) and (not len(ends) or ends[-1] != len(data)):
        ends = np.append(ends, len(data))
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]
    short = np.flatnonzero(ends - starts < 64)
    blank = [row for row in short if not data[starts[row] : ends[row]].strip(_SPACE[:-1])]
    keep = np.ones(len(ends), bool)
    keep[blank] = False
    return starts[keep], ends[keep]


def _without_values(rows: pa.Table) -> NDArray[np.bool_]:
    empty = np.ones(rows.num_rows, bool)
    for name in ("id", "name", "created_utc", "subreddit"):
        empty &= pc.is_null(rows[name]).to_numpy()
    return empty


def _with_odd_ones(
    rows: pa.Table, data: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> Parsed:
    """The rows that DuckDB could not read parsed by Python, which takes more (lone surrogates)."""
    odd = np.flatnonzero(_without_values(rows))
    if not len(odd):
        return Parsed(rows, starts, ends, {})
    mended = _one_by_one(data, starts[odd], ends[odd])
    reasons = {int(odd[row]): reason for row, reason in mended.reasons.items()}
    parts, begin = [], 0
    for number, row in enumerate(odd.tolist()):
        if row not in reasons:
            parts += [rows.slice(begin, row - begin), mended.rows.slice(number, 1)]
            begin = row + 1
    if parts:
        rows = pa.concat_tables([*parts, rows.slice(begin)])
    return Parsed(rows, starts, ends, reasons)


def _value(line: bytes) -> Any:
    """
    Raises:
        ValueError: it is not JSON; the reason.
    """
    if len(line) > LONGEST_LINE:
        raise ValueError("the line is too long")
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} (column {error.colno})") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise ValueError(f"it is not JSON: {error}") from None


def _one_by_one(data: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Parsed:
    rows: list[dict[str, str | None]] = []
    reasons: dict[int, str] = {}
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        texts: dict[str, str | None] = {}
        try:
            value = _value(data[start:end])
            if isinstance(value, dict):
                texts = {name: _text(value.get(name)) for name in COLUMNS}
            else:
                reasons[row] = "it is not a JSON object"
        except ValueError as error:
            reasons[row] = str(error)
        rows.append(texts)
    return Parsed(pa.Table.from_pylist(rows, schema=_SCHEMA), starts, ends, reasons)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode()
