"""The SQLite file behind a snapshot: opened, locked, changed all or nothing, replaced when lost."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from reddit_assets.errors import RedditAssetsError, WriteError

__all__ = ["SnapshotFile", "SnapshotLostError"]

# File systems where SQLite's write-ahead log cannot be shared, as Linux names them.
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "glusterfs"}
# Between two attempts to become the only writer.
_PAUSE = 0.05


class SnapshotLostError(RedditAssetsError):
    """What was kept cannot be read, or nothing more can be kept: :meth:`SnapshotFile.recover`.

    Attributes:
        why: what SQLite says.
        damaged: the content is not what was written; else the storage refuses.
    """

    host_fault = True

    def __init__(self, why: str, damaged: bool = True) -> None:
        super().__init__(
            f"What was seen of the trees cannot be read or kept: {why}.",
            hint="Try again: the next look makes it again from the disk.",
        )
        self.why, self.damaged = why, damaged


def _lost(error: sqlite3.DatabaseError) -> SnapshotLostError:
    # A table that is not there is damage; a full disk, a lock and an I/O error are not.
    refused = isinstance(error, sqlite3.OperationalError)
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    damaged = not refused or code == sqlite3.SQLITE_ERROR
    return SnapshotLostError(str(error), damaged=damaged)


class SnapshotFile:
    """One SQLite file that several processes share. Thread-safe.

    Args:
        path: the file; ``None`` keeps all in a temporary one of this process alone.
        version: of the tables; a file of another one is made again.
        schema: statements that make the tables.

    Attributes:
        notice: what a user should know: why it is not kept, or that it was made again.
    """

    def __init__(self, path: Path | None, version: int, schema: str) -> None:
        self.path = path
        self.notice = ""
        self._version, self._schema = version, schema
        self._lock, self._writer = threading.RLock(), threading.RLock()
        self._inode, self._was_damaged = 0, False
        self._connection = self._connect()

    # --- opening -------------------------------------------------------------------------
    def _connect(self) -> sqlite3.Connection:
        if self.path is None:
            return self._open(None)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if (kind := _file_system(self.path.parent)) in _NETWORK:
                return self._private(f"it lies on a network file system ({kind})")
            return self._open(self.path)
        except OSError as error:
            return self._private(error.strerror or type(error).__name__)
        except sqlite3.DatabaseError as error:
            lost = _lost(error)
            return self._again("was damaged") if lost.damaged else self._private(lost.why)

    def _private(self, why: str) -> sqlite3.Connection:
        self.notice = (
            f"What was seen of the trees cannot be kept in {self.path}: {why}. Every process looks "
            "at all of them. Set REDDIT_SNAPSHOT_DIR to a local folder that can be written."
        )
        self.path = None
        return self._open(None)

    def _again(self, why: str) -> sqlite3.Connection:
        assert self.path is not None
        self.notice = f"The snapshot {self.path} {why} and is made again from the disk."
        try:
            for ending in ("-wal", "-shm", ""):
                Path(f"{self.path}{ending}").unlink(missing_ok=True)
            return self._open(self.path)
        except OSError as error:
            return self._private(error.strerror or type(error).__name__)
        except sqlite3.DatabaseError as error:
            return self._private(str(error))

    def _open(self, path: Path | None) -> sqlite3.Connection:
        # An empty name is SQLite's for a temporary file of this connection alone.
        connection = sqlite3.connect(
            path or "", timeout=60, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA cache_size = -32000")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._make(connection)
        except BaseException:
            connection.close()
            raise
        if version not in (0, self._version):
            connection.close()
            return self._again("is of another version")
        self._inode = 0 if path is None else _inode(path)
        return connection

    def _make(self, connection: sqlite3.Connection) -> None:
        with _transaction(connection):
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:  # no other process was faster
                for statement in self._schema.split(";"):
                    connection.execute(statement)
                connection.execute("INSERT INTO meta VALUES ('id', ?)", (os.urandom(8).hex(),))
                connection.execute(f"PRAGMA user_version = {self._version}")

    def recover(self, lost: SnapshotLostError) -> None:
        """Begin again with nothing: in the same place after damage, else for this process alone.

        Raises:
            WriteError: nothing can be kept in any place.
        """
        with self._lock:
            with suppress(sqlite3.Error):
                self._connection.close()
            if self.path is None:
                self._connection = self._open(None)
                raise WriteError(
                    f"What is seen of the trees cannot be kept: {lost.why}.",
                    hint="Free space where temporary files lie (TMPDIR), or set "
                    "REDDIT_SNAPSHOT_DIR to a local folder that can be written.",
                    host_fault=True,
                )
            if lost.damaged and not self._was_damaged:
                self._was_damaged = True
                self._connection = self._again("was damaged")
            else:
                self._connection = self._private(lost.why)

    # --- using ---------------------------------------------------------------------------
    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone.

        Raises:
            SnapshotLostError: SQLite cannot read or write.
        """
        with self._lock:
            try:
                yield self._connection
            except sqlite3.ProgrammingError:
                raise  # a mistake of ours
            except sqlite3.DatabaseError as error:
                raise _lost(error) from error

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """As :meth:`_reading`, with changes that are kept all or none."""
        with self._reading() as connection, _transaction(connection):
            yield connection

    @contextmanager
    def writing(self, patience: float | None = None) -> Iterator[bool]:
        """Be the only writer among processes and threads; whether that came about.

        Args:
            patience: seconds to wait for another writer; ``None`` waits to its end.
        """
        until = None if patience is None else time.monotonic() + patience
        if not self._writer.acquire(timeout=-1 if patience is None else patience):
            yield False
            return
        try:
            with ExitStack() as stack:
                ours = True
                if self.path is not None:
                    with suppress(OSError):  # then SQLite's own locks must do
                        file = stack.enter_context(open(f"{self.path}.lock", "wb"))
                        ours = _locked(file, until)
                if ours:
                    self._follow()
                yield ours
        finally:
            self._writer.release()

    @property
    def busy(self) -> bool:
        """Whether another one writes just now."""
        with self.writing(0) as ours:
            return not ours

    def _follow(self) -> None:
        """Open the file in our place, if another process has made it again or somebody deleted it.

        Raises:
            SnapshotLostError: it cannot be opened.
        """
        if self.path is None or _inode(self.path) == self._inode:
            return
        with self._lock:
            self._connection.close()
            self._connection = self._connect()


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def _locked(file: IO[bytes], until: float | None) -> bool:
    """Take the lock; whether it was free before this time."""
    if until is None:
        fcntl.flock(file, fcntl.LOCK_EX)
        return True
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            left = until - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(_PAUSE, left))


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def _file_system(folder: Path) -> str:
    """The kind of file system that ``folder`` lies on, where Linux says it; empty elsewhere."""
    best, kind = "", ""
    real = os.path.realpath(folder)
    with suppress(OSError), open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            place, found = line.split()[1:3]
            place = place.replace("\\040", " ")
            inside = real == place or real.startswith(place.rstrip("/") + "/")
            if inside and len(place) >= len(best):
                best, kind = place, found
    return kind
