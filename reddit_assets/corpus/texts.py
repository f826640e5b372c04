"""Which columns a row's text is made of.

Written ``body,text,title+selftext``: a row's text is the first choice that is not empty. Columns
joined by ``+`` are put together with a blank line between them; empty ones are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

__all__ = [
    "MOSTLY",
    "TEXT_COLUMNS",
    "empty_rows",
    "is_text",
    "parse_columns",
    "text_rule",
    "texts_of",
    "written",
]

TEXT_COLUMNS = ("body", "text", "selftext", "content", "message", "title")
"""The choices where nothing else is set."""
MOSTLY = 0.5
"""Above this share of empty texts, scans and checks say so."""

_JOINT = "\n\n"


@lru_cache(maxsize=256)
def parse_columns(text: str) -> tuple[tuple[str, ...], ...]:
    """The choices, each with the names of its columns; the usual ones for an empty setting."""
    choices = (
        tuple(name.strip() for name in choice.split("+") if name.strip())
        for choice in text.split(",")
    )
    return tuple(filter(None, choices)) or tuple((name,) for name in TEXT_COLUMNS)


def written(choices: Sequence[Sequence[str]]) -> str:
    """The choices as text."""
    return ",".join("+".join(names) for names in choices)


def text_rule(setting: str) -> str:
    """The setting in one spelling; empty for the usual choices, which no data version records."""
    rule = written(parse_columns(setting))
    return "" if rule == ",".join(TEXT_COLUMNS) else rule


def texts_of(batch: pa.RecordBatch, columns: str) -> pa.Array:
    """The texts of a batch as one large-string array without nulls (null means empty).

    Shape ``(rows,)``. Text of any encoding, bytes and all-null columns are taken.

    Args:
        columns: choices of columns that are all in the batch.
    """
    texts: pa.Array | None = None
    empty: pa.Array | None = None
    for names in parse_columns(columns):
        choice = _joined([_plain(batch.column(name)) for name in names])
        texts = choice if texts is None else pc.if_else(empty, choice, texts)
        empty = empty_rows(texts)
        if not pc.any(empty).as_py():
            break
    assert texts is not None
    return texts


def empty_rows(texts: pa.Array) -> pa.Array:
    """Which texts hold nothing but white space; bool (rows,)."""
    return pc.equal(pc.binary_length(pc.ascii_trim_whitespace(texts)), 0)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type can be read as text."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_null(kind)
    )


def _plain(array: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_string_view(array.type) or pa.types.is_binary_view(array.type):
        array = array.cast(pa.large_binary(), safe=False)
    # safe=False: nobody promised UTF-8, and the tokenizer repairs it.
    array = array.cast(pa.large_string(), safe=False)
    return pc.fill_null(array, "") if array.null_count else array


def _joined(parts: Sequence[pa.Array]) -> pa.Array:
    texts = parts[0]
    for part in parts[1:]:
        both = pc.binary_join_element_wise(texts, part, pa.scalar(_JOINT, pa.large_string()))
        texts = pc.if_else(empty_rows(texts), part, pc.if_else(empty_rows(part), texts, both))
    return texts
