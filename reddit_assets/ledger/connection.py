"""The connection to Redis, and its errors as sentences without secrets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from reddit_assets.errors import QueueFullError, QueueUnavailableError, SettingsError
from reddit_assets.settings import Settings

__all__ = ["Client", "connect", "redis_errors", "shown_url"]

# A redis.Redis with decode_responses: redis-py's annotations do not tell text from bytes.
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


@contextmanager
def redis_errors(client: Client) -> Iterator[None]:
    """Turn Redis's errors into ours.

    Raises:
        QueueUnavailableError: no connection, loading, read-only, or not allowed.
        QueueFullError: the memory limit is reached; nothing was written.
    """
    where = shown_url(client)
    try:
        yield
    except redis.exceptions.OutOfMemoryError:
        raise QueueFullError(
            f"Redis at {where} has reached its memory limit; nothing was written.",
            hint="Raise maxmemory, or let workers empty the queue, then try again.",
        ) from None
    except redis.exceptions.AuthenticationError:
        raise QueueUnavailableError(
            f"Redis at {where} refuses the user or password.", hint="Correct REDIS_URL."
        ) from None
    except redis.exceptions.NoPermissionError as error:
        raise QueueUnavailableError(
            f"Redis at {where} does not allow this: {error}.",
            hint="Give the user the rights of docs/reliability.md, *Access control*.",
        ) from None
    except (
        redis.exceptions.ConnectionError,
        redis.exceptions.TimeoutError,
        redis.exceptions.ReadOnlyError,
        redis.exceptions.MasterDownError,
    ) as error:
        reason = str(error).split(" connecting to ")[0].rstrip(".") or type(error).__name__
        raise QueueUnavailableError(
            f"Redis at {where} cannot be reached: {reason}.",
            hint="Start it, or correct REDIS_URL.",
        ) from None
    except redis.exceptions.ResponseError as error:
        if str(error).startswith(("OOM", "MISCONF")) or "OOM" in str(error)[:80]:
            raise QueueFullError(
                f"Redis at {where} cannot take more data: {error}",
                hint="Raise maxmemory or make room on its disk, then try again.",
            ) from None
        raise
