"""What looks at the trees have seen, kept in a SQLite file that several processes share.

The disk stays the truth: a snapshot that is lost, damaged or of another format is made again. One
process writes at a time; readers read pages and never wait for a look to end.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.listing import Listing
from reddit_assets.corpus.snapshot_rows import Closed, Known, Row

__all__ = ["DAMAGED", "Snapshot", "default_folder"]

# Raise it when a table or the bytes of a listing change.
_FORMAT = 1
_PAGE = 400
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE subreddits (
    shard TEXT, name TEXT, times BLOB, trusted INT, listed_at REAL, deep_at REAL,
    generation INT, open INT, files INT, fresh INT, adopted INT, clustered INT, kept INT,
    bytes INT, litter INT,
    PRIMARY KEY (shard, name)
) WITHOUT ROWID;
CREATE TABLE listings (shard TEXT, name TEXT, packed BLOB, PRIMARY KEY (shard, name)) WITHOUT ROWID;
CREATE INDEX open_ones ON subreddits (shard, name) WHERE open;
CREATE INDEX generations ON subreddits (generation);
"""
# File systems where SQLite's write-ahead log cannot be shared, as Linux names them.
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "glusterfs"}


def default_folder() -> Path:
    """Where snapshots lie unless a setting says otherwise: in the user's cache."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "reddit-assets" / "snapshots"


def _split(cluster_key: str) -> tuple[str, str]:
    """Columns whose order is path order."""
    shard, _, name = cluster_key.partition("/")
    return shard, name


def _join(shard: str, name: str) -> str:
    return f"{shard}/{name}" if name else shard


class Snapshot:
    """The snapshot of one set of trees. Thread-safe.

    Args:
        path: the file; ``None`` keeps it in a temporary one of this process alone.

    Attributes:
        notice: what a user should know: why it is not kept, or that it was made again.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.notice = ""
        self._lock, self._writer = threading.RLock(), threading.RLock()
        self._connection = self._connect()

    @classmethod
    def of(cls, layout: Layout, folder: Path) -> Snapshot:
        """The one of these trees below ``folder``, which is made."""
        trees = (layout.chains, layout.embeddings, layout.clusters)
        mark = "\0".join(os.path.realpath(tree) for tree in trees)
        name = hashlib.sha256(os.fsencode(mark)).hexdigest()[:16]
        return cls(folder / f"{layout.chains.parent.name or 'root'}-{name}.sqlite")

    # --- opening -------------------------------------------------------------------------
    def _connect(self) -> sqlite3.Connection:
        if self.path is not None:
            try:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                if (kind := _file_system(self.path.parent)) in _NETWORK:
                    return self._private(f"it lies on a network file system ({kind})")
                return self._open(self.path)
            except OSError as error:
                return self._private(error.strerror or type(error).__name__)
            except sqlite3.OperationalError as error:
                return self._private(str(error))
            except sqlite3.DatabaseError:
                return self._again("was damaged")
        return self._open(None)

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
        for ending in ("", "-wal", "-shm"):
            Path(f"{self.path}{ending}").unlink(missing_ok=True)
        return self._open(self.path)

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
        if version not in (0, _FORMAT):
            connection.close()
            return self._again("is of another version")
        return connection

    @staticmethod
    def _make(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:  # no other process was faster
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO meta VALUES ('id', ?)", (os.urandom(8).hex(),))
            connection.execute(f"PRAGMA user_version = {_FORMAT}")
        connection.execute("COMMIT")

    def start_again(self) -> None:
        """Throw everything away."""
        with self._lock:
            self._connection.close()
            if self.path is None:
                self._connection = self._open(None)
            else:
                self._connection = self._again("was damaged")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only writer among processes and threads. Waits for another one to end."""
        with self._writer, ExitStack() as stack:
            if self.path is not None:
                with suppress(OSError):  # then SQLite's own locks must do
                    file = stack.enter_context(open(f"{self.path}.lock", "wb"))
                    fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # --- facts of the whole --------------------------------------------------------------
    def _get(self, name: str) -> Any:
        with self._lock:
            found = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,))
            row = found.fetchone()
        return None if row is None else row[0]

    def put(self, **values: Any) -> None:
        """Keep facts of the whole, all or none."""
        with self._lock:
            self._begin()
            self._connection.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items()
            )
            self._connection.execute("COMMIT")

    def _begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    @property
    def id(self) -> str:
        """Random; another one when the snapshot was made again: generations start anew then."""
        return str(self._get("id"))

    @property
    def judged_by(self) -> str:
        """A scanner's ``judged_by`` by which its verdicts hold."""
        return str(self._get("judged_by") or "")

    @property
    def generation(self) -> int:
        """Of the last look that ended; what a later one changes has a higher one."""
        return int(self._get("generation") or 0)

    def next_generation(self) -> int:
        """Of a look that begins: higher than that of any change."""
        with self._lock:
            found = self._connection.execute("SELECT max(generation) FROM subreddits").fetchone()
        return max(int(found[0] or 0), self.generation) + 1

    @property
    def looked_at(self) -> float:
        """When the last complete look began, seconds since the epoch; 0 if there was none."""
        return float(self._get("looked_at") or 0.0)

    @property
    def look_seconds(self) -> float:
        """How long that look took."""
        return float(self._get("look_seconds") or 0.0)

    @property
    def times_lie(self) -> bool:
        """Whether a folder was seen to change without a change of its time."""
        return bool(self._get("times_lie"))

    # --- writing -------------------------------------------------------------------------
    def write(self, rows: Iterable[Row], generation: int, judged_by: str) -> int:
        """Keep what was found; the number of subreddits that have changed.

        Args:
            generation: that these changes belong to.
            judged_by: the scanner's.
        """
        full, same = [], []
        now = time.time()
        # What changes after the first look is read in full at night before all others: -1.
        unread = -1.0 if self.looked_at else 0.0
        for row in rows:
            place = _split(row.cluster_key)
            known = (row.known.times, row.known.trusted, row.known.listed_at)
            if row.packed is None:
                same.append((*known, now if row.deep else None, *place))
            else:
                deep_at = now if row.deep else unread
                full.append((*place, *known, deep_at, generation, *row[3:11], row.packed))
        with self._lock:
            self._begin()
            self._connection.executemany(
                "UPDATE subreddits SET times = ?, trusted = ?, listed_at = ?,"
                " deep_at = coalesce(?, deep_at) WHERE shard = ? AND name = ?",
                same,
            )
            self._connection.executemany(
                "INSERT OR REPLACE INTO subreddits VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                [row[:-1] for row in full],
            )
            self._connection.executemany(
                "INSERT OR REPLACE INTO listings VALUES (?, ?, ?)",
                [(row[0], row[1], row[-1]) for row in full],
            )
            self._connection.execute("COMMIT")
        return len(full)

    def rejudge(self, rows: Iterable[Row], generation: int) -> None:
        """Keep new verdicts on what is known."""
        with self._lock:
            self._begin()
            self._connection.executemany(
                "UPDATE subreddits SET open = ?, files = ?, fresh = ?, adopted = ?, clustered = ?,"
                " kept = ?, bytes = ?, litter = ?, generation = ? WHERE shard = ? AND name = ?",
                [(*row[3:11], generation, *_split(row.cluster_key)) for row in rows],
            )
            self._connection.execute("COMMIT")

    def forget(self, cluster_keys: Iterable[str]) -> None:
        """Drop subreddits that have vanished."""
        places = [_split(key) for key in cluster_keys]
        with self._lock:
            self._begin()
            for table in ("subreddits", "listings"):
                self._connection.executemany(
                    f"DELETE FROM {table} WHERE shard = ? AND name = ?", places
                )
            self._connection.execute("COMMIT")

    # --- reading -------------------------------------------------------------------------
    def known(self) -> dict[str, Known]:
        """Every subreddit with what decides whether it must be listed."""
        with self._lock:
            found = self._connection.execute(
                "SELECT shard, name, times, trusted, listed_at FROM subreddits"
            ).fetchall()
        return {_join(row[0], row[1]): Known(row[2], bool(row[3]), row[4]) for row in found}

    def packed(self, cluster_keys: Sequence[str]) -> dict[str, bytes]:
        """Listings as bytes."""
        with self._lock:
            query = "SELECT packed FROM listings WHERE shard = ? AND name = ?"
            found = {
                key: self._connection.execute(query, _split(key)).fetchone() for key in cluster_keys
            }
        return {key: row[0] for key, row in found.items() if row is not None}

    def listings(
        self, after: str | None = None, *, closed: bool = True, since: int | None = None
    ) -> Iterator[tuple[str, Listing]]:
        """Listings in path order.

        Args:
            after: cluster key to begin behind.
            closed: those, too, of which everything is done.
            since: only those that changed after this generation.
        """
        conditions = ["(shard, name) > (?, ?)"]
        if not closed:
            conditions.append("open")
        if since is not None:
            conditions.append(f"generation > {int(since)}")
        query = (
            "SELECT shard, name, packed FROM subreddits JOIN listings USING (shard, name)"
            f" WHERE {' AND '.join(conditions)} ORDER BY shard, name LIMIT {_PAGE}"
        )
        place = ("", "") if after is None else _split(after)
        while True:
            with self._lock:
                page = self._connection.execute(query, place).fetchall()
            for shard, name, packed in page:
                key = _join(shard, name)
                yield key, Listing.unpack(key, packed)
            if len(page) < _PAGE:
                return
            place = page[-1][:2]

    def closed(self, wanted: Callable[[str], bool] | None = None) -> Closed:
        """Sums over the subreddits of which everything is done.

        Args:
            wanted: leaves out the others.
        """
        columns = ("files", "fresh", "adopted", "clustered", "kept", "bytes", "litter")
        where = "FROM subreddits WHERE NOT open"
        with self._lock:
            if wanted is None:
                sums = ", ".join(f"total({column})" for column in columns)
                row = self._connection.execute(f"SELECT count(*), {sums} {where}").fetchone()
                return Closed(*map(int, row))
            rows = self._connection.execute(f"SELECT shard, name, {', '.join(columns)} {where}")
            chosen = [row[2:] for row in rows.fetchall() if wanted(_join(row[0], row[1]))]
        return Closed(len(chosen), *map(sum, zip(*chosen, strict=True)))

    def files(self) -> int:
        """Number of chain files."""
        with self._lock:
            return int(
                self._connection.execute("SELECT total(files) FROM subreddits").fetchone()[0]
            )

    def to_read_in_full(self, share: float) -> list[str]:
        """Subreddits whose outputs shall be read in full tonight.

        Args:
            share: of all subreddits, beside those that have changed since they were read so.

        Returns:
            Those that have changed, then those that were read longest ago, in path order.
        """
        with self._lock:
            (count,) = self._connection.execute("SELECT count(*) FROM subreddits").fetchone()
            found = self._connection.execute(
                "SELECT shard, name FROM subreddits ORDER BY deep_at LIMIT max(?,"
                " (SELECT count(*) FROM subreddits WHERE deep_at < 0) + ?)",
                (0, int(count * share) + 1),
            ).fetchall()
        return sorted((_join(*row) for row in found), key=lambda key: key.split("/"))


DAMAGED = (sqlite3.DatabaseError, zlib.error, ValueError, LookupError, TypeError)
"""What reading a damaged snapshot raises."""


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
