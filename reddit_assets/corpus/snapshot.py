"""What looks at the trees have seen, kept in a SQLite file that several processes share.

The disk stays the truth: a snapshot that is lost, damaged or of another format is made again. One
process writes at a time; readers read pages and never wait for a look to end.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.listing import Listing
from reddit_assets.corpus.shards import Place
from reddit_assets.corpus.snapshot_file import SnapshotFile, SnapshotLostError
from reddit_assets.corpus.snapshot_rows import Closed, Known, Row, Shard

__all__ = ["Snapshot", "SnapshotLostError"]

# Raise it when a table or the bytes of a listing change.
_FORMAT = 3
_PAGE = 400
_DAY = 86_400.0
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE subreddits (
    shard TEXT, name TEXT, times BLOB, trusted INT, listed_at REAL, deep_at REAL,
    generation INT, open INT, files INT, fresh INT, adopted INT, clustered INT, kept INT,
    bytes INT, litter INT,
    PRIMARY KEY (shard, name)
) WITHOUT ROWID;
CREATE TABLE listings (
    shard TEXT, name TEXT, packed BLOB, verdicts BLOB, PRIMARY KEY (shard, name)
) WITHOUT ROWID;
CREATE TABLE shards (
    tree TEXT, shard TEXT, times BLOB, trusted INT, listed_at REAL, keys TEXT,
    PRIMARY KEY (tree, shard)
) WITHOUT ROWID;
CREATE INDEX open_ones ON subreddits (shard, name) WHERE open;
CREATE INDEX generations ON subreddits (generation);
"""


def _cache() -> Path:
    """Where snapshots lie unless a setting says otherwise. Raises RuntimeError without a home."""
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


class Snapshot(SnapshotFile):
    """The snapshot of one set of trees. Thread-safe.

    Every method raises SnapshotLostError when nothing can be read or kept.

    Args:
        path: the file; ``None`` keeps it in a temporary one of this process alone.
    """

    def __init__(self, path: Path | None) -> None:
        super().__init__(path, _FORMAT, _SCHEMA)

    @classmethod
    def of(cls, layout: Layout, folder: Path | None) -> Snapshot:
        """The one of these trees below ``folder``, which is made; ``None``: in the user's cache."""
        trees = (layout.chains, layout.embeddings, layout.clusters)
        mark = "\0".join(os.path.realpath(tree) for tree in trees)
        name = hashlib.sha256(os.fsencode(mark)).hexdigest()[:16]
        try:
            folder = folder or _cache()
        except RuntimeError:  # such as in a container that gives its user no name
            made = cls(None)
            made.notice = (
                "What was seen of the trees cannot be kept: this user has no home folder. Every "
                "process looks at all of them. Set REDDIT_SNAPSHOT_DIR to a local folder."
            )
            return made
        return cls(folder / f"{layout.chains.parent.name or 'root'}-{name}.sqlite")

    # --- facts of the whole --------------------------------------------------------------
    def _get(self, name: str) -> Any:
        with self._reading() as connection:
            row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def put(self, **values: Any) -> None:
        """Keep facts of the whole, all or none."""
        with self._changing() as connection:
            connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

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
        with self._reading() as connection:
            found = connection.execute("SELECT max(generation) FROM subreddits").fetchone()
        return max(int(found[0] or 0), self.generation) + 1

    @property
    def looked_at(self) -> float:
        """When the last complete look began, seconds since the epoch; 0 if there was none."""
        return float(self._get("looked_at") or 0.0)

    @property
    def looked_for(self) -> str:
        """The scanner's ``filter_id`` that that look was made with."""
        return str(self._get("looked_for") or "")

    @property
    def look_seconds(self) -> float:
        """How long that look took."""
        return float(self._get("look_seconds") or 0.0)

    @property
    def times_lie(self) -> bool:
        """Whether within a day a folder was seen to change without a change of its time."""
        return 0 <= time.time() - float(self._get("lied_at") or 0.0) < _DAY

    # --- writing -------------------------------------------------------------------------
    def write(self, rows: Iterable[Row], generation: int, judged_by: str) -> int:
        """Keep what was found; the number of subreddits that have changed.

        Args:
            generation: that these changes belong to.
            judged_by: the scanner's.
        """
        full, same, listings = [], [], []
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
                full.append((*place, *known, deep_at, generation, *row[4:12]))
                listings.append((*place, row.packed, row.verdicts))
        with self._changing() as connection:
            connection.executemany(
                "UPDATE subreddits SET times = ?, trusted = ?, listed_at = ?,"
                " deep_at = coalesce(?, deep_at) WHERE shard = ? AND name = ?",
                same,
            )
            connection.executemany(
                "INSERT OR REPLACE INTO subreddits VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                full,
            )
            connection.executemany("INSERT OR REPLACE INTO listings VALUES (?, ?, ?, ?)", listings)
        return len(full)

    def rejudge(self, rows: Sequence[Row], generation: int) -> None:
        """Keep new verdicts on what is known."""
        with self._changing() as connection:
            connection.executemany(
                "UPDATE subreddits SET open = ?, files = ?, fresh = ?, adopted = ?, clustered = ?,"
                " kept = ?, bytes = ?, litter = ?, generation = ? WHERE shard = ? AND name = ?",
                [(*row[4:12], generation, *_split(row.cluster_key)) for row in rows],
            )
            connection.executemany(
                "UPDATE listings SET verdicts = ? WHERE shard = ? AND name = ?",
                [(row.verdicts, *_split(row.cluster_key)) for row in rows],
            )

    def write_shards(self, found: Mapping[Place, Shard], gone: Iterable[Place]) -> None:
        """Keep what shards' folders hold, and drop those that have vanished."""
        rows = [(*place, *shard[:3], json.dumps(shard.keys)) for place, shard in found.items()]
        with self._changing() as connection:
            connection.executemany("INSERT OR REPLACE INTO shards VALUES (?, ?, ?, ?, ?, ?)", rows)
            connection.executemany("DELETE FROM shards WHERE tree = ? AND shard = ?", gone)

    def forget(self, cluster_keys: Iterable[str]) -> None:
        """Drop subreddits that have vanished."""
        places = [_split(key) for key in cluster_keys]
        with self._changing() as connection:
            for table in ("subreddits", "listings"):
                connection.executemany(f"DELETE FROM {table} WHERE shard = ? AND name = ?", places)

    # --- reading -------------------------------------------------------------------------
    def known(self) -> dict[str, Known]:
        """Every subreddit with what decides whether it must be listed."""
        with self._reading() as connection:
            found = connection.execute(
                "SELECT shard, name, times, trusted, listed_at FROM subreddits"
            ).fetchall()
        return {_join(row[0], row[1]): Known(row[2], bool(row[3]), row[4]) for row in found}

    def shards(self) -> dict[Place, Shard]:
        """What shards' folders hold."""
        with self._reading() as connection:
            rows = connection.execute("SELECT * FROM shards").fetchall()
        try:
            return {
                row[:2]: Shard(row[2], bool(row[3]), row[4], json.loads(row[5])) for row in rows
            }
        except (ValueError, TypeError) as error:
            raise SnapshotLostError("the list of shards cannot be read") from error

    def packed(self, cluster_keys: Sequence[str]) -> dict[str, bytes]:
        """Listings as bytes."""
        with self._reading() as connection:
            query = "SELECT packed FROM listings WHERE shard = ? AND name = ?"
            found = {key: connection.execute(query, _split(key)).fetchone() for key in cluster_keys}
        return {key: row[0] for key, row in found.items() if row is not None}

    def listing(self, cluster_key: str) -> Listing:
        """What lies there; nothing, if it has vanished."""
        packed = self.packed([cluster_key]).get(cluster_key)
        return Listing(cluster_key) if packed is None else Listing.unpack(cluster_key, packed)

    def seen(
        self,
        after: str | None = None,
        *,
        closed: bool = True,
        since: int | None = None,
        judged: bool = True,
    ) -> Iterator[tuple[str, bytes | None, bytes | None]]:
        """Subreddits in path order, each with the verdicts on it or, where none are kept, listing.

        Args:
            after: cluster key to begin behind.
            closed: those, too, of which everything is done.
            since: only those that changed after this generation.
            judged: give verdicts; else every listing.
        """
        conditions = ["(shard, name) > (?, ?)"]
        if not closed:
            conditions.append("open")
        if since is not None:
            conditions.append(f"generation > {int(since)}")
        what = "verdicts, iif(verdicts IS NULL, packed, NULL)" if judged else "NULL, packed"
        query = (
            f"SELECT shard, name, {what} FROM subreddits JOIN listings USING (shard, name)"
            f" WHERE {' AND '.join(conditions)} ORDER BY shard, name LIMIT {_PAGE}"
        )
        place = ("", "") if after is None else _split(after)
        while True:
            with self._reading() as connection:
                page = connection.execute(query, place).fetchall()
            for shard, name, verdicts, packed in page:
                yield _join(shard, name), verdicts, packed
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
        with self._reading() as connection:
            if wanted is None:
                sums = ", ".join(f"total({column})" for column in columns)
                row = connection.execute(f"SELECT count(*), {sums} {where}").fetchone()
                return Closed(*map(int, row))
            rows = connection.execute(f"SELECT shard, name, {', '.join(columns)} {where}")
            chosen = [row[2:] for row in rows.fetchall() if wanted(_join(row[0], row[1]))]
        return Closed(len(chosen), *map(sum, zip(*chosen, strict=True)))

    def files(self) -> int:
        """Number of chain files."""
        with self._reading() as connection:
            return int(connection.execute("SELECT total(files) FROM subreddits").fetchone()[0])

    def to_read_in_full(self, share: float, wanted: Callable[[str], bool] | None) -> list[str]:
        """Subreddits whose outputs shall be read in full tonight.

        Args:
            share: of all subreddits, beside those that have changed since they were read so.
            wanted: leaves out the others.

        Returns:
            Those that have changed, then those that were read longest ago, in path order.
        """
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT shard, name, deep_at FROM subreddits ORDER BY deep_at"
            )
            found = [(_join(*row[:2]), row[2] < 0) for row in rows]
        if wanted is not None:
            found = [row for row in found if wanted(row[0])]
        count = sum(changed for _, changed in found) + int(len(found) * share) + 1
        return sorted((key for key, _ in found[:count]), key=lambda key: key.split("/"))
