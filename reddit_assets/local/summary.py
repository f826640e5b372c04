"""What ``reddit-assets up`` did, for people and for ``--json``."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reddit_assets.corpus.layout import Layout

__all__ = ["Summary", "rows_of_corpus"]


@dataclass
class Summary:
    """What ``up`` did, for people and for ``--json``."""

    root: str
    page: str
    state_dir: str
    files: int = 0
    rows: int = 0
    embedding_files: int = 0
    cluster_files: int = 0
    subreddits: int = 0
    materialized: dict[str, dict[str, int]] = field(default_factory=dict)
    work_done: dict[str, int] = field(default_factory=dict)
    dead_letters: list[dict[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    restarts: int = 0
    seconds: float = 0.0
    done: bool = False

    @property
    def idle(self) -> bool:
        """Whether there was no work to do."""
        return self.done and not any(self.work_done.values())

    def fields(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {**vars(self), "no_work": self.idle}


def rows_of_corpus(layout: Layout) -> int:
    """Rows of all chain files by their footers; unreadable ones are dead letters already."""
    total = 0
    for path in layout.chains.rglob("*.parquet"):
        with suppress(pa.ArrowException, OSError):
            total += pq.read_metadata(path).num_rows
    return total
