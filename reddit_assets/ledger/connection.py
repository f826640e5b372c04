"""The connection to Redis, and its errors as sentences without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from reddit_assets.errors import (
    QueueFullError,
    QueueUnavailableError,
    RedditAssetsError,
    SettingsError,
    first_line,
)
from reddit_assets.settings import Settings

__all__ = ["Client", "connect", "redis_errors", "shown_url"]

# A redis.Redis with decode_responses: redis-py's annotations do not distinguish text from bytes.
Client: TypeAlias = Any

# Longer than any blocking read of ours (ledger.waiters), shorter than a user's patience.
_SOCKET_SECONDS = 15.0


def shown_url(client: Client) -> str:
    """Where the client connects to, without user and password."""
    options = client.connection_pool.connection_kwargs
    if "path" in options:
        return f"unix://{options['path']}"
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"


def connect(settings: Settings) -> Client:
    """A client for the queue; connects at the first command.

    Certificates of ``rediss://`` servers are checked, against ``REDDIT_REDIS_CA_FILE`` if set.

    Raises:
        SettingsError: REDIS_URL is missing or is not a Redis URL.
    """
    url = settings.require_redis_url()
    options: dict[str, object] = {}
    if url.startswith("rediss://") and settings.redis_ca_file is not None:
        options["ssl_ca_certs"] = str(settings.redis_ca_file)
    if not url.startswith("unix"):  # redis-py refuses the word itself there.
        options["socket_keepalive"] = True
    try:
        return redis.Redis.from_url(
            url,
            decode_responses=True,
            encoding_errors="surrogateescape",
            socket_timeout=_SOCKET_SECONDS,
            socket_connect_timeout=5.0,
            health_check_interval=30,
            # A dropped connection is tried again at once; a longer outage is the caller's to wait.
            retry=Retry(ExponentialBackoff(cap=0.2, base=0.05), 2),
            **options,
        )
    except ValueError:
        raise SettingsError(
            "REDIS_URL is not a Redis URL.",
            hint="Write redis://[user:password@]host:port/0, rediss:// for TLS, or unix://path.",
        ) from None


# What replies mean that begin with a word, and what to do about them.
_REPLIES = {
    "OOM": (
        "has reached its memory limit; nothing was written",
        "Raise maxmemory, or let workers empty the queue, then try again.",
    ),
    "MISCONF": (
        "cannot save to its disk and takes no writes",
        "Make room on its disk, or correct its rights there; its log says more.",
    ),
    "BUSY": (
        "is busy with a script",
        "Wait until it ends; `redis-cli SCRIPT KILL` ends it at once.",
    ),
    "NOREPLICAS": (
        "has too few replicas to take writes",
        "Start its replicas, or lower min-replicas-to-write.",
    ),
    "CLUSTERDOWN": (
        "is a cluster that does not serve the queue's slot now",
        "Wait, or look with `redis-cli --cluster check`.",
    ),
    "TRYAGAIN": (
        "is a cluster that moves the queue's slot right now",
        "Wait until the slot has moved.",
    ),
    "MOVED": (
        "is a cluster that keeps the queue on another node",
        "Name that node in REDIS_URL; `redis-cli CLUSTER SLOTS` shows them.",
    ),
    "READONLY": (
        "is a replica, which takes no writes",
        "Name the primary in REDIS_URL.",
    ),
    "MASTERDOWN": (
        "is a replica whose primary is away",
        "Start the primary, or name another server in REDIS_URL.",
    ),
    "LOADING": (
        "is still reading its data",
        "Wait: it answers when it has read all.",
    ),
    "NOSCRIPT": (
        "forgets scripts as soon as they are loaded",
        "Name the server itself in REDIS_URL, not a proxy that spreads commands.",
    ),
    "WRONGTYPE": (
        "holds something else under one of the queue's names",
        "Another program uses this database: choose another one in REDIS_URL.",
    ),
    "NOPERM": (
        "does not allow this",
        "Give the user the rights of docs/reliability.md, *Access control*.",
    ),
    "NOAUTH": (
        "refuses the user or password",
        "Correct REDIS_URL.",
    ),
}
_REPLIES["ASK"] = _REPLIES["TRYAGAIN"]
_REPLIES["WRONGPASS"] = _REPLIES["NOAUTH"]
_FULL = ("OOM", "MISCONF")

# redis-py takes the first word away where it has a class for it.
_CLASSES: dict[type[redis.exceptions.RedisError], str] = {
    redis.exceptions.OutOfMemoryError: "OOM",
    redis.exceptions.MasterDownError: "MASTERDOWN",  # before the class it is one of
    redis.exceptions.ClusterDownError: "CLUSTERDOWN",
    redis.exceptions.TryAgainError: "TRYAGAIN",
    redis.exceptions.MovedError: "MOVED",  # likewise
    redis.exceptions.AskError: "ASK",
    redis.exceptions.ReadOnlyError: "READONLY",
    redis.exceptions.BusyLoadingError: "LOADING",
    redis.exceptions.NoScriptError: "NOSCRIPT",
    redis.exceptions.NoPermissionError: "NOPERM",
    redis.exceptions.AuthenticationError: "NOAUTH",
}
# Inside a script the word comes behind the place: "Error running script …: -OOM command …".
_WORD = re.compile(r"\b(" + "|".join(_REPLIES) + r")\b")
_CONNECTING = re.compile(r"Error \S+ connecting to \S+?\. (.+)", re.DOTALL)


@contextmanager
def redis_errors(client: Client) -> Iterator[None]:
    """Turn every error of Redis into one of ours.

    Raises:
        QueueFullError: it takes no more data; nothing was written.
        QueueUnavailableError: it cannot be reached or refuses this for now.
    """
    try:
        yield
    except redis.exceptions.RedisError as error:
        raise _translated(error, shown_url(client)) from None


def _translated(error: redis.exceptions.RedisError, where: str) -> RedditAssetsError:
    for kind, word in _CLASSES.items():
        if isinstance(error, kind):
            return _refusal(word, error, where)
    text = first_line(error)
    found = _WORD.search(text[:400])
    if found and isinstance(error, redis.exceptions.ResponseError):
        return _refusal(found[1], error, where)
    if isinstance(error, redis.exceptions.InvalidResponse):
        return QueueUnavailableError(
            f"What answers at {where} is not a Redis server: {text}.", hint="Correct REDIS_URL."
        )
    if isinstance(error, redis.exceptions.ConnectionError | redis.exceptions.TimeoutError):
        reason = _CONNECTING.sub(r"\1", text)
        reason = reason[:1].lower() + reason[1:]
        return QueueUnavailableError(
            f"Redis at {where} cannot be reached: {reason}.", hint="Start it, or correct REDIS_URL."
        )
    return QueueUnavailableError(
        f"Redis at {where} refuses this: {text}.", hint="Its log may say more."
    )


def _refusal(word: str, error: redis.exceptions.RedisError, where: str) -> RedditAssetsError:
    what, hint = _REPLIES[word]
    kind = QueueFullError if word in _FULL else QueueUnavailableError
    detail = f" ({first_line(error)})" if word in ("NOPERM", "MOVED", "WRONGTYPE") else ""
    return kind(f"Redis at {where} {what}{detail}.", hint=hint)
