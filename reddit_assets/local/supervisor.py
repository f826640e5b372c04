"""Keeps children running: restarts what crashed, with growing waits, and ends all together."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil

from reddit_assets.errors import StartupError
from reddit_assets.local.processes import Child, end_processes, session_of, tree_of

__all__ = ["Charge", "Supervisor", "end_together"]

log = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 300.0
# A child that ran for this long before it ended did not fail at its start.
HEALTHY_SECONDS = 30.0
# A child that fails at its start this often in a row does not come up; that is said once.
MOST_FAILURES = 4


@dataclass
class Charge:
    """A child in the supervisor's care.

    Attributes:
        name: as in messages.
        start: starts a new process and returns it.
        child: the running process; ``None`` while it waits to be restarted.
        restarts: how often it was restarted.
        failures: how often in a row it ended soon after its start.
        last_words: the last lines that it wrote before it ended.
    """

    name: str
    start: Callable[[], Child]
    child: Child | None = None
    restarts: int = 0
    failures: int = 0
    last_words: str = ""
    _started: float = field(default=0.0, repr=False)
    _due: float = field(default=0.0, repr=False)

    @property
    def failing(self) -> bool:
        """Whether it does not come up, judging by its starts so far."""
        return self.failures >= MOST_FAILURES

    @property
    def trouble(self) -> str:
        """That it does not come up, and its last words, as a sentence."""
        return f"{self.name} does not come up: {self.last_words.rstrip('.')}."


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
            if charge.child is None:
                if now >= charge._due:
                    self._again(charge)
            elif not charge.child.running:
                self._ended(charge, now)
            elif charge.failures and now - charge._started >= HEALTHY_SECONDS:
                if charge.failing:
                    self._say(f"{charge.name} runs again.")
                charge.failures = 0

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

    def _again(self, charge: Charge) -> None:
        charge.restarts += 1
        try:
            self._start(charge)
        except StartupError as error:
            charge.last_words = error.message
            self._wait(charge, error.message)

    def _ended(self, charge: Charge, now: float) -> None:
        assert charge.child is not None
        status = charge.child.poll()
        lines = [line.strip() for line in charge.child.output(1_000).splitlines() if line.strip()]
        charge.last_words = " ".join(lines[-3:])
        charge.child.reap()  # its descendants do not outlive it
        charge.child = None
        if now - charge._started >= HEALTHY_SECONDS:
            charge.failures = 0
        self._wait(charge, f"exit status {status}{f': {lines[-1]}' if lines else ''}")

    def _wait(self, charge: Charge, why: str) -> None:
        charge.failures += 1
        wait = min(FIRST_WAIT_SECONDS * 2 ** (charge.failures - 1), LONGEST_WAIT_SECONDS)
        charge._due = self._clock() + wait
        if not charge.failing:
            self._say(f"{charge.name} ended ({why}); it is started again in {wait:.0f} s.")
        elif charge.failures == MOST_FAILURES:
            self._say(
                f"{charge.trouble} The rest goes on; it is "
                f"tried again in {wait:.0f} s, then less and less often, up to every "
                f"{LONGEST_WAIT_SECONDS / 60:.0f} minutes."
            )
        else:
            log.debug("%s ended (%s); again in %.0f s", charge.name, why, wait)


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
