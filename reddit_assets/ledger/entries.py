"""Entries of the result streams: one that is not a result is set aside, so it blocks nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from reddit_assets.errors import BadJobError, printable
from reddit_assets.ledger.base import QueueBase
from reddit_assets.ledger.connection import redis_errors
from reddit_assets.ledger.job import Result

__all__ = ["Item", "read_results", "set_aside"]

log = logging.getLogger(__name__)

Item: TypeAlias = tuple[str, dict[str, str]]
"""An entry's id and fields."""

_KEPT = 1_000


def read_results(
    queue: QueueBase, stream: str, items: Iterable[Item], *, group: str = "-"
) -> Iterator[tuple[str, Result, dict[str, str]]]:
    """The results among a stream's entries; the others are moved to the stream ``rejected``.

    Args:
        group: the consumer group that has taken the entries.
    """
    for entry, fields in items:
        try:
            if "r" not in fields:
                raise BadJobError("The entry has no field r.")
            result = Result.from_json(fields["r"], queue.kind.asset)
        except BadJobError as error:
            set_aside(queue, stream, entry, fields, str(error), group)
        else:
            yield entry, result, fields


def set_aside(
    queue: QueueBase, stream: str, entry: str, fields: dict[str, str], why: str, group: str
) -> None:
    """Move an entry to the stream ``rejected``, and say why."""
    log.warning("%s: entry %s is set aside. %s", stream, entry, why)
    shown = {"stream": stream, "entry": entry, "why": printable(why), "fields": str(fields)[:2000]}
    with redis_errors(queue.client):
        pipeline = queue.client.pipeline(transaction=False)
        pipeline.xadd(f"{queue.prefix}rejected", shown, maxlen=_KEPT)
        pipeline.xdel(stream, entry)
        pipeline.xack(stream, group, entry)
        pipeline.execute()
