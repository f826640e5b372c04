"""The Lua scripts, each with the documented prelude, loaded once per client."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any, TypeVar

from reddit_assets.ledger.connection import Client

__all__ = ["Scripts", "chunks", "request_of"]

# Jobs per script call: long enough to spare round trips, short enough not to hold Redis.
_CHUNK = 1_000

_T = TypeVar("_T")


def chunks(items: Iterable[_T], size: int = _CHUNK) -> Iterator[list[_T]]:
    """Lists of at most ``size`` items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def request_of(name: str, tokens: Iterable[str]) -> str:
    """What a call of a script on these tokens is known by: sent twice, it is done once."""
    text = " ".join((name, *tokens))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@cache
def _source(name: str) -> str:
    # Without a first line `#!lua flags=…`, which Redis 6.2 does not read: see common.lua on memory.
    folder = files("reddit_assets.ledger") / "lua"
    return "\n".join(
        (folder / f"{part}.lua").read_text(encoding="utf-8") for part in ("common", name)
    )


class Scripts:
    """Runs scripts by name on one queue's keys.

    Args:
        client: the connection.
        prefix: what the queue's keys begin with.
        public: the queue's public list.
    """

    def __init__(self, client: Client, prefix: str, public: str) -> None:
        self._client = client
        self._keys = [prefix, public]
        self._loaded: dict[str, Any] = {}

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Run ``lua/<name>.lua``; redis-py loads it again after a server's restart."""
        script = self._loaded.get(name)
        if script is None:
            script = self._loaded[name] = self._client.register_script(_source(name))
        return script(keys=self._keys, args=arguments)
