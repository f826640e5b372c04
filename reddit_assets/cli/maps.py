"""``reddit-assets maps``: a read-only web server of the maps."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Annotated

import typer

from reddit_assets.cli.options import Root

__all__ = ["register"]

EPILOG = """
Examples:

\b
  reddit-assets maps --root data
  reddit-assets maps --root data --host 0.0.0.0 --port 8080 --name maps.example.org

Without a login: behind another address than the loopback one, put a proxy that asks for one. Set
REDDIT_MAPS_URL to the address that people use, for Dagster's links to the maps.
"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("maps", epilog=EPILOG)(maps)


def maps(
    root: Root = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port.")] = 3001,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help="Host name that people use; * for any. May be repeated."),
    ] = None,
) -> None:
    """Show the maps of the clusters to a browser; `up` starts this by itself."""
    from reddit_assets.corpus.layout import Layout
    from reddit_assets.errors import StartupError
    from reddit_assets.local.maps import MapServer
    from reddit_assets.settings import load_settings

    clusters: Path = Layout.from_settings(load_settings(root=root)).clusters
    if not clusters.parent.is_dir():
        raise StartupError(f"There is no folder {clusters.parent}.", hint="Correct --root.")
    try:
        server = MapServer(clusters, (host, port), name or ())
    except OSError as error:
        other = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host (IPv4)"
        raise StartupError(
            f"{host}:{port} cannot be listened on: {error.strerror}.",
            hint=f"Choose another {other}.",
        ) from error
    typer.echo(f"Maps: http://{host}:{port}/ (Ctrl+C ends it)")
    with server:
        server.serve_forever()
