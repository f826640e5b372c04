"""Log files that do not grow without end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from reddit_assets.local.private import private_opener

__all__ = ["rotate"]

KEPT = 3
"""Older parts of a log: ``worker.log.1`` is the youngest."""


def rotate(logs: Iterable[Path], largest: int) -> list[Path]:
    """Moves what is in logs larger than ``largest`` bytes into older parts; the logs so treated.

    Their writers keep them open for appending, so each is copied and emptied, not renamed. What is
    written between the two is lost.
    """
    treated = []
    for log in logs:
        with suppress(OSError):  # gone, or no room for a copy: the next look tries again
            if log.stat().st_size > largest:
                _rotate(log)
                treated.append(log)
    return treated


def _rotate(log: Path) -> None:
    for number in range(KEPT - 1, 0, -1):
        with suppress(FileNotFoundError):
            _part(log, number).replace(_part(log, number + 1))
    with (
        log.open("rb") as source,
        open(_part(log, 1), "wb", opener=private_opener) as target,
    ):
        shutil.copyfileobj(source, target)
    os.truncate(log, 0)


def _part(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")
