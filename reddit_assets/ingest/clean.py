"""Columns of text to messages: types, ids, the subreddit's place; and what is wrong with the rest.

A message is *written* if it becomes a row of a chain file; others are thread structure: they are
known to threads, and have no text.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from reddit_assets.ingest.filters import Filters
from reddit_assets.ingest.ids import numbers
from reddit_assets.ingest.parse import Parsed

__all__ = ["MESSAGES", "clean"]

MESSAGES = pa.schema(
    [
        ("place", pa.string()),  # <shard>/<subreddit>
        ("thread", pa.int64()),  # the submission's id as a number
        ("kind", pa.int8()),  # 0 a submission, 1 a comment
        ("created", pa.int64()),
        ("num", pa.int64()),  # its own id as a number
        ("parent", pa.int64()),  # of a comment: the parent comment, -1 the submission, -2 none
        ("retrieved", pa.int64()),
        ("line", pa.int64()),  # where it begins in the dump
        ("written", pa.bool_()),
        ("id", pa.string()),
        ("parent_id", pa.string()),
        ("link_id", pa.string()),
        ("body", pa.string()),
        ("title", pa.string()),
        ("selftext", pa.string()),
        ("author", pa.string()),
        ("permalink", pa.string()),
        ("ups", pa.int64()),
        ("downs", pa.int64()),
    ]
)

# What can be a folder: Reddit's own names have letters, digits, _ - and once had . and :
_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_\-]*(\.[A-Za-z0-9_\-]+)*$"
_LONGEST_NAME = 100
_FROM_PERMALINK = r"^/r/(?P<name>[^/]+)/comments/"
_LARGEST = 2.0**62


def clean(
    parsed: Parsed, offset: int, filters: Filters, counts: Counter[str]
) -> tuple[pa.Table, dict[int, str]]:
    """The messages of a block, and why other rows are none.

    Args:
        offset: of the block in the dump.
        counts: how many rows each filter took away are added here.

    Returns:
        A table of :data:`MESSAGES`, and reasons by the row's number in ``parsed``.
    """
    rows = parsed.rows.combine_chunks()
    column = {name: _array(rows, name) for name in rows.column_names}
    size = rows.num_rows
    reasons = dict(parsed.reasons)
    bad = np.zeros(size, bool)
    bad[list(reasons)] = True

    def refuse(wrong: NDArray[np.bool_], reason: str) -> None:
        found = wrong & ~bad
        reasons.update(dict.fromkeys(np.flatnonzero(found).tolist(), reason))
        bad[:] |= found

    comment = _is_comment(column)
    submission = ~comment & _valid(column["title"])
    submission |= ~comment & _starts(column["name"], "t3_")
    refuse(~comment & ~submission, "it is neither a comment nor a submission")
    named = pc.utf8_slice_codeunits(column["name"], 3)
    ids = pc.coalesce(column["id"], named)
    num = numbers(ids)
    refuse(num < 0, "it has no id in base 36")
    thread = np.where(comment, numbers(column["link_id"], "t3_"), num)
    refuse(thread < 0, "it has no link_id")
    name = _subreddit(column)
    refuse(~_valid(name), "it has no subreddit")
    refuse(~_matches(name), "its subreddit's name cannot be a folder")
    created, valid = _integers(column["created_utc"])
    refuse(~valid, "it has no created_utc")

    shard = pc.utf8_lower(pc.utf8_slice_codeunits(name, 0, 2))
    place = pc.binary_join_element_wise(shard, name, "/")
    keep = ~bad

    def drop(unwanted: NDArray[np.bool_], why: str) -> None:
        found = unwanted & keep
        if found.any():
            counts[why] += int(found.sum())
            keep[:] &= ~found

    drop(~filters.wanted_places(pc.fill_null(place, "")), "other subreddits")
    drop((created < filters.since) | (created >= filters.until), "other dates")
    removed = filters.without_text(column["body"], column["selftext"])
    if filters.removed == "drop":
        drop(removed, "removed or deleted, dropped")
    written = keep.copy()

    def only_structure(unwanted: NDArray[np.bool_], why: str) -> None:
        found = unwanted & written
        if found.any():
            counts[f"{why}, structure only"] += int(found.sum())
            written[:] &= ~found

    score, scored = _integers(pc.coalesce(column["score"], column["ups"]))
    if filters.removed == "structure":
        only_structure(removed, "removed or deleted")
    if filters.min_score is not None:
        only_structure(scored & (score < filters.min_score), "low score")
    if filters.min_length:
        only_structure(_length(column) < filters.min_length, "short")
    only_structure(filters.by_bots(column["author"]), "bots")

    ups, upped = _integers(pc.coalesce(column["ups"], column["score"]))
    downs, downed = _integers(column["downs"])
    text_mask = pa.array(~written)

    def text(name: str) -> pa.Array:
        return pc.if_else(text_mask, pa.scalar(None, pa.string()), column[name])

    table = pa.table(
        [
            place,
            thread,
            comment.astype(np.int8),
            created,
            num,
            _parents(column["parent_id"], comment, thread),
            _retrieved(column),
            parsed.starts + offset,
            written,
            ids,
            pc.if_else(pa.array(comment), column["parent_id"], None),
            pc.if_else(pa.array(comment), column["link_id"], None),
            text("body"),
            text("title"),
            text("selftext"),
            column["author"],
            text("permalink"),
            pa.array(ups, mask=~upped),
            pa.array(downs, mask=~downed),
        ],
        schema=MESSAGES,
    )
    return (table if keep.all() else table.filter(pa.array(keep))), reasons


def _array(rows: pa.Table, name: str) -> pa.Array:
    chunks = rows[name].chunks
    return (
        chunks[0]
        if len(chunks) == 1
        else pa.concat_arrays(chunks)
        if chunks
        else pa.array([], pa.string())
    )


def _valid(array: pa.Array) -> NDArray[np.bool_]:
    return pc.is_valid(array).to_numpy(zero_copy_only=False)


def _starts(array: pa.Array, prefix: str) -> NDArray[np.bool_]:
    return pc.fill_null(pc.starts_with(array, prefix), False).to_numpy(zero_copy_only=False)


def _matches(name: pa.Array) -> NDArray[np.bool_]:
    good = pc.and_(
        pc.match_substring_regex(name, _NAME), pc.less_equal(pc.binary_length(name), _LONGEST_NAME)
    )
    return pc.fill_null(good, False).to_numpy(zero_copy_only=False)


def _is_comment(column: dict[str, pa.Array]) -> NDArray[np.bool_]:
    comment = _valid(column["link_id"]) | _valid(column["body"])
    return (comment & ~_starts(column["name"], "t3_")) | _starts(column["name"], "t1_")


def _subreddit(column: dict[str, pa.Array]) -> pa.Array:
    """The name, or else the one in the permalink."""
    name = column["subreddit"]
    if name.null_count:
        found = pc.extract_regex(column["permalink"], _FROM_PERMALINK)
        name = pc.coalesce(name, pc.struct_field(found, "name"))
    return name


def _integers(texts: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Numbers written as text, whole part; and which there are."""
    valid = _valid(texts)
    try:
        whole = texts.cast(pa.int64())
        return pc.fill_null(whole, 0).to_numpy(zero_copy_only=False), valid
    except pa.ArrowInvalid:
        pass
    values = _floats(texts)
    valid &= np.isfinite(values) & (np.abs(values) < _LARGEST)
    return np.where(valid, values, 0).astype(np.int64), valid


def _floats(texts: pa.Array) -> NDArray[np.float64]:
    """Numbers written as text; nan where there is none."""
    try:
        floats = texts.cast(pa.float64())
        return pc.fill_null(floats, np.nan).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        pass
    values = np.zeros(len(texts))
    for row, text in enumerate(texts.to_pylist()):
        try:
            value = float(text) if text is not None else np.nan
        except ValueError:
            value = np.nan
        values[row] = value
    return values


def _retrieved(column: dict[str, pa.Array]) -> NDArray[np.int64]:
    """When it was last looked at; 0 if unknown."""
    latest = np.zeros(len(column["id"]), np.int64)
    for name in ("retrieved_on", "retrieved_utc"):
        seconds, _ = _integers(column[name])
        latest = np.maximum(latest, seconds)
    meta = column["_meta"]
    if meta.null_count < len(meta):
        found = pc.extract_regex(meta, r'"retrieved_2nd_on": ?"?(?P<at>[0-9]{1,15})')
        seconds, _ = _integers(pc.struct_field(found, "at"))
        latest = np.maximum(latest, seconds)
    return latest


def _parents(
    parent_id: pa.Array, comment: NDArray[np.bool_], thread: NDArray[np.int64]
) -> NDArray[np.int64]:
    parents = np.full(len(parent_id), -2, np.int64)
    answer = numbers(parent_id, "t1_")
    parents = np.where(answer >= 0, answer, parents)
    top = numbers(parent_id, "t3_")
    parents = np.where((top >= 0) & (top == thread), -1, parents)
    return np.where(comment, parents, -2)


def _length(column: dict[str, pa.Array]) -> NDArray[np.int64]:
    parts = (column["body"], column["title"], column["selftext"])
    lengths = (
        pc.fill_null(pc.utf8_length(part), 0).to_numpy(zero_copy_only=False) for part in parts
    )
    return sum(lengths, np.zeros(len(column["id"]), np.int64))
