"""Whether a server can hold the queue, asked once at a start: its version and its settings."""

from __future__ import annotations

import redis

from reddit_assets.errors import StartupError
from reddit_assets.ledger.base import QueueBase
from reddit_assets.ledger.connection import Client, redis_errors, shown_url

__all__ = ["FORMAT", "OLDEST", "check_format", "check_server"]

FORMAT = 1
"""Version of the queue's keys. Raise it where older workers would do harm to what newer ones write;
new fields, which older ones ignore, need no new version."""

OLDEST = (6, 2)
"""The oldest version of Redis that has all commands of the scripts (XAUTOCLAIM came with 6.2)."""


def check_server(client: Client) -> list[str]:
    """Look at the server that a client connects to; sentences about what endangers the queue.

    Only ``INFO`` and ``CLUSTER INFO`` are used, since hosted servers do not allow ``CONFIG``. Where
    the account may not use these either, nothing is said.

    Raises:
        StartupError: the server is too old, or a cluster of several nodes: a queue's keys lie on
            one of them, and the client does not follow them there.
        QueueUnavailableError: it cannot be reached.
    """
    where = shown_url(client)
    with redis_errors(client):
        try:
            facts = client.info()
            nodes = _nodes(client) if facts.get("cluster_enabled") else 1
        except redis.exceptions.NoPermissionError:
            return []
    # Valkey states the version of Redis that it is compatible with under the same name.
    version = tuple(int(part) for part in str(facts["redis_version"]).split(".")[:2])
    if version < OLDEST:
        raise StartupError(
            f"Redis at {where} has version {facts['redis_version']}, which is too old.",
            hint=f"Use Redis {'.'.join(map(str, OLDEST))} or newer, or Valkey.",
        )
    if nodes > 1:
        raise StartupError(
            f"Redis at {where} is a cluster of {nodes} nodes.",
            hint="Use a server without cluster mode: the queue needs little memory and one core.",
        )
    found = []
    policy = str(facts.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction" and facts.get("maxmemory"):
        found.append(
            f"Redis at {where} drops keys when its memory is full (maxmemory-policy {policy}), "
            "jobs among them: set it to noeviction."
        )
    if not facts.get("aof_enabled"):
        found.append(
            f"Redis at {where} has no append-only file: what was queued since its last snapshot is "
            "lost when it stops, until the next scan queues it again. Set appendonly to yes."
        )
    return found


def check_format(queue: QueueBase) -> None:
    """Mark a queue with our format if it has no mark, as those of the first version.

    Raises:
        StartupError: a newer version has written it.
        QueueUnavailableError: it cannot be reached.
    """
    name = f"{queue.prefix}format"
    with redis_errors(queue.client):
        queue.client.set(name, FORMAT, nx=True)
        found = str(queue.client.get(name))
    if not found.isdecimal() or int(found) > FORMAT:
        raise StartupError(
            f"The queue has format {found[:20]}, which this version does not know.",
            hint="Install the version of reddit-assets that the other hosts have.",
        )


def _nodes(client: Client) -> int:
    answer = client.execute_command("CLUSTER INFO")
    if isinstance(answer, dict):
        return int(answer.get("cluster_known_nodes", 1))
    lines = dict(line.split(":", 1) for line in str(answer).splitlines() if ":" in line)
    return int(lines.get("cluster_known_nodes", 1))
