"""Arrow columns of any type as one common type, as text, as numbers and as dates.

What a file calls ``created_utc`` may be a timestamp in any unit, a date, a number of seconds or of
nanoseconds, or a text. Nothing here fails for a value: what cannot be understood is null or NaN.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["common_type", "fit", "numbers", "plain_type", "seconds", "strings", "to_text"]

_UNITS = ("s", "ms", "us", "ns")
#: A number is of seconds up to this (the year 5138), of milliseconds up to a thousandfold, ….
_MOST_SECONDS = 1e11
_FIRST, _LAST = -62_135_596_800.0, 253_402_300_799.0
"""Seconds of the first and the last moment that a date can hold, the years 1 and 9999."""


def plain_type(kind: pa.DataType) -> pa.DataType:
    """A type as it is written: text in all its forms is one type, a dictionary its values'."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary(kind) or pa.types.is_binary_view(kind):
        return pa.large_binary()
    return kind


def common_type(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """The type that holds values of both plain types; ``None`` where only text does."""
    if left == right or pa.types.is_null(right):
        return left
    if pa.types.is_null(left):
        return right
    if pa.types.is_timestamp(left) and pa.types.is_timestamp(right):
        unit = max(left.unit, right.unit, key=_UNITS.index)
        # Without a zone, dumps are in UTC.
        return pa.timestamp(unit, left.tz if left.tz == right.tz else "UTC")
    if {left, right} == {pa.large_string(), pa.large_binary()}:
        return None
    left, right = (pa.int8() if pa.types.is_boolean(kind) else kind for kind in (left, right))
    schemas = [pa.schema([("value", kind)]) for kind in (left, right)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def fit(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The array in a type of :func:`common_type`, or as text.

    Raises:
        pa.ArrowException: a value does not fit.
    """
    if array.type == kind:
        return array
    if kind == pa.large_string():
        return to_text(array)
    if pa.types.is_boolean(array.type) and not pa.types.is_integer(kind):
        array = array.cast(pa.int8())
    return array.cast(kind)


def to_text(array: pa.Array) -> pa.Array:
    """Any array as ``large_string``, nulls kept; nested values as JSON, bytes as text."""
    array = _decoded(array)
    kind = array.type
    if plain_type(kind) == pa.large_string():
        # safe=False: the bytes were never checked to be UTF-8, and need not be.
        return array.cast(pa.large_string(), safe=False)
    if pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        try:
            return array.cast(pa.large_string())
        except pa.ArrowException:
            pass  # A time zone that this host does not know, for one.
    return pa.array([_said(value) for value in array], pa.large_string())


def _said(value: pa.Scalar) -> str | None:
    if not value.is_valid:
        return None
    try:
        plain = value.as_py()
    except (ValueError, OverflowError):  # A moment that Python's datetime cannot hold.
        return str(value)
    if isinstance(plain, bytes):
        return plain.decode("utf-8", "replace")
    if isinstance(plain, dict | list):
        return json.dumps(plain, ensure_ascii=False, default=str)
    return str(plain)


def strings(array: pa.Array) -> list[str]:
    """Any array as Python strings; null is empty, bytes that are not UTF-8 become U+FFFD."""
    text = to_text(array)
    try:
        return [value or "" for value in text.to_pylist()]
    except UnicodeDecodeError:
        raw = text.cast(pa.large_binary()).to_pylist()
        return [(value or b"").decode("utf-8", "replace") for value in raw]


def numbers(array: pa.Array) -> NDArray[np.float64] | None:
    """Numbers of any type, and text that holds numbers; NaN where there is none.

    Returns:
        float64 (n,), or ``None`` for a type that holds no numbers.
    """
    array = _decoded(array)
    kind = array.type
    if plain_type(kind) in (pa.large_string(), pa.large_binary()):
        return np.array([_number(text) for text in strings(array)], dtype=np.float64)
    if pa.types.is_null(kind):
        return np.full(len(array), np.nan)
    if pa.types.is_boolean(kind) or not (_is_number(kind)):
        return None
    return np.asarray(
        array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64
    )


def seconds(array: pa.Array) -> NDArray[np.float64] | None:
    """Moments of any type as seconds since 1970, NaN where there is none that a date can hold.

    Takes timestamps and dates, numbers of seconds, milli-, micro- or nanoseconds (by their size),
    and text that is such a number or an ISO date.

    Returns:
        float64 (n,), or ``None`` for a type that holds no dates.
    """
    array = _decoded(array)
    kind = array.type
    if pa.types.is_timestamp(kind):
        found = _floats(array.cast(pa.int64())) / 1000.0 ** _UNITS.index(kind.unit)
    elif pa.types.is_date32(kind):
        found = _floats(array.cast(pa.int32())) * 86_400.0
    elif pa.types.is_date64(kind):
        found = _floats(array.cast(pa.int64())) / 1000.0
    elif plain_type(kind) in (pa.large_string(), pa.large_binary()):
        found = np.array([_moment(text) for text in strings(array)], dtype=np.float64)
    else:
        values = numbers(array)
        if values is None:
            return None
        found = _in_seconds(values)
    with np.errstate(invalid="ignore"):
        return np.where((found >= _FIRST) & (found <= _LAST), found, np.nan)


def _decoded(array: pa.Array) -> pa.Array:
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _floats(array: pa.Array) -> NDArray[np.float64]:
    filled = pc.cast(array, pa.float64(), safe=False)
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.float64)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _in_seconds(values: NDArray[np.float64]) -> NDArray[np.float64]:
    result = values.copy()
    for _ in _UNITS[1:]:
        with np.errstate(invalid="ignore"):
            result[np.abs(result) > _MOST_SECONDS] /= 1000.0
    return result


def _moment(text: str) -> float:
    number = _number(text)
    if not math.isnan(number):
        return float(_in_seconds(np.array([number]))[0])
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, OSError, ValueError):
        return math.nan
