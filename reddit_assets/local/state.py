"""The local folder of one root: servers' data, logs, process records, and the lock of ``up``."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from reddit_assets.errors import StartupError
from reddit_assets.local.private import FORGET, private_folder, private_opener

__all__ = ["StateDir", "default_state_dir"]


def default_state_dir(root: Path) -> Path:
    """The folder for ``root`` under the user's state directory; the same for the same path."""
    # Not platformdirs: on macOS its answer depends on its version and on XDG_STATE_HOME, and the
    # databases of an earlier start must be found again.
    resolved = root.resolve()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    mark = hashlib.sha256(str(resolved).encode()).hexdigest()[:8]
    return base / "reddit-assets" / f"{resolved.name or 'root'}-{mark}"


@dataclass
class StateDir:
    """The folder, and the lock that one ``up`` holds on it.

    The lock is the kernel's (flock): it falls with its process, however that dies.
    """

    path: Path

    def __post_init__(self) -> None:
        self._lock: IO[str] | None = None

    @property
    def records(self) -> Path:
        """Records of child processes."""
        return self.path / "processes"

    @property
    def dagster_home(self) -> Path:
        """DAGSTER_HOME of the instance."""
        return self.path / "dagster_home"

    def log(self, name: str) -> Path:
        """The log file of a child."""
        return self.path / "logs" / f"{name}.log"

    def acquire(self) -> None:
        """Takes the lock.

        Raises:
            StartupError: another process holds it, or the folder cannot be written.
        """
        try:
            for folder in (self.path, self.records, self.dagster_home, self.log("x").parent):
                private_folder(folder)
            lock = os.fdopen(private_opener(str(self.path / "lock"), os.O_CREAT | os.O_RDWR), "r+")
        except OSError as error:
            raise StartupError(
                f"The state folder {self.path} cannot be used: {error.strerror}.",
                hint="Set REDDIT_STATE_DIR to a local folder that can be written.",
            ) from error
        if (foreign := self._foreign()) is not None:
            lock.close()
            raise StartupError(f"{foreign} belongs to another account.", hint=FORGET)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            facts = self.facts()
            page = f", its page is {facts['page']}" if facts.get("page") else ""
            raise StartupError(
                f"`reddit-assets up` runs for this root already "
                f"(process {facts.get('pid', 'unknown')}{page}).",
                hint="End it with Ctrl+C there first.",
            ) from None
        self._lock = lock
        self.note(pid=os.getpid())

    def _foreign(self) -> Path | None:
        """Something in the folder that another account owns, as after a copy; root may use it."""
        if os.geteuid() == 0:
            return None
        for folder in (self.path, self.records, self.dagster_home, self.log("x").parent):
            for entry in os.scandir(folder):
                if entry.stat(follow_symlinks=False).st_uid != os.geteuid():
                    return Path(entry.path)
        return None

    def identity(self) -> str:
        """A random name, made once: the folder's embedded queue goes by it."""
        path = self.path / "id"
        if not path.exists():
            self._write(path, secrets.token_hex(8))
        return path.read_text()

    def note(self, **facts: Any) -> None:
        """Writes what a second ``up`` should say of this one."""
        self._write(self.path / "up.json", json.dumps(facts))

    @staticmethod
    def _write(path: Path, text: str) -> None:
        with open(path, "w", encoding="utf-8", opener=private_opener) as file:
            file.write(text)

    def facts(self) -> dict[str, Any]:
        """What the holder of the lock has noted."""
        try:
            facts = json.loads((self.path / "up.json").read_text())
        except (OSError, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

    @property
    def in_use(self) -> bool:
        """Whether a living process holds the lock."""
        try:
            with (self.path / "lock").open("r", encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def release(self) -> None:
        """Gives the lock back."""
        if self._lock is not None:
            (self.path / "up.json").unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def __enter__(self) -> StateDir:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
