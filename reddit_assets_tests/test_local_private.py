"""What other accounts of this host can reach: nothing of ours."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
import redis

from reddit_assets.errors import StartupError
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.local.private import private_folder, socket_folder
from reddit_assets.local.processes import Child
from reddit_assets.local.servers import ValkeyServer
from reddit_assets.local.state import StateDir
from reddit_assets.settings import load_settings


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of the host, which everybody may write to."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_state_folder_that_others_could_read_is_closed(tmp_path: Path):
    # Given the state folder of an earlier version, with a log
    state = StateDir(tmp_path / "state")
    log = state.log("worker")
    for folder in (log.parent, state.dagster_home):
        folder.mkdir(parents=True)
    log.write_text("secret")
    for path in (state.path, log.parent, log, state.dagster_home):
        path.chmod(0o755)
    # If it is taken, and a child writes to its log
    with state:
        child = Child("worker", ["true"], records=state.records, log=log)
        child.start()
        child.end()
        # Then folders and files are this account's alone
        for folder in (state.path, log.parent, state.dagster_home, state.records):
            assert mode(folder) == 0o700
        for name in ("lock", "up.json"):
            assert mode(state.path / name) == 0o600
        assert mode(log) == 0o600


def test_a_link_is_no_private_folder(tmp_path: Path):
    # Given a link where the folder should be, Then it is refused, and its target left as it is
    target = tmp_path / "target"
    target.mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(StartupError, match="is a link or belongs to another account"):
        private_folder(tmp_path / "link")
    assert mode(target) == 0o755


def test_a_short_socket_path_stays_in_its_folder(tmp_path: Path, temporary: Path):
    # Given a short path, Then nothing is made below the temporary folder
    assert socket_folder(Path("/srv/state"), "x.sock") == Path("/srv/state")
    assert list(temporary.iterdir()) == []


def test_a_long_one_lies_where_nobody_can_foresee_and_no_link_is_followed(
    tmp_path: Path, temporary: Path
):
    # Given a folder with a path beyond what a socket may have
    long = tmp_path / ("x" * 100)
    # Then its sockets lie in a private folder with a random name, the same at each start
    found = socket_folder(long, "x.sock")
    assert found.parent == temporary
    assert mode(found) == 0o700
    assert socket_folder(long, "x.sock") == found
    assert socket_folder(tmp_path / ("y" * 100), "x.sock") != found
    # If that was removed (temporary folders are), and another account has put a link there
    found.rmdir()
    (tmp_path / "theirs").mkdir()
    found.symlink_to(tmp_path / "theirs")
    # Then another name is taken
    again = socket_folder(long, "x.sock")
    assert again != found
    assert mode(again) == 0o700
    # and so it is where a folder of theirs lies there.
    if os.geteuid() == 0:
        os.chown(again, 4711, 4711)
        assert socket_folder(long, "x.sock") != again


@pytest.mark.parametrize("name", ["short", 'ä ö?#%+"q', "l" * 100])
def test_the_embedded_queue_is_reached_by_its_socket_alone(
    tmp_path: Path, temporary: Path, name: str
):
    # Given the embedded server in a folder of any name
    with ValkeyServer(tmp_path / name) as server:
        # Then our client reaches it by its URL, over no port
        queue = JobQueue(connect(load_settings(redis_url=server.url)), Kind.EMBED)
        assert queue.counts().queued == 0
        path = Path(queue.client.connection_pool.connection_kwargs["path"])
        assert queue.client.config_get("port") == {"port": "0"}
        # and the socket is in a folder that only this account can enter.
        assert mode(path.parent) == 0o700
        assert mode(path) == 0o700
        # If it crashes, Then it is at the same place again
        server.kill()
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()


def test_a_copied_state_folder_of_another_account_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a state folder with logs, copied together with its owner
    state = StateDir(tmp_path / "state")
    with state:
        state.log("worker").write_text("x")
    # If another account uses it (here this account's number is another one)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 4711)
    monkeypatch.setattr("reddit_assets.local.state.private_folder", lambda path: path)
    # Then a sentence says what to remove, and that nothing is lost
    with pytest.raises(StartupError, match="belongs to another account") as told, state:
        pass
    assert "Remove the state folder that holds it: nothing is lost" in str(told.value)
