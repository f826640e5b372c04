"""What Dagster shows of a result: the same names, in the same order, whichever way it is reported.

The values are plain JSON, which is all that the webserver's endpoint takes; ``events`` gives them
Dagster's types.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from reddit_assets.ledger.job import Result

__all__ = [
    "NEWS",
    "PICTURE",
    "TABLE",
    "as_text",
    "chain_metadata",
    "described",
    "fenced",
    "plain",
    "result_metadata",
    "three_digits",
]

PICTURE = "picture"
"""Base64 text of a PNG, or its address. Over REST the former would be a page of letters."""

TABLE = "largest clusters"
NEWS = "news"
"""What is new of clusters since the time before."""

# What people look for comes first; the rest follows in the worker's order.
_FIRST = (
    *("map", PICTURE, "rows", "clusters", "noise, %", NEWS, TABLE, "tokens", "rows/s", "seconds"),
    *("size, MB", "files", "model", "backend", "device", "precision", "host"),
)
_LAST = ("path", "job_id", "outcome")

# The worker's names that do not become words by themselves.
_NAMES = {
    "map_png": PICTURE,
    "picture_url": PICTURE,
    "top_clusters": TABLE,
    "rows_per_second": "rows/s",
    "bytes": "size, MB",
    "job_id": "job_id",  # what has been reported is recognized by it
}


# What begins a link, an image, a tag, code or a table. Names stay readable without more.
_MARKUP = re.compile(r"[\\`\[\]!<>|]")


def plain(text: str) -> str:
    """The text for where Dagster reads Markdown: names in files decide no markup."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def fenced(text: str) -> str:
    """The text as a block of code in Markdown, whatever it holds."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def described(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Names and values as people read them. ``None`` and what is empty are left out.

    Names have their unit: ``noise, %``, ``size, MB``. Numbers have three digits, lists and
    records become text, except for lists of records, which become tables.
    """
    found: dict[str, Any] = {}
    for name, value in metadata.items():
        if value is None or value in ("", [], {}):
            continue
        share = name.endswith("_share") or name == "empty_texts"
        words = name.removesuffix("_share").replace("_", " ") + (", %" if share else "")
        shown = _NAMES.get(name, words)
        if shown in found:
            continue  # a picture's address comes before the picture itself
        scale = 100 if share else 1e-6 if name == "bytes" else 1
        found[shown] = _value(value * scale if scale != 1 else value)
    order = [name for name in (*_FIRST, *found) if name not in _LAST]
    found = {name: found[name] for name in dict.fromkeys((*order, *_LAST)) if name in found}
    if isinstance(found.get("rows"), int):
        found["dagster/row_count"] = found["rows"]
    return found


def _value(value: Any) -> Any:
    if isinstance(value, float):
        return three_digits(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_value(each)}" for name, each in value.items())
    if isinstance(value, list | tuple) and not all(isinstance(each, Mapping) for each in value):
        return "; ".join(str(_value(each)) for each in value)
    return value


def three_digits(value: float) -> float:
    """A number as exact as people read it; from a hundred on it is whole."""
    rounded = float(f"{value:.3g}")
    return int(rounded) if 100 <= abs(value) < 1e15 else rounded


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table where there are only lines: the first two columns of each row, for REST."""
    pairs = ([str(value) for value in list(row.values())[1:3]] for row in rows)
    return "; ".join(f"{pair[0]} ({pair[1]})" if len(pair) > 1 else pair[0] for pair in pairs)


def result_metadata(result: Result) -> dict[str, Any]:
    """What is shown of an output."""
    return described({**result.metadata, "job_id": result.job, "outcome": result.outcome})


def chain_metadata(result: Result) -> dict[str, Any]:
    """What is known of the chain file that an embedding file was made of, to be described."""
    return {"rows": result.metadata.get("rows"), "seen_by": "worker"}
