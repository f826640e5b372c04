"""Hypothesis strategies: chain files of any column types, encodings, nulls, bytes and names."""

from __future__ import annotations

import datetime
import decimal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from reddit_assets.corpus.output import holds_dictionary

__all__ = ["ChainFileCase", "chain_files"]

WORDS = ["bread", "steak", "knife", "soup", "cake", "a b c", "é日本\u202e", "x" * 300, "\0\x07"]
TEXTS = [*WORDS, *(f"How about {a} and {b}?" for a in WORDS[:5] for b in WORDS[:5])]
ODD_TEXTS = [None, "", "  ", "[deleted]", "[removed]"]
DAY = datetime.datetime(2021, 3, 4, 5, 6, 7)
BYTES = [b"text", b"\xff\xfe broken", b"\xed\xa0\x80", b"", None]

# Values are chosen by hand: what is odd about a type, and what is usual.
VALUES: list[tuple[pa.DataType, list[Any]]] = [
    (pa.string(), [*ODD_TEXTS, "2021-03-04", "12", "1.5e3"]),
    (pa.large_string(), [None, "a", "b"]),
    (pa.string_view(), [None, "a", "a view longer than twelve bytes"]),
    (pa.binary(), BYTES),
    (pa.large_binary(), BYTES),
    (pa.binary_view(), BYTES),
    (pa.binary(16), [None, b"\0" * 16, b"\xff" * 16]),
    (pa.null(), [None]),
    (pa.bool_(), [True, False, None]),
    *((kind, [0, 1, 127, None]) for kind in (pa.int8(), pa.uint8(), pa.int16(), pa.int32())),
    (pa.int64(), [0, -1, 2**63 - 1, -(2**63), 1_600_000_000, 1_600_000_000_000_000_000, None]),
    (pa.uint64(), [0, 2**64 - 1, 1_600_000_000_000, None]),
    (pa.float16(), [0.0, 1.5, None]),
    (pa.float32(), [0.0, 1.5, float("nan"), None]),
    (pa.float64(), [0.0, 1.6e9, float("nan"), float("inf"), -1e300, None]),
    (pa.decimal128(20, 3), [decimal.Decimal("1600000000.125"), decimal.Decimal(0), None]),
    (pa.decimal256(60, 0), [decimal.Decimal(10) ** 50, None]),
    (pa.date32(), [DAY.date(), datetime.date(1, 1, 1), datetime.date(9999, 12, 31), None]),
    (pa.date64(), [DAY.date(), None]),
    (pa.time32("ms"), [datetime.time(1, 2, 3), None]),
    (pa.time64("ns"), [datetime.time(1, 2, 3), None]),
    (pa.duration("us"), [datetime.timedelta(days=3), None]),
    *((pa.timestamp(unit), [DAY, None]) for unit in ("s", "ms", "us", "ns")),
    *((pa.timestamp("us", zone), [DAY, None]) for zone in ("UTC", "Europe/Berlin", "+02:00")),
    (pa.timestamp("ms"), [2**62, -(2**61), 0, None]),
    (pa.list_(pa.string()), [["a", None], [], None]),
    (pa.large_list(pa.int32()), [[1, None], [], None]),
    (pa.list_(pa.struct([("a", pa.int8()), ("b", pa.binary())])), [[{"a": 1, "b": b"x"}], None]),
    (pa.list_(pa.float32(), 2), [[1.0, 2.0], None]),
    (pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]), [{"a": 1, "b": ["x"]}, None]),
    (pa.map_(pa.string(), pa.int32()), [[("k", 1)], [], None]),
    (pa.dictionary(pa.int32(), pa.string()), ["a", "b", None]),
    (pa.dictionary(pa.int8(), pa.large_string()), ["a", "b", None]),
    (pa.dictionary(pa.int16(), pa.int64()), [1, 2, None]),
    (pa.struct([("d", pa.dictionary(pa.int32(), pa.string()))]), ["a", "b", "c", None]),
    (pa.list_(pa.dictionary(pa.int8(), pa.string())), ["a", "b", "c", None]),
    (pa.uuid(), [b"\0" * 15 + b"\1", None]),
]
TEXT_TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.dictionary(pa.int32(), pa.string()),
]
TEXT_NAMES = ["body", "text", "selftext", "content", "message", "title"]
NAMES = [
    *("id", "name", "permalink", "ups", "score", "created_utc", "created", "author", "subreddit"),
    *("x", "y", "cluster_id", "cluster_probability", "outlier_score", "theme_id", "x_input"),
    *("emb_", "emb_x", "emb_000", "emb_0000001", "EMB_001", "__index_level_0__", "a.b", "a|b"),
    *("", " ", "é", "![x](http://example.invalid/y.png)", "<img>", "n" * 200, "new\nline"),
]
CODECS = ["none", "snappy", "zstd", "gzip", "lz4", "brotli"]


@dataclass(frozen=True)
class ChainFileCase:
    """A chain file to be written.

    Attributes:
        table: its rows.
        options: of ``pyarrow.parquet.write_table``.
    """

    table: pa.Table
    options: dict[str, Any]

    def write(self, path: Path) -> None:
        """Write it; its folder is made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(self.table, path, **self.options)


@st.composite
def _text(draw: st.DrawFn, rows: int) -> pa.Array:
    """A text column: usual texts with copies, placeholders, nulls and bytes that are no UTF-8."""
    kind = draw(st.sampled_from(TEXT_TYPES))
    pool = draw(st.lists(st.sampled_from(TEXTS + ODD_TEXTS), min_size=1, max_size=12))
    values = draw(st.lists(st.sampled_from(pool), min_size=rows, max_size=rows))
    if pa.types.is_dictionary(kind):
        return _dictionaries(values, kind)
    raw: list[bytes | None] = [None if v is None else v.encode() for v in values]
    if rows and draw(st.booleans()):
        raw[draw(st.integers(0, rows - 1))] = b"\xff broken \xed\xa0\x80"
    if pa.types.is_string_view(kind):
        return pa.array(values, kind)
    binary = pa.large_binary() if kind in (pa.large_string(), pa.large_binary()) else pa.binary()
    return pa.array(raw, binary).view(kind)


def _dictionaries(values: list[Any], kind: pa.DictionaryType) -> pa.ChunkedArray:
    """Two chunks, each with its own dictionary."""
    half = len(values) // 2
    parts = [pa.array(part, kind.value_type) for part in (values[:half], values[half:])]
    return pa.chunked_array(
        [
            pa.DictionaryArray.from_arrays(
                part.dictionary_encode().indices.cast(kind.index_type),
                part.dictionary_encode().dictionary,
            )
            for part in parts
        ],
        kind,
    )


@st.composite
def _column(draw: st.DrawFn, rows: int) -> pa.Array:
    kind, pool = draw(st.sampled_from(VALUES))
    values = draw(st.lists(st.sampled_from(pool), min_size=rows, max_size=rows))
    if pa.types.is_dictionary(kind):
        return _dictionaries(values, kind)
    if holds_dictionary(kind):
        inner = kind.field(0).type
        found = _dictionaries(values, inner).combine_chunks()
        if pa.types.is_struct(kind):
            return pa.StructArray.from_arrays([found], ["d"])
        return pa.ListArray.from_arrays(pa.array(range(rows + 1), pa.int32()), found)
    if isinstance(kind, pa.UuidType):
        return pa.array(values, pa.binary(16)).cast(kind)
    return pa.array(values, kind)


@st.composite
def chain_files(draw: st.DrawFn) -> ChainFileCase:
    """A chain file, mostly with a text column."""
    rows = draw(st.sampled_from([0, 1, 2, 7, 40, 120]))
    columns: dict[str, pa.Array] = {}
    for name in draw(st.lists(st.sampled_from(TEXT_NAMES), max_size=3, unique=True)) or ["body"]:
        columns[name] = draw(_text(rows))
    for name in draw(st.lists(st.sampled_from(NAMES + TEXT_NAMES), max_size=5, unique=True)):
        columns.setdefault(name, draw(_column(rows)))
    order = draw(st.permutations(list(columns)))
    options: dict[str, Any] = {
        "compression": draw(st.sampled_from(CODECS)),
        "use_dictionary": draw(st.booleans()),
        "data_page_version": draw(st.sampled_from(["1.0", "2.0"])),
        "row_group_size": draw(st.sampled_from([1, 3, 50, 1000])) if rows else None,
        "store_schema": draw(st.booleans()),
        "write_statistics": draw(st.booleans()),
        "write_page_index": draw(st.booleans()),
    }
    return ChainFileCase(pa.table({name: columns[name] for name in order}), options)
