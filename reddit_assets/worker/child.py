"""The computing process: tasks come in, outputs under temporary names go out.

It knows nothing of Redis and never renames a file: whether its work is still wanted is for the
parent to know.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Protocol, runtime_checkable

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import Failure, RedditAssetsError
from reddit_assets.settings import Settings
from reddit_assets.tasks.messages import Broken, Event, Ready, Recall, Recalled, Task

__all__ = ["Processor", "child_main"]

_PR_SET_PDEATHSIG = 1

# Seconds without a task until ``None`` is said: first, and then again and again.
_FIRST_LOOK, _LATER_LOOKS = 0.002, 0.02


class Processor(Protocol):
    """Computes tasks of one kind."""

    def facts(self) -> dict[str, object]:
        """Backend, device, versions, … for people to see."""
        ...

    def run(self, tasks: Iterator[Task | None], emit: Callable[[Event], None]) -> None:
        """Work until ``tasks`` ends.

        ``tasks`` yields ``None``, again and again, while no task is waiting: finish what is in
        hand.
        Every task ends in one ``Finished`` or ``Failed`` event.
        """
        ...


@runtime_checkable
class Verifying(Protocol):
    """A processor that also computes samples of outputs again."""

    def verify(self, task: Task, emit: Callable[[Event], None]) -> None:
        """Answer out of turn, from a thread of its own; returns at once.

        Those who ask must not wait until a large file before them has been read.
        """
        ...


def child_main(processor: str, settings: Settings, layout: Layout, pipe: Connection) -> None:
    """Entry of the process.

    Args:
        processor: ``module:class`` of the :class:`Processor`.
    """
    _die_with_parent()
    os.setsid()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)  # stopping is the parent's business
    lock = threading.Lock()

    def emit(event: Event) -> None:
        with lock:
            pipe.send(event)

    try:
        loaded = _load(processor)(settings, layout)
        emit(Ready(dict(loaded.facts())))
    except RedditAssetsError as error:
        emit(Broken(Failure.of(error)))
        return
    waiting: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
    receiver = threading.Thread(target=_receive, args=(pipe, waiting, emit, loaded), daemon=True)
    receiver.start()
    loaded.run(_tasks(waiting), emit)


def _load(processor: str) -> Callable[[Settings, Layout], Processor]:
    module, _, name = processor.partition(":")
    return getattr(import_module(module), name)


def _receive(
    pipe: Connection,
    waiting: queue.SimpleQueue[Task | None],
    emit: Callable[[Event], None],
    processor: Processor,
) -> None:
    """Moves tasks from the pipe to the queue; ends the process with the parent."""
    while True:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            # The parent is gone: nobody could publish what this process computes.
            os._exit(1)
        if isinstance(message, Recall):
            emit(Recalled(tuple(_take_back(waiting))))
        elif message is not None and message.verify and isinstance(processor, Verifying):
            processor.verify(message, emit)
        else:
            waiting.put(message)


def _take_back(waiting: queue.SimpleQueue[Task | None]) -> Iterator[str]:
    """The tokens of all tasks that nobody has begun."""
    while True:
        try:
            task = waiting.get_nowait()
        except queue.Empty:
            return
        if task is not None:
            yield task.token


def _tasks(waiting: queue.SimpleQueue[Task | None]) -> Iterator[Task | None]:
    """Tasks as they come; ``None`` now and then while none waits; ends when the parent says so.

    ``None`` comes again and again, so that a processor can look after its unfinished work.
    """
    wait = _FIRST_LOOK
    while True:
        try:
            task = waiting.get(timeout=wait)
        except queue.Empty:
            wait = _LATER_LOOKS
            yield None
            continue
        wait = _FIRST_LOOK
        if task is None:
            return
        yield task


def _die_with_parent() -> None:
    """Let the kernel kill this process when its parent dies, where it can (Linux)."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
