"""Which dumps are to be ingested: the look at ``dumps/`` that sensors and ``up`` share."""

from __future__ import annotations

import time
from collections.abc import Iterable

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import BadFileError
from reddit_assets.ingest.filters import Filters
from reddit_assets.ingest.store import Store, dump_stamp, find_dumps
from reddit_assets.settings import Settings

__all__ = ["dump_keys", "wanted_dumps"]


def dump_keys(settings: Settings, layout: Layout) -> list[str]:
    """The dumps below ``dumps/``; none where there is no such folder. Raises SettingsError."""
    folder = Store.from_settings(settings, layout).dumps
    return sorted(find_dumps([folder], folder, empty=True)) if folder.is_dir() else []


def wanted_dumps(
    settings: Settings, layout: Layout, keys: Iterable[str], *, force: bool = False
) -> dict[str, str]:
    """Stamps of the dumps that are neither ingested nor failed as they are, by key.

    A dump that was just written waits.

    Args:
        force: all of them.

    Raises:
        SettingsError: the filters cannot be read.
    """
    store, filters = Store.from_settings(settings, layout), Filters.from_settings(settings)
    old = time.time() - settings.settle_seconds
    wanted = {}
    for key in keys:
        path = store.dumps / key
        try:
            stamp = dump_stamp(path, filters, skip_corrupt=settings.skip_corrupt)
            young = path.stat().st_mtime > old
            known = store.record(key)
        except (BadFileError, OSError):
            stamp, young, known = "", False, None  # the worker says what is wrong with it
        if force or (not young and (known is None or known.stamp != stamp)):
            wanted[key] = stamp
    return wanted
