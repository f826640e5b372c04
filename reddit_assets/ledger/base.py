"""What every part of a queue needs: its connection, its keys, its scripts."""

from __future__ import annotations

from typing import Any

from reddit_assets.ledger.connection import Client, redis_errors
from reddit_assets.ledger.intake import PUBLIC_LISTS
from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.scripts import Scripts

__all__ = ["QueueBase"]


class QueueBase:
    """A queue's keys and scripts.

    Args:
        client: a connection made by :func:`~reddit_assets.ledger.connection.connect`.
        kind: which queue.

    Attributes:
        public: the list that plain consumers read.
        prefix: what all other keys of the queue begin with.
    """

    def __init__(self, client: Client, kind: Kind) -> None:
        self.client = client
        self.kind = kind
        self.public = PUBLIC_LISTS[kind]
        self.prefix = f"{{{self.public}}}:"
        self._scripts = Scripts(client, self.prefix, self.public)

    def run_script(self, name: str, *arguments: Any) -> Any:
        """Run a script of ``lua/`` with this queue's keys."""
        with redis_errors(self.client):
            return self._scripts(name, *arguments)
