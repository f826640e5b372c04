"""What a summary shows of posts, read from whatever columns a dump has.

These columns are decoration: one that cannot be read is left out, with a remark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from reddit_assets.corpus.chainfile import TEXT_COLUMNS
from reddit_assets.tasks.columns import numbers, seconds, strings
from reddit_assets.tasks.inputs import Inputs

__all__ = ["ID_COLUMNS", "FilePosts"]

#: The first of these that is there says which post a row is.
ID_COLUMNS = ("id", "name", "permalink")
SCORE_COLUMNS = ("ups", "score")
DATE_COLUMNS = ("created_utc", "created")
TITLE_COLUMN = "title"


class FilePosts:
    """The posts of a subreddit's files, as :class:`~engines.clustering.meaning.Posts`.

    Attributes:
        unreadable: columns that are left out, with the reason.
    """

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self.unreadable: dict[str, str] = {}
        self._title = self._text_columns([TITLE_COLUMN])
        self._body = self._text_columns(TEXT_COLUMNS)

    def _text_columns(self, names: Sequence[str]) -> list[str]:
        found = []
        for name in names:
            if name not in self._inputs.schema.names:
                continue
            kind = self._inputs.schema.field(name).type
            if kind in (pa.large_string(), pa.large_binary()) or pa.types.is_null(kind):
                found.append(name)
            else:
                self.unreadable[name] = f"{kind} is not text"
        return found

    def texts(self, rows: NDArray[np.int64]) -> list[tuple[str, str]]:
        """As of the protocol."""
        table = self._inputs.take([*self._title, *self._body], rows)
        columns = [strings(column) for column in table.columns]
        empty = [""] * len(rows)
        titles = columns[0] if self._title else empty
        bodies = _first_said(columns[len(self._title) :] or [empty])
        return list(zip(titles, bodies, strict=True))

    def placeholders(self, words: Sequence[str]) -> NDArray[np.bool_]:
        """Which rows have no text, or one of ``words`` (in lower case) instead; bool (rows,)."""
        nothing = {"", *words}
        parts = [np.zeros(0, dtype=bool)]
        if not self._body:
            return np.zeros(self._inputs.total, dtype=bool)
        for batch in self._inputs.read(self._body):
            said = _first_said([strings(column) for column in batch.columns])
            parts.append(np.array([text.strip().casefold() in nothing for text in said], bool))
        return np.concatenate(parts)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """As of the protocol."""
        name = next((name for name in ID_COLUMNS if name in self._inputs.schema.names), None)
        if name is None:
            return [""] * len(rows)
        return strings(self._inputs.take([name], rows).column(0))

    def scores(self) -> NDArray[np.float64] | None:
        """As of the protocol."""
        return self._values(SCORE_COLUMNS, numbers, "number")

    def dates(self) -> NDArray[np.float64] | None:
        """As of the protocol."""
        return self._values(DATE_COLUMNS, seconds, "date")

    def _values(
        self,
        names: Sequence[str],
        read: Callable[[pa.Array], NDArray[np.float64] | None],
        what: str,
    ) -> NDArray[np.float64] | None:
        """The first of some columns that can be read."""
        for name in names:
            if name not in self._inputs.schema.names:
                continue
            parts: list[NDArray[np.float64]] = []
            known = 0
            for batch in self._inputs.read([name]):
                column = batch.column(0)
                values = read(column)
                if values is None:
                    break
                parts.append(values)
                known += len(column) - column.null_count
            if len(parts) == 0 and self._inputs.total:
                self.unreadable[name] = f"{self._inputs.schema.field(name).type} is not a {what}"
                continue
            found = np.concatenate(parts) if parts else np.zeros(0)
            odd = known - int(np.isfinite(found).sum())
            if odd:
                self.unreadable[name] = f"{odd:,} of {known:,} values are not {what}s"
            if np.isfinite(found).any():
                return found
        return None


def _first_said(columns: Sequence[list[str]]) -> list[str]:
    """For each row the first column that says something."""
    return [next(filter(None, said), "") for said in zip(*columns, strict=True)]
