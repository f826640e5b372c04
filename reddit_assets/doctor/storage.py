"""The trees' storage: reading, writing, renaming, syncing, space, and the share's clock."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.oserrors import is_away
from reddit_assets.corpus.output import temporary_path
from reddit_assets.doctor.findings import Finding, Grade
from reddit_assets.ledger.job import new_token

__all__ = ["chains", "tree"]

LEAST_FREE = 2e9  # bytes
LEAST_SHARE = 0.03
_CLOCK_SECONDS = 2.0
_SLOW_SYNC = 1.0


def chains(layout: Layout) -> Iterator[Finding]:
    """The chain files, which are only read."""
    folder = layout.chains
    layout.require_chains()
    if is_away(folder):
        said = f"There is nothing in {folder}."
        yield Finding("chains", Grade.FAULT, said, "Mount its storage, or copy chain files there.")
        return
    try:
        names = os.listdir(folder)
    except OSError as error:
        said = f"{folder} cannot be listed: {error.strerror}."
        yield Finding("chains", Grade.FAULT, said, "Let this account read it.")
        return
    yield Finding("chains", Grade.OK, f"{folder} can be read; {len(names):,} folders.")


def tree(topic: str, folder: Path, name: str) -> Iterator[Finding]:
    """A tree that workers write: does what they do, with a file of a few bytes.

    Args:
        name: of an output; the probe has the name of its temporary file.
    """
    made = not folder.exists()
    probe = temporary_path(folder / name, new_token())
    renamed = probe.with_name(temporary_path(folder / name, new_token()).name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with probe.open("wb") as file:
            file.write(b"reddit-assets doctor\n")
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            synced = time.perf_counter() - began
        now = time.time()
        os.replace(probe, renamed)
        away = renamed.stat().st_mtime - now
        read = renamed.read_bytes() == b"reddit-assets doctor\n"
    except OSError as error:
        said = f"{folder} cannot be written: {error.strerror}."
        yield Finding(topic, Grade.FAULT, said, "Let this account write it, and look at its space.")
        return
    finally:
        probe.unlink(missing_ok=True) if folder.exists() else None
        renamed.unlink(missing_ok=True) if folder.exists() else None
        if made and folder.exists():
            folder.rmdir()
    if not read:
        said = f"{folder} does not give back what was written."
        yield Finding(topic, Grade.FAULT, said, "Do not use this storage.")
        return
    said = f"{folder}: written, synced in {1000 * synced:.0f} ms, renamed, read."
    slow = synced > _SLOW_SYNC
    advice = "Each output is synced once: small files will be slow here." if slow else ""
    yield Finding(topic, Grade.WARNING if slow else Grade.OK, said, advice)
    if abs(away) > _CLOCK_SECONDS:
        yield Finding(
            topic,
            Grade.WARNING,
            f"The storage's clock is {abs(away):.1f} s {'ahead' if away > 0 else 'behind'}.",
            "Let both hosts set their clocks by NTP: whether a file has settled goes by them.",
        )
    yield from space(topic, folder)


def space(topic: str, folder: Path) -> Iterator[Finding]:
    """Free bytes and file entries."""
    place = next(one for one in (folder, *folder.parents) if one.exists())
    usage, files = shutil.disk_usage(place), os.statvfs(place)
    share = usage.free / usage.total if usage.total else 1.0
    if usage.free < LEAST_FREE or share < LEAST_SHARE:
        said = f"{usage.free / 1e9:.1f} GB ({share:.0%}) are free at {place}."
        yield Finding(topic, Grade.WARNING, said, "Make room: workers wait when it is full.")
    if files.f_files and files.f_favail / files.f_files < LEAST_SHARE:
        said = f"{files.f_favail:,} of {files.f_files:,} file entries are free at {place}."
        yield Finding(topic, Grade.WARNING, said, "Remove files, or make the file system larger.")
