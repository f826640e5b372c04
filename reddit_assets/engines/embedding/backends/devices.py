"""Several devices as one backend: whichever is free computes the next batch."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from reddit_assets.engines.embedding.backends.base import Backend, Batch
from reddit_assets.errors import first_line

__all__ = ["SeveralDevices"]

log = logging.getLogger(__name__)


class SeveralDevices(Backend):
    """Backends of one kind, each on a device of its own, in one process.

    They share what is read and tokenized ahead. A device that fails at a batch which another one
    can compute is used no more: the batch is computed there, and the log says so. A batch at
    which two devices fail is at fault itself.

    Args:
        backends: one per device; given back together by :meth:`close`.
    """

    def __init__(self, backends: Sequence[Backend]) -> None:
        first = backends[0]
        self.name, self.precision = first.name, first.precision  # type: ignore[misc]
        self.device = ",".join(backend.device for backend in backends)
        self.padded, self.max_batch_tokens = first.padded, first.max_batch_tokens
        self.streams = sum(backend.streams for backend in backends)
        self.window_rows = sum(backend.window_rows for backend in backends)
        self.backends = tuple(backends)
        self._lost: dict[Backend, str] = {}
        self._lock = threading.Lock()
        self._free: queue.SimpleQueue[Backend] = queue.SimpleQueue()
        # In turns, so that few batches are spread over all devices.
        for turn in range(max(backend.streams for backend in backends)):
            for backend in backends:
                if turn < backend.streams:
                    self._free.put(backend)

    def forward(self, batch: Batch) -> np.ndarray:
        """See :meth:`Backend.forward`."""
        backend = self._take()
        try:
            return backend.forward(batch)
        except Exception as error:
            return self._elsewhere(backend, batch, error)
        finally:
            self._free.put(backend)

    def describe(self) -> dict[str, Any]:
        """See :meth:`Backend.describe`."""
        facts = {**self.backends[0].describe(), "device": self.device, "threads": self.streams}
        if self._lost:
            facts["lost_devices"] = {one.device: why for one, why in self._lost.items()}
        return facts

    def close(self) -> None:
        """See :meth:`Backend.close`."""
        for backend in self.backends:
            backend.close()

    def _take(self) -> Backend:
        """The device that has been free for the longest."""
        while True:
            backend = self._free.get()
            if backend not in self._lost:
                return backend

    def _elsewhere(self, failed: Backend, batch: Batch, error: Exception) -> np.ndarray:
        others = [one for one in self.backends if one is not failed and one not in self._lost]
        if not others:
            raise error
        try:
            vectors = others[0].forward(batch)
        except Exception:
            raise error from None  # It fails there, too: the batch is at fault.
        with self._lock:
            last = len(self._lost) == len(self.backends) - 1
            if not last:
                self._lost[failed] = first_line(error)
        if not last:
            log.error("%s is used no more, since it failed: %s.", failed.device, first_line(error))
        return vectors
