"""The computing process: claims come in, outputs under temporary names go out.

It knows nothing of Redis and never renames a file: the parent knows whether the work is still
wanted.
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

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import Failure, RedditAssetsError
from reddit_assets.ledger.job import Claim
from reddit_assets.settings import Settings
from reddit_assets.tasks.messages import Broken, Event, Ready, Recall, Recalled, Task

__all__ = ["child_main"]

_PR_SET_PDEATHSIG = 1

# Seconds without a claim until ``None`` is said: first, and then again and again.
_FIRST_LOOK, _LATER_LOOKS = 0.002, 0.02


def child_main(task: str, settings: Settings, layout: Layout, pipe: Connection) -> None:
    """Entry of the process.

    Args:
        task: ``module:class`` of the :class:`~reddit_assets.tasks.messages.Task`.
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
        loaded = _load(task)(settings, layout)
        emit(Ready(dict(loaded.facts()), loaded.silent))
    except RedditAssetsError as error:
        emit(Broken(Failure.of(error)))
        return
    waiting: queue.SimpleQueue[Claim | None] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, waiting, emit), daemon=True).start()
    loaded.run(_claims(waiting), emit)


def _load(task: str) -> Callable[[Settings, Layout], Task]:
    module, _, name = task.partition(":")
    return getattr(import_module(module), name)


def _receive(
    pipe: Connection,
    waiting: queue.SimpleQueue[Claim | None],
    emit: Callable[[Event], None],
) -> None:
    """Moves claims from the pipe to the queue; ends the process with the parent."""
    while True:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            # The parent is gone: nobody could publish what this process computes.
            os._exit(1)
        if isinstance(message, Recall):
            emit(Recalled(tuple(_take_back(waiting))))
        else:
            waiting.put(message)


def _take_back(waiting: queue.SimpleQueue[Claim | None]) -> Iterator[str]:
    """The tokens of all claims that nobody has begun."""
    while True:
        try:
            claim = waiting.get_nowait()
        except queue.Empty:
            return
        if claim is not None:
            yield claim.token


def _claims(waiting: queue.SimpleQueue[Claim | None]) -> Iterator[Claim | None]:
    """Claims as they come; ``None`` now and then while none waits; ends when the parent says so.

    ``None`` comes again and again, so that a task can attend to unfinished work.
    """
    wait = _FIRST_LOOK
    while True:
        try:
            claim = waiting.get(timeout=wait)
        except queue.Empty:
            wait = _LATER_LOOKS
            yield None
            continue
        wait = _FIRST_LOOK
        if claim is None:
            return
        yield claim


def _die_with_parent() -> None:
    """Let the kernel kill this process when its parent dies, where it can (Linux)."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
