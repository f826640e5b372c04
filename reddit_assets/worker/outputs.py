"""Which files a job writes."""

from __future__ import annotations

from pathlib import Path

from reddit_assets.catalog.layout import CLUSTER_FILES, Layout
from reddit_assets.jobqueue.job import Kind

__all__ = ["outputs_of"]


def outputs_of(layout: Layout, kind: Kind, key: str) -> list[Path]:
    """The final names of a job's outputs. Raises BadKeyError."""
    if kind is Kind.EMBED:
        return [layout.embedding_path(key)]
    folder = layout.cluster_dir(key)
    return [folder / name for name in CLUSTER_FILES]
