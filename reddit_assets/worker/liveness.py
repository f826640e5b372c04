"""Whether a computing process is alive and getting on: what a lease hangs on."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

__all__ = ["Liveness"]

# Processor time below this per look is what an idle interpreter uses.
_IDLE_SECONDS = 0.005


class Liveness:
    """Watches one process.

    A job that computes for hours in C uses processor time even when it holds the interpreter and
    can say nothing; a hung one does neither; a stopped one must not keep its lease.

    Args:
        pid: the process.
        stall_seconds: without progress or processor time for so long, it hangs.
        clock: seconds; for tests.
    """

    def __init__(
        self, pid: int, stall_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._process = psutil.Process(pid)
        self._stall = stall_seconds
        self._clock = clock
        self._used = 0.0
        self._moved = clock()

    def progressed(self) -> None:
        """The process has said something."""
        self._moved = self._clock()

    def state(self) -> str:
        """``alive``, ``stopped`` (frozen by a signal), ``stalled`` or ``dead``."""
        try:
            status = self._process.status()
            times = self._process.cpu_times()
        except psutil.NoSuchProcess:
            return "dead"
        if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return "dead"
        if status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP):
            return "stopped"
        used = times.user + times.system
        if used - self._used > _IDLE_SECONDS:
            self._used = used
            self._moved = self._clock()
        if self._clock() - self._moved > self._stall:
            return "stalled"
        return "alive"

    def resident_mb(self) -> float:
        """Resident memory in megabytes; 0 when the process is gone."""
        try:
            return float(self._process.memory_info().rss) / 1e6
        except psutil.NoSuchProcess:
            return 0.0
