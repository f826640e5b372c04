"""Where dumps' messages are kept between parsing and threads, and the record of each dump.

``ingested/<dump>/`` holds one sorted file of messages, the index of its subreddits, and
``record.json``, whose appearance says that the other two are whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.output import publish, writing
from reddit_assets.errors import BadFileError, NotFoundError, StartupError
from reddit_assets.ingest.filters import Filters
from reddit_assets.settings import Settings

__all__ = ["STDIN", "Record", "Store", "dump_stamp", "find_dumps", "section_of"]

FORMAT = 1
STDIN = Path("-")
_SUFFIXES = (".zst", ".zst_blocks", ".gz", ".jsonl", ".ndjson", ".json", ".parquet")
_MONTH = re.compile(r"(?<![0-9])(\d{4}-(?:0[1-9]|1[0-2]))(?![0-9])")
_RECORD = "record.json"


@dataclass(frozen=True)
class Record:
    """What became of a dump.

    Attributes:
        key: the dump's name: its path below the folder of dumps.
        section: the month in its name.
        stamp: of the dump's file and of the filters.
        messages: name of the file of messages; empty if the dump failed.
        error: why it failed.
        lines, rows, written, rejected: how many; ``written`` of the rows have text.
        filtered: rows by the filter that took them.
        bytes_in, bytes_text, bytes_out: of the dump, of its text, of the file of messages.
    """

    key: str
    section: str
    stamp: str
    messages: str = ""
    error: str = ""
    lines: int = 0
    rows: int = 0
    written: int = 0
    rejected: int = 0
    filtered: dict[str, int] = field(default_factory=dict)
    subreddits: int = 0
    bytes_in: int = 0
    bytes_text: int = 0
    bytes_out: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Store:
    """The folders that ingesting writes.

    Attributes:
        root: ``ingested/``.
        rejected: ``rejected/``.
        dumps: ``dumps/``, which is only read.
    """

    root: Path
    rejected: Path
    dumps: Path

    @classmethod
    def from_settings(cls, settings: Settings, layout: Layout) -> Store:
        """Beside the chain files, or below the root."""
        root = settings.root.absolute() if settings.root else layout.chains.parent
        dumps = (settings.dumps_dir or root / "dumps").absolute()
        return cls(root / "ingested", root / "rejected", dumps)

    def folder(self, key: str) -> Path:
        """Of one dump."""
        return self.root / key

    def messages(self, record: Record) -> Path:
        """A dump's messages, sorted."""
        return self.folder(record.key) / record.messages

    def index(self, record: Record) -> Path:
        """Its subreddits: place, first row, rows, digest."""
        return self.messages(record).with_suffix(".index")

    def record(self, key: str) -> Record | None:
        """Of a dump, if it has one."""
        try:
            text = (self.folder(key) / _RECORD).read_text("utf-8")
            return Record(**json.loads(text))
        except (OSError, ValueError, TypeError):
            return None

    def records(self) -> list[Record]:
        """Of every dump, in the order of their sections and names."""
        found = []
        for path in self.root.rglob(_RECORD):
            record = self.record(path.parent.relative_to(self.root).as_posix())
            if record is not None:
                found.append(record)
        return sorted(found, key=lambda record: (record.section, record.key))

    def publish(self, record: Record) -> None:
        """Make a record the dump's, and delete the files of the one before."""
        before = self.record(record.key)
        path = self.folder(record.key) / _RECORD
        temporary = path.with_name(f"{_RECORD}.{os.getpid()}.tmp")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump(asdict(record), file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
        publish(temporary, path)
        if before is not None and before.messages and before.messages != record.messages:
            for old in (self.messages(before), self.index(before)):
                old.unlink(missing_ok=True)

    def forget(self, key: str) -> bool:
        """Delete a dump's messages; whether there were any."""
        if self.record(key) is None:
            return False
        (self.folder(key) / _RECORD).unlink()
        shutil.rmtree(self.folder(key))
        with suppress(FileNotFoundError):
            self.rejected_path(key).unlink()
        return True

    def rejected_path(self, key: str) -> Path:
        """Where the lines of a dump go that are no messages."""
        return self.rejected / f"{key}.jsonl"

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for temporary files; those of dead processes of this host are removed."""
        host = socket.gethostname()
        for old in self.root.glob(f".tmp-{host}-*"):
            process = old.name.rpartition("-")[2]
            if process.isdigit() and not psutil.pid_exists(int(process)):
                shutil.rmtree(old, ignore_errors=True)
        folder = self.root / f".tmp-{host}-{os.getpid()}"
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def lock(self, *, wait: bool) -> Iterator[None]:
        """For whoever writes chain files.

        Raises:
            StartupError: another process holds it.
        """
        import fcntl

        path = self.root / ".lock"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "a+")  # noqa: SIM115 - closed below
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise StartupError(
                    f"Another process makes chain files from {self.root}.",
                    hint="Wait until it is done.",
                ) from None
            yield


def section_of(key: str) -> str:
    """The month in a dump's name (``RC_2023-05.zst`` → ``2023-05``); empty if it has none."""
    found = _MONTH.findall(key.rsplit("/", 1)[-1])
    return found[-1] if found else ""


def dump_stamp(path: Path, filters: Filters, *, skip_corrupt: bool) -> str:
    """What a record must have to be of this file and these filters.

    Raises:
        BadFileError: there is no such file.
    """
    if path == STDIN:
        return ""
    try:
        stat = path.stat()
    except OSError as error:
        raise BadFileError(f"{path} cannot be read: {error.strerror}.") from None
    return f"{FORMAT}-{stat.st_size}-{stat.st_mtime_ns}-{filters.fingerprint}-{skip_corrupt:d}"


def find_dumps(paths: Iterable[Path], dumps: Path, *, empty: bool = False) -> dict[str, Path]:
    """Dumps by their keys: the path below ``dumps`` or the given folder, or the file's name.

    Args:
        empty: a folder may hold none.

    Raises:
        NotFoundError: there is no such file, or none in a folder; or two have the same key.
    """
    found: dict[str, Path] = {}

    def add(path: Path, base: Path) -> None:
        whole = path.absolute()
        below = whole.is_relative_to(dumps)
        key = whole.relative_to(dumps if below else base.absolute()).as_posix()
        if found.setdefault(key, path) != path:
            raise NotFoundError(
                f"{found[key]} and {path} have the same name.", hint="Ingest their folder."
            )

    for path in paths:
        if path == STDIN:
            found["stdin.jsonl"] = path
        elif path.is_dir():
            files = sorted(
                file
                for file in path.rglob("*")
                if file.name.endswith(_SUFFIXES)
                and not file.name.startswith(".")
                and file.is_file()
            )
            if not files and not empty:
                raise NotFoundError(
                    f"There is no dump in {path}.", hint=f"Dumps end in {', '.join(_SUFFIXES)}."
                )
            for file in files:
                add(file, path)
        elif path.exists():
            add(path, path.absolute().parent)
        else:
            raise NotFoundError(f"There is no file {path}.", hint="Check its name.")
    return found
