"""Many dumps to chain files: which, how much room they take, one after the other."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from reddit_assets.corpus.layout import Layout
from reddit_assets.engines.host import available_cores
from reddit_assets.errors import RedditAssetsError, WriteError
from reddit_assets.ingest.chains import Built, ChainOptions, build_chains
from reddit_assets.ingest.dump import Seen, ingest_dump
from reddit_assets.ingest.filters import Filters
from reddit_assets.ingest.store import STDIN, Record, Store, dump_stamp
from reddit_assets.settings import Settings

__all__ = ["Ingest", "Need", "Summary"]

# Bytes per byte of a zstandard dump, a rough guess on the safe side: the messages kept, the chain
# files, and while it is sorted the largest dump's uncompressed columns.
_KEPT, _CHAINS, _SORTED = 1.2, 1.2, 3.0
_PLAIN = 0.12
"""A plain dump's share of that: text compresses to about an eighth."""


@dataclass(frozen=True)
class Need:
    """Bytes that will be taken at most, and what there is.

    Attributes:
        room: kept afterwards: messages and chain files.
        scratch: for a while.
        free: on the disk.
    """

    room: int
    scratch: int
    free: int

    def check(self) -> None:
        """
        Raises:
            WriteError: there is too little room.
        """
        if self.room + self.scratch > self.free:
            raise WriteError(
                f"About {_size(self.room + self.scratch)} are needed, but {_size(self.free)} are "
                "free.",
                hint="Make room, choose subreddits or dates, or say --no-space-check.",
            )

    def __str__(self) -> str:
        return (
            f"needs about {_size(self.room)}, and {_size(self.scratch)} more for a while; "
            f"{_size(self.free)} are free"
        )


@dataclass
class Summary:
    """What an ingest did."""

    records: list[Record] = field(default_factory=list)
    fresh: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    built: Built = field(default_factory=Built)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "dumps": [asdict(record) for record in self.records],
            "fresh": self.fresh,
            "failed": self.failed,
            "chains": asdict(self.built),
        }


class Ingest:
    """Ingests dumps with the settings' filters.

    Raises:
        SettingsError: a setting is missing or wrong.
    """

    def __init__(self, settings: Settings, layout: Layout) -> None:
        self.settings, self.layout = settings, layout
        self.store = Store.from_settings(settings, layout)
        self.filters = Filters.from_settings(settings)
        self.options = ChainOptions(
            settings.chunk_rows, settings.ingest_text, settings.ingest_text_tokens or 256
        )
        self.threads = settings.threads or available_cores()

    def fresh(self, key: str, path: Path) -> Record | None:
        """The dump's record, if it is of this file and these filters.

        Raises:
            BadFileError: there is no such file, or its record is damaged.
        """
        record = self.store.record(key)
        stamp = dump_stamp(path, self.filters, skip_corrupt=self.settings.skip_corrupt)
        if record is None or not stamp or record.stamp != stamp:
            return None
        return record if record.error or self.store.messages(record).is_file() else None

    def waiting(self, dumps: dict[str, Path]) -> list[Path]:
        """Dumps that are not ingested as they are. Raises BadFileError."""
        records = {path: self.fresh(key, path) for key, path in dumps.items()}
        return [path for path, record in records.items() if record is None or record.error]

    def need(self, paths: Iterable[Path]) -> Need:
        """The room that these dumps will take."""
        sizes = []
        for path in paths:
            if path != STDIN:
                plain = path.suffix in (".jsonl", ".ndjson", ".json")
                sizes.append(path.stat().st_size * (_PLAIN if plain else 1.0))
        folder = self.store.root
        while not folder.exists():
            folder = folder.parent
        room = int(sum(sizes) * (_KEPT + _CHAINS))
        return Need(room, int(max(sizes, default=0) * _SORTED), shutil.disk_usage(folder).free)

    def dump(
        self, key: str, path: Path, progress: Callable[[Seen], None] = lambda seen: None
    ) -> Record:
        """Ingest one. Raises BadFileError and WriteError."""
        return ingest_dump(
            self.store,
            path,
            key,
            self.filters,
            threads=self.threads,
            skip_corrupt=self.settings.skip_corrupt,
            progress=progress,
        )

    def chains(
        self,
        progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        wait: Callable[[], None] | None = None,
        processes: int | None = None,
    ) -> Built:
        """Make the chain files of all ingested dumps.

        Args:
            progress: called with rows done and rows to do.
            wait: called every second while another process makes them; none: not waited for.

        Raises:
            StartupError: another process makes them, or other programs' files are in their place.
            BadFileError: what was kept of a dump is damaged.
            WriteError: the disk is full.
        """
        with self.store.lock(wait=wait):
            built = build_chains(
                self.store,
                self.layout.chains,
                self.options,
                processes=processes or self.threads,
                progress=progress,
            )
            self.store.tidy()
        return built

    def all(
        self,
        dumps: dict[str, Path],
        seen: Callable[[str, Seen], None],
        progress: Callable[[int, int], None],
    ) -> Summary:
        """Ingest what is not fresh, then make chain files; a dump that fails, fails alone."""
        summary = Summary()
        for key, path in dumps.items():
            try:
                record = self.fresh(key, path)
                if record is None or record.error:
                    record = self.dump(key, path, partial(seen, key))
                else:
                    summary.fresh += 1
                summary.records.append(record)
            except RedditAssetsError as error:
                if error.host_fault:
                    raise
                summary.failed[key] = str(error)
        summary.built = self.chains(progress)
        return summary


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
