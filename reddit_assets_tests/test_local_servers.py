"""The embedded servers and the records of their processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis

from reddit_assets.errors import StartupError
from reddit_assets.local.processes import FAMILY_VARIABLE, Child, clear_leftovers, family_of
from reddit_assets.local.servers import PostgresServer, ValkeyServer, free_port, port_is_free


def test_valkey_keeps_acknowledged_data_over_a_kill(own_valkey: Callable[..., ValkeyServer]):
    # Given a server that writes every command to its append-only file
    server = own_valkey(appendfsync="always")
    port = server.port
    with redis.Redis.from_url(server.url) as client:
        client.rpush("phase4_todo_queue", "one", "two")
    # If it is killed and started again
    server.kill()
    server.start()
    # Then it answers on the same port and has the data
    assert server.port == port
    with redis.Redis.from_url(server.url) as client:
        assert client.lrange("phase4_todo_queue", 0, -1) == [b"one", b"two"]


def test_valkey_fixture_starts_each_test_empty(valkey_url: str):
    # Given the shared server, Then nothing is left of other tests
    with redis.Redis.from_url(valkey_url) as client:
        assert client.dbsize() == 0
        client.set("left", "over")


def test_valkey_on_a_taken_port_says_so(own_valkey: Callable[..., ValkeyServer], tmp_path: Path):
    # Given a port that is taken
    taken = own_valkey().port
    assert taken is not None
    assert not port_is_free(taken)
    # If a second server is to use it, Then the error carries the server's own words
    with pytest.raises(StartupError, match="valkey ended at once"):
        ValkeyServer(tmp_path / "second", port=taken).start()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not below pytest's: another session would close that to Postgres's account."""
    with tempfile.TemporaryDirectory(prefix="reddit-assets-postgres-") as name:
        yield Path(name)


def test_postgres_keeps_data_over_a_kill_and_a_recycled_process_id(folder: Path):
    # Given a database whose server was killed, and whose lock names a living other process
    server = PostgresServer(folder / "postgres").start()
    try:
        with psycopg2.connect(host=str(server.socket_folder), user="postgres") as connection:
            connection.cursor().execute("CREATE TABLE kept AS SELECT 7 AS number")
        connection.close()
        server.kill()
        lock = folder / "postgres" / "data" / "postmaster.pid"
        lines = lock.read_text().splitlines()
        lock.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
        # If it is started again
        server.start()
        # Then the table is there
        with psycopg2.connect(host=str(server.socket_folder), user="postgres") as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT number FROM kept")
            assert cursor.fetchone() == (7,)
        connection.close()
    finally:
        server.stop()
    assert not lock.exists()


def test_postgres_socket_path_never_exceeds_the_limit(tmp_path: Path):
    # Given a folder with a very long path
    long = tmp_path / ("x" * 90)
    # Then the socket lies in a short one, always the same
    server = PostgresServer(long)
    assert len(str(server.socket_folder / ".s.PGSQL.5432")) <= 100
    assert server.socket_folder == PostgresServer(long).socket_folder


def test_postgres_url_is_an_empty_database_of_the_test(postgres_url: str):
    # Given the fixture's URL, Then SQLAlchemy's driver prefix is there and the database is empty
    import sqlalchemy

    assert postgres_url.startswith("postgresql+psycopg2://")
    engine = sqlalchemy.create_engine(postgres_url)
    with engine.connect() as connection:
        tables = connection.execute(
            sqlalchemy.text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        )
        assert tables.scalar() == 0
    engine.dispose()


def test_leftovers_are_found_by_record_and_by_descent(tmp_path: Path):
    # Given a parent that was killed and left a child and, in another session, a grandchild
    records = tmp_path / "processes"
    program = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'],"
        " start_new_session=True)\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    parent_program = (
        "import os, pathlib, sys, time\n"
        "from reddit_assets.local.processes import Child\n"
        "records = pathlib.Path(sys.argv[1])\n"
        "child = Child('napper', [sys.executable, '-c', sys.argv[2]], records=records,"
        " log=records / 'napper.log')\n"
        "child.start()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", parent_program, str(records), program], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    while not child.children():
        pass
    grandchild = child.children()[0]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert child.is_running()
    # If the leftovers are cleared
    names = clear_leftovers(records, grace=3)
    # Then both are gone, and so are the records
    assert "napper" in names
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE
    assert not list(records.glob("*.json"))


def test_a_recycled_process_id_is_not_ours(tmp_path: Path):
    # Given a record whose process id now belongs to a process created at another time
    records = tmp_path / "processes"
    records.mkdir()
    innocent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    created = psutil.Process(innocent.pid).create_time()
    (records / "worker.json").write_text(
        json.dumps({"pid": innocent.pid, "created": created - 3600})
    )
    # If the leftovers are cleared
    names = clear_leftovers(records)
    # Then it lives on
    try:
        assert names == []
        assert innocent.poll() is None
        assert not list(records.iterdir())
    finally:
        innocent.kill()
        innocent.wait()


def test_a_child_that_ignores_the_signal_is_killed(tmp_path: Path):
    # Given a child that ignores SIGTERM
    child = Child(
        "deaf",
        [
            sys.executable,
            "-c",
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
            "print('ready', flush=True); time.sleep(300)",
        ],
        records=tmp_path,
        log=tmp_path / "deaf.log",
    )
    child.start()
    while "ready" not in child.output():
        pass
    process = psutil.Process(child.pid)
    assert process.environ()[FAMILY_VARIABLE] == family_of(tmp_path)
    # If it is ended
    child.end(timeout=0.2)
    # Then it is gone nevertheless
    assert not process.is_running()
    assert not (tmp_path / "deaf.json").exists()


def test_a_missing_program_is_a_startup_error(tmp_path: Path):
    # Given a program that does not exist, Then the error names it
    child = Child("ghost", ["/nowhere/ghost"], records=tmp_path, log=tmp_path / "ghost.log")
    with pytest.raises(StartupError, match="ghost cannot be started"):
        child.start()
    child.send(signal.SIGTERM)
    assert child.pid is None


def test_free_ports_are_free():
    # Given a port that was just chosen, Then it can be listened on
    assert port_is_free(free_port())
