"""A small read-only web server of the maps below ``clusters/``, beside Dagster's page.

It hands out the corpus' and each subreddit's ``map.html``, ``map.posts.js`` and ``map.png`` and a
page that names the maps, and nothing else: no other file, no listing, no path that leads out of the
tree, also not through links. It listens on the loopback address, and answers only to that name: a
foreign web page cannot reach it under a name of its own.
"""

from __future__ import annotations

import html
import os
import shutil
from collections.abc import Sequence
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote, urlsplit

from reddit_assets.corpus.layout import MAP_NAME, MAP_POSTS_NAME, PICTURE_NAME

__all__ = ["MapServer", "map_keys"]

TYPES = {
    MAP_NAME: "text/html; charset=utf-8",
    MAP_POSTS_NAME: "text/javascript; charset=utf-8",
    PICTURE_NAME: "image/png",
}
# A map's script and styles are in the page; it loads no more than its posts, and sends nothing.
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def map_keys(clusters: Path) -> list[str]:
    """The cluster keys that have a map, in order."""
    found = [*clusters.glob(f"*/{MAP_NAME}"), *clusters.glob(f"*/*/{MAP_NAME}")]
    return sorted(path.parent.relative_to(clusters).as_posix() for path in found)


class MapServer(ThreadingHTTPServer):
    """Serves the maps of a tree until it is shut down.

    Args:
        clusters: the tree.
        address: host and port to listen on.
        names: host names that it answers to beside ``localhost`` and the loopback addresses; a
            single ``*`` means every name.

    Raises:
        OSError: it cannot listen there.
    """

    daemon_threads = True

    def __init__(self, clusters: Path, address: tuple[str, int], names: Sequence[str] = ()) -> None:
        self.names = {"localhost", "127.0.0.1", "[::1]", *(name.lower() for name in names)}
        super().__init__(address, partial(_Handler, clusters.resolve()))

    def handle_error(self, request: object, client_address: object) -> None:
        """A reader who went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: MapServer
    server_version, sys_version = "reddit-assets", ""
    protocol_version = "HTTP/1.1"
    timeout = 30

    def __init__(self, clusters: Path, *arguments: object) -> None:
        self._clusters = clusters
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answers with a map, a picture, or the page that names them."""
        name = self.headers.get("Host", "").rsplit(":", 1)[0].lower() or "localhost"
        if "*" not in self.server.names and name not in self.server.names:
            self.send_error(HTTPStatus.FORBIDDEN, "This server has another name")
            return
        try:
            path = unquote(urlsplit(self.path).path, errors="surrogateescape")
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST, "This is no address")
            return
        if path == "/":
            self._send_index()
            return
        opened = self._open(path)
        if opened is None:
            self.send_error(HTTPStatus.NOT_FOUND, "There is no such map")
            return
        with opened:
            self._send_file(opened, TYPES[path.rpartition("/")[2]])

    do_HEAD = do_GET

    def _open(self, path: str) -> BinaryIO | None:
        """The file that a path names, if it is one of ours inside the tree."""
        parts = path.split("/")[1:]
        if not 1 <= len(parts) <= 3 or parts[-1] not in TYPES:
            return None
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            return None
        wanted = self._clusters.joinpath(*parts)
        try:
            if not wanted.resolve(strict=True).is_relative_to(self._clusters):
                return None
            # Not a pipe or a device, which would hold up the reader.
            return open(wanted, "rb") if wanted.is_file() else None
        except OSError:
            return None

    def _send_file(self, opened: BinaryIO, kind: str) -> None:
        facts = os.fstat(opened.fileno())
        tag = f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"'
        fresh = self.headers.get("If-None-Match") == tag
        self.send_response(HTTPStatus.NOT_MODIFIED if fresh else HTTPStatus.OK)
        self.send_header("ETag", tag)
        self.send_header("Last-Modified", formatdate(facts.st_mtime, usegmt=True))
        self._end_head(kind, 0 if fresh else facts.st_size)
        if not fresh and self.command == "GET":
            shutil.copyfileobj(opened, self.wfile)

    def _send_index(self) -> None:
        keys = map_keys(self._clusters)
        links = "".join(
            f'<li><a href="{quote(key)}/{MAP_NAME}">{html.escape(key)}</a></li>' for key in keys
        )
        whole = f'<p><a href="{MAP_NAME}">Map of the corpus</a></p>'
        body = _INDEX.replace("__COUNT__", f"{len(keys):,}").replace("__LINKS__", links)
        body = body.replace("__WHOLE__", whole if (self._clusters / MAP_NAME).is_file() else "")
        text = body.encode("utf-8", "replace")
        self.send_response(HTTPStatus.OK)
        self._end_head(TYPES[MAP_NAME], len(text))
        if self.command == "GET":
            self.wfile.write(text)

    def _end_head(self, kind: str, length: int) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Says nothing: the log of `up` is for what went wrong."""


_INDEX = """<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Maps</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.6 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
input { font: inherit; padding: .3rem .6rem; width: 100%; max-width: 24rem; }
ul { columns: 15rem; padding: 0; list-style: none; }
</style>
<h1>Maps of __COUNT__ subreddits</h1>
__WHOLE__
<input type="search" placeholder="Find a subreddit" aria-label="Find a subreddit" autofocus>
<ul>__LINKS__</ul>
<script>
document.querySelector("input").addEventListener("input", event => {
  const want = event.target.value.trim().toLowerCase();
  for (const item of document.querySelectorAll("li"))
    item.hidden = !item.textContent.toLowerCase().includes(want);
});
</script>
</html>
"""
