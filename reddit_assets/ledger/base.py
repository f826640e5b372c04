"""What every part of a queue needs: its connection, its keys, its scripts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from reddit_assets.ledger.connection import Client, redis_errors
from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.scripts import Scripts

__all__ = ["QueueBase", "chunks"]

# Jobs per script call: long enough to spare round trips, short enough not to hold Redis.
_CHUNK = 1_000

_T = TypeVar("_T")


def chunks(items: Iterable[_T], size: int = _CHUNK) -> Iterator[list[_T]]:
    """Lists of at most ``size`` items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


class QueueBase:
    """A queue's keys and scripts.

    Args:
        client: a connection made by :func:`~reddit_assets.ledger.connection.connect`.
        kind: which queue.
    """

    def __init__(self, client: Client, kind: Kind) -> None:
        self.client = client
        self.kind = kind
        self.prefix = f"{{{kind.value}}}:"
        self._scripts = Scripts(client, kind.value)

    def run_script(self, name: str, *arguments: Any) -> Any:
        """Run a script of ``lua/`` with this queue's keys."""
        with redis_errors(self.client):
            return self._scripts(name, *arguments)
