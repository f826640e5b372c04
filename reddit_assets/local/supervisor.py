"""Keeps children running: restarts what crashed, with growing waits, and ends all together."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil

from reddit_assets.errors import StartupError
from reddit_assets.local.processes import Child, end_processes, session_of, tree_of

__all__ = ["Charge", "Supervisor", "end_together"]

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0
# A child that ran for this long before it ended did not fail at its start.
HEALTHY_SECONDS = 30.0


@dataclass
class Charge:
    """A child in the supervisor's care.

    Attributes:
        name: as in messages.
        start: starts a new process and returns it.
        child: the running process; ``None`` while it waits to be restarted.
        restarts: how often it was restarted.
        failures: how often in a row it ended soon after its start.
    """

    name: str
    start: Callable[[], Child]
    child: Child | None = None
    restarts: int = 0
    failures: int = 0
    _started: float = field(default=0.0, repr=False)
    _due: float = field(default=0.0, repr=False)


class Supervisor:
    """A group of children.

    Args:
        say: gets a sentence about each crash and restart.
        clock: seconds; only tests give another one.
    """

    def __init__(
        self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.charges: dict[str, Charge] = {}
        self._say = say
        self._clock = clock

    def add(self, name: str, start: Callable[[], Child]) -> Charge:
        """Starts a child and takes care of it.

        Raises:
            StartupError: it cannot be started.
        """
        charge = Charge(name, start)
        self.charges[name] = charge
        self._start(charge)
        return charge

    def tick(self) -> None:
        """Looks at every child: notes who ended, restarts who is due."""
        now = self._clock()
        for charge in self.charges.values():
            if charge.child is not None and not charge.child.running:
                self._ended(charge, now)
            elif charge.child is None and now >= charge._due:
                charge.restarts += 1
                try:
                    self._start(charge)
                except StartupError as error:
                    self._wait(charge, now, error.message)

    def most_failures(self) -> Charge | None:
        """The child that failed most often in a row at its start; ``None`` if none did."""
        failing = [charge for charge in self.charges.values() if charge.failures]
        return max(failing, key=lambda charge: charge.failures, default=None)

    @property
    def restarts(self) -> int:
        """Restarts of all children together."""
        return sum(charge.restarts for charge in self.charges.values())

    def children(self) -> list[Child]:
        """Every child that has a process."""
        return [charge.child for charge in self.charges.values() if charge.child is not None]

    def _start(self, charge: Charge) -> None:
        charge.child = charge.start()
        charge._started = self._clock()

    def _ended(self, charge: Charge, now: float) -> None:
        assert charge.child is not None
        status, output = charge.child.poll(), charge.child.output(400)
        last = output.splitlines()[-1] if output else ""
        charge.child.reap()  # its descendants do not outlive it
        charge.child = None
        if now - charge._started >= HEALTHY_SECONDS:
            charge.failures = 0
        self._wait(charge, now, f"exit status {status}{': ' if last else ''}{last}")

    def _wait(self, charge: Charge, now: float, why: str) -> None:
        charge.child = None
        charge.failures += 1
        wait = min(FIRST_WAIT_SECONDS * 2 ** (charge.failures - 1), LONGEST_WAIT_SECONDS)
        charge._due = now + wait
        self._say(f"{charge.name} ended ({why}); it is started again in {wait:.0f} s.")


def end_together(
    children: Sequence[Child],
    *,
    timeout: float,
    again_after: float | None = None,
    hurry: threading.Event | None = None,
) -> list[str]:
    """Ends children in good order at the same time, and by force after ``timeout`` seconds.

    Args:
        children: what to end, with all their descendants.
        timeout: seconds until what is left is killed.
        again_after: seconds after which those that still run get SIGTERM once more (to our
            workers it says: give everything back at once).
        hurry: set it to kill what is left now.

    Returns:
        The names of those that had to be killed.
    """
    members: set[psutil.Process] = set()
    for child in children:
        if child.pid is not None:
            members |= {*tree_of(child.pid), *session_of(child.pid)}
        child.send(child.stop_signal)
    began = time.monotonic()
    repeated = again_after is None
    while any(child.running for child in children):
        passed = time.monotonic() - began
        if passed >= timeout or (hurry is not None and hurry.is_set()):
            break
        if not repeated and again_after is not None and passed >= again_after:
            repeated = True
            for child in children:
                child.send(signal.SIGTERM)
        time.sleep(0.05)
    killed = [child.name for child in children if child.running]
    for child in children:
        child.reap()
    end_processes(members, grace=0)
    return killed
