"""Whether a computing process is alive and makes progress: what a lease depends on."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum

import psutil

__all__ = ["Life", "Liveness"]

# A look at less than this many seconds says nothing of the share of a processor that was used.
_LOOK_SECONDS = 1.0
# A child that waits (for work, or for a backend that never answers) polls, with at most 1 % of a
# core. One thread that computes gets at least this share, even of a crowded host.
_COMPUTING_SHARE = 0.05
# Bytes read and written per look. A child that only polls its pipe moves fewer.
_MOVING_BYTES = 100_000


class Life(StrEnum):
    """How a process is."""

    ALIVE = "alive"
    STOPPED = "stopped"  # frozen by a signal
    STALLED = "stalled"
    DEAD = "dead"


class Liveness:
    """Watches one process.

    Embedding reports progress every few seconds, so its silence means a hang, however busy its
    threads are. HDBSCAN can compute for hours in C, hold the interpreter and say nothing:
    for a silent task the processor time that it uses counts as well. Reading and writing counts
    for both: a large file on a slow share takes its time.

    Args:
        pid: the process.
        stall_seconds: without any of these for so many seconds, it hangs.
        clock: seconds; for tests.
    """

    def __init__(
        self, pid: int, stall_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.silent = True  # until its task is loaded and says otherwise
        self._process = psutil.Process(pid)
        self._stall = stall_seconds
        self._clock = clock
        self._moved = self._looked = clock()
        self._used, self._bytes = 0.0, 0

    def progressed(self) -> None:
        """The process has said something, or was given something to do."""
        self._moved = self._clock()

    def state(self) -> Life:
        """How it is now."""
        try:
            status = self._process.status()
            if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                return Life.DEAD
            if status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP):
                return Life.STOPPED
            self._look()
        except psutil.NoSuchProcess:
            return Life.DEAD
        return Life.STALLED if self._clock() - self._moved > self._stall else Life.ALIVE

    def _look(self) -> None:
        now = self._clock()
        seconds = now - self._looked
        if seconds < _LOOK_SECONDS:
            return
        times = self._process.cpu_times()
        used, moved = times.user + times.system, self._transferred()
        computes = self.silent and used - self._used >= _COMPUTING_SHARE * seconds
        if computes or moved - self._bytes >= _MOVING_BYTES:
            self._moved = now
        self._looked, self._used, self._bytes = now, used, moved

    def _transferred(self) -> int:
        """Bytes that it has read and written; 0 where the system does not say (macOS)."""
        try:
            counters = self._process.io_counters()
        except (AttributeError, psutil.AccessDenied):
            return 0
        return int(
            getattr(counters, "read_chars", counters.read_bytes)
            + getattr(counters, "write_chars", counters.write_bytes)
        )

    def resident_mb(self) -> float:
        """Resident memory in megabytes; 0 when the process is gone."""
        try:
            return float(self._process.memory_info().rss) / 1e6
        except psutil.NoSuchProcess:
            return 0.0
