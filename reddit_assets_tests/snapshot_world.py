"""A tree that changes, and scanners over it, for the tests of snapshots. Not a test module."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from factories import MODEL, write_chain, write_embedding

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.look import LookPlan
from reddit_assets.corpus.scan import Scanner, ScanOptions, SubredditStatus
from reddit_assets.corpus.snapshot import Snapshot
from reddit_assets.corpus.wanted import set_wanted_model

__all__ = ["CHANGES", "QUICK", "SUBREDDITS", "World", "scanner", "settle", "told"]

SUBREDDITS = ["as/A", "as/B", "th/C", "Flat"]
QUICK = LookPlan(whole=False, relist_seconds=1e9, processes=1)


def scanner(
    layout: Layout, kept: Snapshot | None, plan: LookPlan = QUICK, **options: object
) -> Scanner:
    given = {"settle_seconds": 0, **options}
    source: Callable[[], Snapshot] | None = None if kept is None else lambda: kept
    return Scanner(layout, ScanOptions(**given), snapshot=source, plan=plan)  # type: ignore[arg-type]


def told(statuses: list[SubredditStatus]) -> list[object]:
    """What is said of subreddits, comparable; those without any file are left out."""
    return [
        (
            status.cluster_key,
            status.files,
            status.cluster,
            status.orphans,
            sorted(status.temporary),
            [str(problem) for problem in status.problems],
            status.passed,
            status.closed,
        )
        for status in statuses
        if status.files or status.orphans or status.problems or status.temporary
    ]


def settle(layout: Layout) -> None:
    """Make every folder look as if it had changed a moment before the time that looks distrust."""
    for root in (layout.chains, layout.embeddings, layout.clusters):
        for folder, _, _ in os.walk(root):
            os.utime(folder, (time.time() - 60, time.time() - 60))


class World:
    """A tree, changes to it, and the clock of looks (folders' times stay the disk's)."""

    def __init__(self, root: Path, seed: int) -> None:
        self.layout = Layout.of(root / "tree")
        self.random = random.Random(seed)
        self.layout.embeddings.mkdir(parents=True)
        self.layout.clusters.mkdir()
        self.number = 0
        write_chain(self.layout, "as/A/c_0")

    def some(self) -> str:
        return self.random.choice(SUBREDDITS)

    def key(self) -> str | None:
        keys = self.keys()
        return self.random.choice(keys) if keys else None

    def keys(self) -> list[str]:
        paths = sorted(self.layout.chains.rglob("*.parquet"))
        return [self.layout.key_of(path) for path in paths if "..." not in path.name]

    def add(self) -> None:
        self.number += 1
        write_chain(self.layout, f"{self.some()}/c_{self.number}")

    def embed(self) -> None:
        if key := self.key():
            self._publish(key)

    def _publish(self, key: str) -> None:
        """As workers do: a file in its place is never written over."""
        self.layout.embedding_path(key).unlink(missing_ok=True)
        write_embedding(self.layout, key)

    def embed_all(self) -> None:
        for key in self.keys():
            self._publish(key)

    def replace(self) -> None:
        if key := self.key():
            path = self.layout.chain_path(key)
            write_chain(self.layout, key.rpartition("/")[0] + "/new", ["x"] * (self.number % 5))
            (self.layout.chain_path(key).parent / "new.parquet").rename(path)

    def remove(self) -> None:
        if key := self.key():
            self.layout.chain_path(key).unlink()

    def remove_subreddit(self) -> None:
        shutil.rmtree(self.layout.chains / self.some(), ignore_errors=True)

    def damage(self) -> None:
        if (key := self.key()) and (path := self.layout.embedding_path(key)).exists():
            path.unlink()
            path.write_bytes(b"x" * 99)

    def leftover(self) -> None:
        folder = self.layout.embeddings / self.some()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "c_0.parquet.0123456789abcdef.tmp").write_bytes(b"")

    def odd(self) -> None:
        folder = self.layout.chains / self.some()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "notes.txt").write_bytes(b"")
        (folder / "a...b.parquet").write_bytes(b"")

    def odd_above(self) -> None:
        """A file beside subreddits, a name that is no key, and a link to where nothing may be."""
        shard = self.layout.chains / "as"
        (shard / "bad...name").mkdir(parents=True, exist_ok=True)
        (shard / self.random.choice(["notes.txt", ".DS_Store"])).write_bytes(b"")
        if not (shard / "Link").is_symlink():
            (shard / "Link").symlink_to("../th/C")

    def want_model(self) -> None:
        set_wanted_model(self.layout, MODEL)

    def want_another(self) -> None:
        set_wanted_model(self.layout, MODEL.model_copy(update={"fingerprint": "other"}))


CHANGES = [
    name for name in vars(World) if not name.startswith("_") and name not in ("some", "key", "keys")
]
