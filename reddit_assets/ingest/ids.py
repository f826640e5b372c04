"""Reddit's ids: numbers written in base 36, with or without the prefix of their type."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["numbers"]

# 36**12 - 1 is below 2**63; ids have seven digits today.
_LONGEST = 12

_DIGITS = np.full(256, 255, np.uint8)
for _value, _sign in enumerate(b"0123456789abcdefghijklmnopqrstuvwxyz"):
    _DIGITS[_sign] = _value


def numbers(texts: pa.Array, prefix: str = "") -> NDArray[np.int64]:
    """The numbers that ids stand for; -1 where there is none: null, other letters, leading zeros.

    Args:
        texts: strings, shape ``(rows,)``.
        prefix: what each must begin with (``t3_``).
    """
    array = texts.cast(pa.large_string())
    present = pc.starts_with(array, prefix) if prefix else pc.is_valid(array)
    good = pc.fill_null(present, False).to_numpy(zero_copy_only=False)
    array = pc.fill_null(array, "")
    offsets = np.frombuffer(array.buffers()[1], np.int64)[
        array.offset : array.offset + len(array) + 1
    ]
    data = array.buffers()[2]
    signs = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(1, "u1")
    starts, ends = offsets[:-1] + len(prefix), offsets[1:]
    lengths = ends - starts
    good &= (lengths > 0) & (lengths <= _LONGEST)
    found = np.zeros(len(array), np.int64)
    first = signs[np.minimum(np.where(good, starts, 0), len(signs) - 1)]
    good &= (lengths == 1) | (first != ord("0"))
    for place in range(int(lengths[good].max()) if good.any() else 0):
        within = good & (place < lengths)
        digits = _DIGITS[signs[np.where(within, starts + place, 0)]]
        good &= ~within | (digits < 36)
        found = np.where(within, found * 36 + digits, found)
    return np.where(good, found, -1)
