"""``embeddings/.up.json``: which ``up`` works on a tree, for those on other hosts.

The lock of the state folder keeps two apart that share the folder. Two hosts share the tree only:
there a file says who is at work, and is written again every few seconds. Hosts may share a tree if
they share a queue; with two queues, everything would be computed twice.

Only what every file system has is used: exclusive creation, renames, and the file system's own
clock (the times of two files that were just written), since those of two hosts differ.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from reddit_assets.errors import StartupError

__all__ = ["TreeLock", "state_dir_of_up"]

log = logging.getLogger(__name__)

FILE_NAME = ".up.json"
RENEW_SECONDS = 10.0
STALE_SECONDS = 60.0


def state_dir_of_up(folder: Path) -> Path | None:
    """The state folder of the ``up`` that works on a tree, by whatever path the tree is reached.

    Only one of this account is named: what lies there says where jobs are taken from.

    Args:
        folder: the tree of embeddings.
    """
    with suppress(OSError, ValueError, TypeError, KeyError):
        path = Path(json.loads((folder / FILE_NAME).read_bytes())["state_dir"])
        if path.is_absolute() and path.stat().st_uid == os.geteuid():
            return path
    return None


class TreeLock:
    """Held by every ``up`` of one queue together.

    Args:
        folder: the tree of embeddings.
        queue: what identifies the queue, the same for all who share it.
        facts: who this is: ``page`` and ``state_dir``; ``command``, if it is not ``up``.
        lost: called once from the renewing thread, with a sentence, if another queue's ``up`` has
            taken the tree (this host slept, or its share was away for a minute).
    """

    def __init__(
        self, folder: Path, queue: str, facts: Mapping[str, str], lost: Callable[[str], None]
    ) -> None:
        self._path = folder / FILE_NAME
        self._queue = queue
        self._content = {
            "queue": queue,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "renewed_seconds": RENEW_SECONDS,
            **facts,
        }
        self._lost = lost
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="tree lock", daemon=True)

    def acquire(self) -> None:
        """Takes it, and keeps it until :meth:`release`.

        Raises:
            StartupError: an ``up`` with another queue works on the tree, or it cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            holder = self._take()
        except OSError as error:
            raise StartupError(
                f"{self._path} cannot be written: {error.strerror}.",
                hint="Embeddings are written beside it: give this account the right to.",
            ) from error
        if holder is not None:
            raise StartupError(
                f"Another `reddit-assets {_command(holder)}` works on {self._path.parent}: "
                f"{_words(holder)}.",
                hint="End it there, or give both the same queue (REDIS_URL); with two queues "
                f"everything would be computed twice. If it is dead, wait {STALE_SECONDS:.0f} s.",
            )
        self._thread.start()

    def release(self) -> None:
        """Gives it back. Others who share the queue write it again."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)
        with suppress(OSError):
            if self._read(self._path) == self._content:
                self._path.unlink(missing_ok=True)

    def __enter__(self) -> TreeLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_SECONDS):
            try:
                holder = self._take()
            except OSError as error:
                log.debug("%s cannot be renewed now: %s", self._path, error)
                continue
            if holder is not None:
                self._lost(
                    f"Another `reddit-assets {_command(holder)}` has taken the tree: "
                    f"{_words(holder)}."
                )
                return

    def _take(self) -> dict[str, Any] | None:
        """Writes it if it is missing, this queue's, or stale; else says who holds it."""
        while True:
            with suppress(FileExistsError):
                self._create()
                return None
            try:
                found, age = self._read(self._path), self._age()
            except FileNotFoundError:
                continue
            if found.get("queue") == self._queue:
                self._replace()
                return None
            if age < STALE_SECONDS or not self._remove(found):
                return found

    def _create(self) -> None:
        descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        with os.fdopen(descriptor, "w") as file:
            json.dump(self._content, file)

    def _replace(self) -> None:
        aside = self._aside()
        aside.write_text(json.dumps(self._content))
        aside.replace(self._path)

    def _remove(self, stale: Mapping[str, Any]) -> bool:
        """Removes what was found stale; False if another one had replaced it meanwhile."""
        aside = self._aside()
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return True
        same = self._read(aside) == stale
        if not same and not self._path.exists():
            aside.rename(self._path)
        aside.unlink(missing_ok=True)
        return same

    def _age(self) -> float:
        """Seconds since it was written, by the clock of the file system."""
        probe = self._aside()
        try:
            with probe.open("wb") as file:
                file.write(b".")
                file.flush()
                os.fsync(file.fileno())
                now = os.fstat(file.fileno()).st_mtime
        finally:
            probe.unlink(missing_ok=True)
        # Opened, not looked up: a network file system may answer a stat from its cache.
        with self._path.open("rb") as file:
            return now - os.fstat(file.fileno()).st_mtime

    def _aside(self) -> Path:
        return self._path.with_name(f".up.{secrets.token_hex(4)}.tmp")

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        """What it says; nothing while it is being created."""
        try:
            found = json.loads(path.read_bytes())
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def _command(holder: Mapping[str, Any]) -> str:
    return str(holder.get("command", "up"))


def _words(holder: Mapping[str, Any]) -> str:
    page = f", page {holder['page']}" if holder.get("page") else ""
    state = f", state folder {holder['state_dir']}" if holder.get("state_dir") else ""
    host = holder.get("host", "an unknown host")
    return f"on {host} (process {holder.get('pid', 'unknown')}{page}{state})"
