"""What ``reddit-assets up`` did, for people and for ``--json``."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import RedditAssetsError
from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.operations import QueueCounts
from reddit_assets.local.completion import Completion, Watch
from reddit_assets.local.instance import Page

__all__ = ["Summary", "rows_of_corpus"]


@dataclass
class Summary:
    """What ``up`` did, for people and for ``--json``.

    Attributes:
        adopted_files, adopted_clusters: those that the earlier system made.
        blocked: why nothing could go on, where that ended it; else empty.
        ignored: what lies in the tree without being a chain file, by reason.
    """

    root: str
    page: str
    state_dir: str
    files: int = 0
    rows: int = 0
    embedding_files: int = 0
    cluster_files: int = 0
    subreddits: int = 0
    adopted_files: int = 0
    adopted_clusters: int = 0
    materialized: dict[str, dict[str, int]] = field(default_factory=dict)
    work_done: dict[str, int] = field(default_factory=dict)
    dead_letters: list[dict[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)
    restarts: int = 0
    seconds: float = 0.0
    done: bool = False
    blocked: str = ""

    @property
    def idle(self) -> bool:
        """Whether there was no work to do."""
        return self.done and not any(self.work_done.values())

    def tell(self, state: Completion, layout: Layout, page: Page) -> None:
        """Takes over how far everything is; when it is done, also what Dagster has of it."""
        self.done = state.done
        self.problems, self.ignored = state.problems, state.ignored
        self.dead_letters = [
            {"kind": letter.kind.value, "key": letter.key, "reason": letter.error}
            for letter in state.dead
        ]
        files, clusters = state.outputs(Kind.EMBED), state.outputs(Kind.CLUSTER)
        self.files, self.embedding_files = files.total, files.done
        self.subreddits, self.cluster_files = clusters.total, clusters.done
        self.adopted_files, self.adopted_clusters = files.adopted, clusters.adopted
        if state.done:
            self.rows = rows_of_corpus(layout)
            counts = page.partition_counts()
            assets = ("chains", "clusters", "embeddings")
            self.materialized = {name: counts[name] for name in assets if name in counts}

    def count_work(self, before: dict[Kind, QueueCounts], watch: Watch) -> None:
        """Counts the jobs that were done since ``before``; nothing if the queue is gone."""
        with suppress(RedditAssetsError):
            for kind, after in watch.counts().items():
                done = after.totals.get("done", 0) - before[kind].totals.get("done", 0)
                self.work_done[f"{kind.value}_jobs"] = done

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
