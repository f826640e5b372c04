"""numba as this room imports it: with a cache that can be written and the threads that it may use.

numba keeps machine code under the account's cache folder, or beside each package. In a container
or a unit without a home neither can be written, and numba then refuses to load functions that ask
for a cache.
"""

from __future__ import annotations

import os
import sys

from reddit_assets.engines.host import available_cores, keep_cache

__all__ = ["numba"]


def _prepare() -> None:
    # On a host with other work, OpenMP's busy waiting at barriers costs more than it saves; it is
    # read when the library is loaded, at the first parallel function.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "numba" not in sys.modules:
        os.environ.setdefault("NUMBA_NUM_THREADS", str(available_cores()))
    folder = keep_cache("NUMBA_CACHE_DIR", "numba")
    if folder is not None and "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = folder


_prepare()

import numba  # noqa: E402
