"""What Dagster shows of a result: the same names, in the same order, whichever way it is reported.

The values are plain JSON, which is all that the webserver's endpoint takes; ``events`` gives them
Dagster's types.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from reddit_assets.ledger.job import Result

__all__ = ["PICTURE", "chain_metadata", "described", "fenced", "plain", "result_metadata"]

PICTURE = "picture"
"""Base64 text of a PNG. Only an instance can show it; over REST it would be a page of letters."""

# What people look for comes first; the rest follows in the worker's order.
_FIRST = ("rows", "clusters", "noise_share", "map_png", "map", "top_clusters", "path")


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
    """Names and values as they are shown. ``None`` and what is empty are left out."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys((*_FIRST, *metadata)):
        value = metadata.get(name)
        if value is not None and value not in ("", [], {}):
            found[PICTURE if name == "map_png" else name] = value
    if isinstance(found.get("rows"), int):
        found["dagster/row_count"] = found["rows"]
    return found


def result_metadata(result: Result) -> dict[str, Any]:
    """What is shown of an output."""
    return described({**result.metadata, "job_id": result.job, "outcome": result.outcome})


def chain_metadata(result: Result) -> dict[str, Any]:
    """What is shown of the chain file that an embedding file was made of."""
    return described({"rows": result.metadata.get("rows"), "seen_by": "worker"})
