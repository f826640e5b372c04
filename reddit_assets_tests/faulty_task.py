"""The real embedding task with faults that files ask for, and a worker that runs it.

A row of a chain file says what happens when the file is read: ``KILL`` ends the computing process
as the kernel does when memory is short, ``HANG`` makes the backend never answer from then on,
``SLOW`` makes each of its batches take a tenth of a second, ``VERY SLOW`` half of one. A look at
the output of the key in ``FAULT_LOOK`` kills, too. Everything else is the real thing. The worker's
renames fail with an error while the file of ``FAULT_RENAME`` exists: it holds the number.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from reddit_assets.corpus.layout import Layout
from reddit_assets.ledger.job import Claim, Kind
from reddit_assets.settings import Settings
from reddit_assets.tasks import filework
from reddit_assets.tasks.embed import EmbedTask
from reddit_assets.tasks.messages import Finished

TASKS = {Kind.EMBED: "faulty_task:FaultyEmbedTask"}


class FaultyEmbedTask(EmbedTask):
    """Obeys the rows named above."""

    def __init__(self, settings: Settings, layout: Layout) -> None:
        super().__init__(settings, layout)
        self._hangs = threading.Event()
        self._pause = 0.0
        backend, forward = self.embedder.backend, self.embedder.backend.forward
        read = filework.texts_of

        def obedient(batch: pa.RecordBatch, *arguments: Any) -> pa.Array:
            texts = read(batch, *arguments)
            said = set(texts.to_pylist())
            if "KILL" in said:
                os.kill(os.getpid(), signal.SIGKILL)
            if "HANG" in said:
                self._hangs.set()
            for text, pause in (("SLOW", 0.1), ("VERY SLOW", 0.5)):
                if text in said:
                    self._pause = pause
            return texts

        def answering(batch: Any) -> np.ndarray:
            if self._hangs.is_set():
                threading.Event().wait()
            time.sleep(self._pause)
            return forward(batch)

        look = self._existing

        def looking(claim: Claim) -> Finished | None:
            if claim.key == os.environ.get("FAULT_LOOK"):
                os.kill(os.getpid(), signal.SIGKILL)
            return look(claim)

        self._existing = looking  # type: ignore[method-assign]
        filework.texts_of = obedient  # type: ignore[assignment]
        backend.forward = answering  # type: ignore[method-assign]


def worker_main() -> int:
    """A worker process; settings from the environment."""
    from reddit_assets.errors import RedditAssetsError
    from reddit_assets.ledger.connection import connect
    from reddit_assets.ledger.queue import JobQueue
    from reddit_assets.settings import load_settings
    from reddit_assets.worker.display import Display
    from reddit_assets.worker.worker import Worker

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    _fail_renames()
    settings = load_settings()
    layout = Layout.from_settings(settings)
    queue = JobQueue(connect(settings), Kind.EMBED)
    try:
        with Display() as display:
            return Worker(
                [queue],
                settings,
                layout,
                display,
                until_empty="--until-empty" in sys.argv,
                tasks=TASKS,
            ).run()
    except RedditAssetsError as error:
        print(error, file=sys.stderr)
        return 1


def _fail_renames() -> None:
    mark = Path(os.environ.get("FAULT_RENAME", ""))
    replace = os.replace

    def failing(source: Any, target: Any, **more: Any) -> None:
        if mark.name and mark.exists() and str(target).endswith(".parquet"):
            number = int(mark.read_text())
            raise OSError(number, os.strerror(number), str(source), None, str(target))
        replace(source, target, **more)

    os.replace = failing


if __name__ == "__main__":
    raise SystemExit(worker_main())
