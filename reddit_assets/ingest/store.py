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
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.oserrors import reading, unreadable, writing
from reddit_assets.corpus.output import publish
from reddit_assets.errors import BadFileError, NotFoundError, SettingsError, StartupError
from reddit_assets.ingest.filters import Filters
from reddit_assets.settings import Settings

__all__ = ["STDIN", "Record", "Store", "dump_stamp", "find_dumps", "section_of"]

FORMAT = 1
STDIN = Path("-")
_SUFFIXES = (".zst", ".zst_blocks", ".gz", ".jsonl", ".ndjson", ".json", ".parquet")
_MONTH = re.compile(r"(?<![0-9])(\d{4}-(?:0[1-9]|1[0-2]))(?![0-9])")
_RECORD = "record.json"
_FILES = "files"  # the lock of the records and the files that they name
_LOCK_SECONDS = 1.0


@dataclass(frozen=True)
class Record:
    """What became of a dump.

    Attributes:
        key: the dump's name: its path below the folder of dumps.
        section: the month in its name.
        stamp: of the dump's file and of the filters.
        messages: name of the file of messages; empty if the dump never was read whole.
        error: why it failed; the messages, if any, and the counts are of the dump before.
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
        """Of a dump, if it has one.

        Raises:
            BadFileError: it is damaged, or the operating system does not let us read it.
        """
        path = self.folder(key) / _RECORD
        try:
            with reading(path):
                return Record(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            raise BadFileError(
                f"{path} is damaged.",
                hint=f"Take the dump out and ingest it again: reddit-assets ingest --forget {key}.",
            ) from None

    def records(self) -> list[Record]:
        """Of every dump, in the order of their sections and names.

        Raises:
            BadFileError: one is damaged, or a folder cannot be read: none is passed by.
        """
        found = []
        for path in self._files(lambda name: name == _RECORD):
            record = self.record(path.parent.relative_to(self.root).as_posix())
            if record is not None:
                found.append(record)
        return sorted(found, key=lambda record: (record.section, record.key))

    def _files(self, wanted: Callable[[str], bool]) -> Iterator[Path]:
        """Files of dumps."""

        def refuse(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):  # forgotten meanwhile
                raise unreadable(error.filename, error) from None

        for folder, below, names in os.walk(self.root, onerror=refuse):
            below[:] = [name for name in below if not name.startswith(".")]
            yield from (Path(folder, name) for name in names if wanted(name))

    def publish(self, record: Record, files: Mapping[Path, Path] | None = None) -> None:
        """Make a record the dump's, behind its files.

        The files of the record before stay until :meth:`tidy`: chain files may just be made of
        them.

        Args:
            files: synced temporary files and their names.

        Raises:
            WriteError: the disk is full.
        """
        path = self.folder(record.key) / _RECORD
        temporary = path.with_name(f"{_RECORD}.{os.getpid()}.tmp")
        with self.lock(_FILES, wait=lambda: None):
            for final in (path, *(files or {}).values()):
                with writing(final):
                    final.parent.mkdir(parents=True, exist_ok=True)
            for made, final in (files or {}).items():
                publish(made, final)
            with writing(path), open(temporary, "w", encoding="utf-8") as file:
                json.dump(asdict(record), file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            publish(temporary, path)

    def forget(self, key: str) -> bool:
        """Delete a dump's messages; whether there were any.

        Raises:
            StartupError: chain files are being made of them.
        """
        path = self.folder(key) / _RECORD
        with self.lock(), self.lock(_FILES, wait=lambda: None):
            if not path.exists():
                return False
            with writing(path):
                path.unlink()
                shutil.rmtree(path.parent)
                self.rejected_path(key).unlink(missing_ok=True)
        return True

    def tidy(self) -> None:
        """Delete files of messages that no record names. The caller holds the lock for chains."""
        with self.lock(_FILES, wait=lambda: None):
            kept = {
                path
                for record in self.records()
                if record.messages
                for path in (self.messages(record), self.index(record))
            }
            for path in self._files(lambda name: name.startswith("messages-")):
                if path not in kept:
                    path.unlink(missing_ok=True)

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
    def lock(
        self, name: str = "chains", *, wait: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """For one process at a time.

        Args:
            name: of the lock: that of the chain files.
            wait: called every second until the lock is free; none: it is not waited for.

        Raises:
            StartupError: another process holds it.
        """
        import fcntl

        path = self.root / f".{name}.lock"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "a+")  # noqa: SIM115 - closed below
        with file:
            while True:
                with writing(path), suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if wait is None:
                    raise StartupError(
                        f"Another process makes chain files from {self.root}.",
                        hint="Wait until it is done.",
                    )
                wait()
                time.sleep(_LOCK_SECONDS)
            yield


def section_of(key: str) -> str:
    """The month in a dump's name (``RC_2023-05.zst`` → ``2023-05``); empty if it has none."""
    found = _MONTH.findall(key.rsplit("/", 1)[-1])
    return found[-1] if found else ""


def dump_stamp(path: Path, filters: Filters, *, skip_corrupt: bool) -> str:
    """What a record must have to be of this file and these filters.

    Raises:
        UnreadableFileError: there is no such file, or the operating system refuses.
    """
    if path == STDIN:
        return ""
    try:
        stat = path.stat()
    except OSError as error:
        raise unreadable(path, error) from None
    return f"{FORMAT}-{stat.st_size}-{stat.st_mtime_ns}-{filters.fingerprint}-{skip_corrupt:d}"


def find_dumps(
    paths: Iterable[Path], dumps: Path, *, name: str = "", empty: bool = False
) -> dict[str, Path]:
    """Dumps by their keys: the path below ``dumps`` or the given folder, or the file's name.

    Args:
        name: of what comes from standard input.
        empty: a folder may hold none.

    Raises:
        NotFoundError: there is no such file, or none in a folder; or two have the same key.
        SettingsError: standard input has no name, or one that is no file's.
    """
    found: dict[str, Path] = {}

    def add(key: str, path: Path) -> None:
        if found.setdefault(key, path) != path:
            raise NotFoundError(
                f"{found[key]} and {path} have the same name.", hint="Ingest their folder."
            )

    for path in paths:
        if path == STDIN:
            add(_stdin_name(name), path)
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
                add(_key(file, path, dumps), file)
        elif path.exists():
            add(_key(path, path.absolute().parent, dumps), path)
        else:
            raise NotFoundError(f"There is no file {path}.", hint="Check its name.")
    return found


def _key(path: Path, base: Path, dumps: Path) -> str:
    whole = path.absolute()
    below = whole.is_relative_to(dumps)
    return whole.relative_to(dumps if below else base.absolute()).as_posix()


def _stdin_name(name: str) -> str:
    if not name or name.startswith(".") or name != Path(name).name:
        raise SettingsError(
            f"{name} cannot be the name of a dump." if name else "Standard input has no name.",
            hint="Say which dump it is: --name RC_2023-05.jsonl.",
        )
    return name
