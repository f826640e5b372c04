"""What a summary shows of posts, read from whatever columns a dump has.

These columns are decoration: one that cannot be read is left out, with a remark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from reddit_assets.corpus.provenance import EmbeddingProvenance, OutputFile
from reddit_assets.corpus.texts import is_text, parse_columns, written
from reddit_assets.tasks.columns import numbers, seconds, strings
from reddit_assets.tasks.inputs import Inputs

__all__ = ["ID_COLUMNS", "FilePosts", "columns_of_texts"]

#: The first of these that is there says which post a row is.
ID_COLUMNS = ("id", "name", "permalink")
SCORE_COLUMNS = ("ups", "score")
DATE_COLUMNS = ("created_utc", "created")
TITLE_COLUMN = "title"
LINK_COLUMN, REDDIT = "permalink", "https://www.reddit.com"


class FilePosts:
    """The posts of a subreddit's files, as :class:`~engines.clustering.meaning.Posts`.

    Args:
        inputs: the files.
        text_columns: what their texts are of, as :func:`columns_of_texts` says.

    Attributes:
        unreadable: columns that are left out, with the reason.
    """

    def __init__(self, inputs: Inputs, text_columns: str = "") -> None:
        self._inputs = inputs
        self.unreadable: dict[str, str] = {}
        self._title = self._text_columns([TITLE_COLUMN])
        choices = (self._text_columns(names) for names in parse_columns(text_columns))
        self._text = [names for names in choices if names]

    def _text_columns(self, names: Sequence[str]) -> list[str]:
        found = []
        for name in names:
            if name not in self._inputs.schema.names:
                continue
            kind = self._inputs.schema.field(name).type
            if is_text(kind):
                found.append(name)
            else:
                self.unreadable[name] = f"{kind} is not text"
        return found

    def texts(
        self, rows: NDArray[np.int64], characters: int | None = None
    ) -> list[tuple[str, str]]:
        """As of the protocol."""
        bodies = [[n for n in names if n not in self._title] for names in self._text]
        bodies = [names for names in bodies if names]
        names = dict.fromkeys([*self._title, *(name for choice in bodies for name in choice)])
        table = self._inputs.take(list(names), rows, characters)
        columns = {name: strings(table.column(name)) for name in names}
        titles = columns[TITLE_COLUMN] if self._title else [""] * len(rows)
        return list(zip(titles, _said(columns, bodies, len(rows)), strict=True))

    def placeholders(self, words: Sequence[str]) -> NDArray[np.bool_]:
        """Which rows have no text, or one of ``words`` (in lower case) instead; bool (rows,)."""
        nothing = {"", *words}
        parts = [np.zeros(0, dtype=bool)]
        if not self._text:
            return np.zeros(self._inputs.total, dtype=bool)
        names = list(dict.fromkeys(name for choice in self._text for name in choice))
        for batch in self._inputs.read(names):
            columns = {name: strings(batch.column(name)) for name in names}
            said = _said(columns, self._text, batch.num_rows)
            parts.append(np.array([text.strip().casefold() in nothing for text in said], bool))
        return np.concatenate(parts)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """As of the protocol."""
        name = next((name for name in ID_COLUMNS if name in self._inputs.schema.names), None)
        if name is None:
            return [""] * len(rows)
        return strings(self._inputs.take([name], rows).column(0))

    def links(self, rows: NDArray[np.int64]) -> list[str]:
        """Where some rows can be read as posts: http addresses; empty where there is none."""
        if LINK_COLUMN not in self._inputs.schema.names:
            return [""] * len(rows)
        found = strings(self._inputs.take([LINK_COLUMN], rows).column(0))
        whole = (f"{REDDIT}{one}" if one.startswith("/r/") else one for one in found)
        return [one if one.startswith(("http://", "https://")) else "" for one in whole]

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


def _said(
    columns: Mapping[str, list[str]], choices: Sequence[Sequence[str]], rows: int
) -> list[str]:
    """For each row the first choice that says something, as :func:`corpus.texts.texts_of` does."""
    said = [""] * rows
    for names in choices:
        parts = zip(*(columns[name] for name in names), strict=True)
        joined = ("\n\n".join(part for part in one if part.strip()) for one in parts)
        said = [before if before.strip() else now for before, now in zip(said, joined, strict=True)]
    return said


def columns_of_texts(files: Sequence[OutputFile]) -> str:
    """What the texts of embedding files are of, as their provenance says: for all, one order."""
    rule, found = "", {}
    for file in files:
        made = file.provenance
        column = ""
        if isinstance(made, EmbeddingProvenance):
            rule, column = made.text_columns or rule, made.text_column
        found.update(dict.fromkeys(parse_columns(column)))
    order = [name for names in parse_columns(rule) for name in names]
    return written(sorted(found, key=lambda names: min(map(_place(order), names))))


def _place(order: Sequence[str]) -> Callable[[str], int]:
    return lambda name: order.index(name) if name in order else len(order)
