"""Child processes that are found again after a crash of their parent: started, recorded, ended.

Every child runs in a session of its own (Ctrl+C in the terminal reaches only the parent, which
decides the order of the ends) and carries ``REDDIT_ASSETS_FAMILY`` in its environment, as do all
its descendants. Its process id and the time it was created are recorded in a file, since servers
that rewrite their process title lose the environment that could be looked at.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from reddit_assets.errors import StartupError
from reddit_assets.local.private import private_opener

__all__ = [
    "FAMILY_VARIABLE",
    "Child",
    "clear_leftovers",
    "end_processes",
    "family_of",
    "session_of",
    "tree_of",
]

FAMILY_VARIABLE = "REDDIT_ASSETS_FAMILY"

# psutil reads a process's creation time in clock ticks: twice the same process differs by less.
SAME_CREATION_SECONDS = 1.0

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def family_of(records: Path) -> str:
    """The mark of all processes that were started with this folder of records."""
    return hashlib.sha256(str(records.resolve()).encode()).hexdigest()[:16]


class Child:
    """One child process in a session of its own, recorded on disk while it may be alive.

    Args:
        name: its name in records, logs and messages.
        command: the command line.
        records: the folder that holds one ``<name>.json`` per child.
        log: the file that its output is appended to.
        environment: variables beside those of this process.
        stop_signal: the signal that ends it in good order.
        user: the account it runs under, for servers that refuse to run as root.
        cwd: the folder it runs in.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        records: Path,
        log: Path,
        environment: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        user: str | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.command = [str(part) for part in command]
        self.log = log
        self.stop_signal = stop_signal
        self._records = records
        self._environment = dict(environment or {})
        self._user = user
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """Its process id, or None when it was not started or was ended."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Starts it.

        Raises:
            StartupError: the program cannot be run.
        """
        self._records.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = {**os.environ, **self._environment}
        environment[FAMILY_VARIABLE] = family_of(self._records)
        as_user = {} if self._user is None else _account(self._user)
        try:
            with open(self.log, "ab", opener=private_opener) as log:
                os.fchmod(log.fileno(), 0o600)  # One of an earlier version was everybody's.
                self._log_start = log.tell()
                self._process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd=self._cwd,
                    start_new_session=True,
                    **as_user,  # type: ignore[call-overload]
                )
        except OSError as error:
            raise StartupError(
                f"{self.name} cannot be started: {error}.",
                hint=f"Check that {self.command[0]} exists and can be run.",
            ) from error
        self._record(self._process.pid)

    def poll(self) -> int | None:
        """Its exit status, or None while it runs (or was never started)."""
        return None if self._process is None else self._process.poll()

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the process itself, not to its descendants."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def wait(self, timeout: float) -> bool:
        """Waits for its end; False when it still runs after ``timeout`` seconds."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self, timeout: float = 5.0) -> None:
        """Ends it in good order, and by force together with its descendants after ``timeout``."""
        if self._process is None:
            return
        descendants = tree_of(self._process.pid)
        self.send(self.stop_signal)
        self.wait(timeout)
        self.reap(descendants)

    def reap(self, descendants: Iterable[psutil.Process] = ()) -> None:
        """Kills what is left of it and of its session, and forgets it."""
        if self._process is None:
            return
        pid = self._process.pid
        members = {*descendants, *tree_of(pid), *session_of(pid)}
        self._process.kill()
        self._process.wait()
        end_processes({*members, *session_of(pid)}, grace=0)
        self._process = None
        self._record_path.unlink(missing_ok=True)

    def output(self, limit: int = 2_000) -> str:
        """The end of what it wrote since it was started, at most ``limit`` characters."""
        try:
            with self.log.open("rb") as log:
                # What was written since may lie in an older part of the log.
                start = self._log_start if self._log_start <= os.fstat(log.fileno()).st_size else 0
                log.seek(start)
                text = log.read().decode(errors="replace")[-limit:].strip()
                return _COLOUR.sub("", text)
        except OSError:
            return ""

    @property
    def _record_path(self) -> Path:
        return self._records / f"{self.name}.json"

    def _record(self, pid: int) -> None:
        try:
            created = psutil.Process(pid).create_time()
        except psutil.Error:
            return  # It has ended already; there is nothing to find again.
        text = json.dumps({"pid": pid, "created": created, "command": self.command[:3]})
        temporary = self._record_path.with_suffix(".tmp")
        temporary.write_text(text)
        temporary.replace(self._record_path)


def clear_leftovers(records: Path, grace: float = 5.0) -> list[str]:
    """Ends what an earlier parent left running, and removes its records.

    A recorded process is ours only if the one that has its id now was created at the recorded
    time. Descendants are found by the mark in their environment. The caller holds the lock of
    the folder, so that no living parent's children are touched.

    Args:
        records: the folder of records.
        grace: seconds that they get to end in good order.

    Returns:
        The names of what was found running.
    """
    found: dict[psutil.Process, str] = {}
    for path in sorted(records.glob("*.json")):
        process = _recorded(path)
        if process is None:
            continue
        for member in (process, *tree_of(process.pid), *session_of(process.pid)):
            found.setdefault(member, path.stem)
    family = family_of(records)
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            if process.environ().get(FAMILY_VARIABLE) == family:
                found.setdefault(process, process.name())
        except (psutil.Error, OSError):
            continue  # Gone meanwhile, or of another account: not ours.
    end_processes(found, grace=grace)
    for path in records.glob("*.json"):
        path.unlink(missing_ok=True)
    return sorted(set(found.values()))


def end_processes(processes: Iterable[psutil.Process], *, grace: float) -> None:
    """Asks the processes to end (SIGINT: a database's fast shutdown) and kills the rest.

    Args:
        processes: what to end.
        grace: seconds between the two; 0 kills at once.
    """
    alive = [process for process in processes if process.is_running()]
    if grace > 0:
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGINT)
        _, alive = psutil.wait_procs(alive, timeout=grace)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    # Zombies of another parent never leave; do not wait for them for long.
    psutil.wait_procs(alive, timeout=2)


def _recorded(path: Path) -> psutil.Process | None:
    try:
        record = json.loads(path.read_text())
        process = psutil.Process(int(record["pid"]))
        same = abs(process.create_time() - float(record["created"])) < SAME_CREATION_SECONDS
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None
    return process if same else None


def tree_of(pid: int) -> list[psutil.Process]:
    """All descendants that still have their parents."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def session_of(leader: int) -> list[psutil.Process]:
    """The session's other members; an id stays taken as long as its session has a member."""
    members = []
    for pid in psutil.pids():
        try:
            if pid != leader and os.getsid(pid) == leader:
                members.append(psutil.Process(pid))
        except (psutil.Error, OSError):
            continue
    return members


def _account(user: str) -> dict[str, object]:
    import pwd

    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
