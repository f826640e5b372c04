"""A message's text with its ancestors' before it, within a budget of tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["with_ancestors"]

_WORD = re.compile(r"[^\W_]+|[^\w\s]|_")
_JOINT = "\n\n"


def with_ancestors(
    bodies: Sequence[str | None], above: NDArray[np.int64], tokens: int
) -> list[str]:
    """Each message behind as much of its ancestors as fits; the nearest are the last to go.

    The oldest ancestor that does not fit whole gives its end.

    Args:
        bodies: the texts.
        above: place of each one's parent, -1 of a root.
        tokens: the budget of a text, special tokens included.
    """
    counts: dict[int, int] = {}

    def size(row: int) -> int:
        if row not in counts:
            counts[row] = _tokens(bodies[row] or "")
        return counts[row]

    texts = []
    for row in range(len(bodies)):
        parts = [bodies[row] or ""]
        left = tokens - 2 - size(row)
        parent = int(above[row])
        while parent >= 0 and left > 0:
            text = bodies[parent] or ""
            if text:
                if size(parent) > left:
                    parts.append(_end(text, left))
                    break
                parts.append(text)
                left -= size(parent)
            parent = int(above[parent])
        texts.append(_JOINT.join(part for part in reversed(parts) if part))
    return texts


def _tokens(text: str) -> int:
    """A word is a token for every four and a half letters: more than models make of English."""
    return sum(1 + (len(word) - 1) * 2 // 9 for word in _WORD.findall(text))


def _end(text: str, tokens: int) -> str:
    """The end of a text, from a word's beginning."""
    for match in reversed(list(_WORD.finditer(text))):
        tokens -= 1 + (len(match.group()) - 1) * 2 // 9
        if tokens < 0:
            return text[match.end() :].strip()
    return text
