"""The Lua scripts, each with the documented prelude, loaded once per client."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from reddit_assets.ledger.connection import Client

__all__ = ["Scripts"]


@cache
def _source(name: str) -> str:
    folder = files("reddit_assets.ledger") / "lua"
    first, _, body = (folder / f"{name}.lua").read_text(encoding="utf-8").partition("\n")
    if not first.startswith("#!lua"):
        raise ValueError(f"{name}.lua must open with #!lua")
    return f"{first}\n{(folder / 'common.lua').read_text(encoding='utf-8')}\n{body}"


class Scripts:
    """Runs scripts by name on one queue's keys.

    Args:
        client: the connection.
        public: the queue's public list.
    """

    def __init__(self, client: Client, public: str) -> None:
        self._client = client
        self.keys = [f"{{{public}}}:", public]
        self._loaded: dict[str, Any] = {}

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Run ``lua/<name>.lua``; redis-py loads it anew after a server's restart."""
        script = self._loaded.get(name)
        if script is None:
            script = self._loaded[name] = self._client.register_script(_source(name))
        return script(keys=self.keys, args=arguments)
