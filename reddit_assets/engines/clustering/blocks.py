"""Blocked matrix products in a pool of threads, the same to the last bit for any thread count.

Each block is multiplied with a single-threaded BLAS and the pool works on several blocks at once;
a multi-threaded BLAS does not promise the same sums for another number of threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from reddit_assets.engines.host import available_cores

__all__ = ["BLOCK_FLOATS", "run_blocks", "run_rounds", "tile_product"]

#: Floats in one block of similarities (32 MiB), per thread.
BLOCK_FLOATS = 8_000_000

_buffers = threading.local()


def tile_product(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """``left @ right.T`` in a buffer of this thread, valid until its next call."""
    rows, columns = len(left), len(right)
    buffer = getattr(_buffers, "floats", None)
    if buffer is None or buffer.size < rows * columns:
        buffer = np.empty(rows * columns, dtype=np.float32)
        _buffers.floats = buffer
    out: NDArray[np.float32] = buffer[: rows * columns].reshape(rows, columns)
    return np.matmul(left, right.T, out=out)


def run_rounds(
    work: Callable[[Any], None], rounds: Iterable[Sequence[Any]], threads: int | None = None
) -> None:
    """Run ``work`` on the items of each round in a pool, one round after the other.

    BLAS is held to one thread per item meanwhile.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        count = threads or available_cores()
        if count == 1:
            for items in rounds:
                for item in items:
                    work(item)
            return
        with ThreadPoolExecutor(count) as pool:
            for items in rounds:
                for _ in pool.map(work, items):
                    pass


def run_blocks(
    work: Callable[[Any], None], items: Sequence[Any], threads: int | None = None
) -> None:
    """Run ``work`` on each item in a pool, with BLAS held to one thread per item."""
    run_rounds(work, [items], threads)
