"""A subreddit's table of clusters, ``clusters.table``, and the name that it had before.

It is a parquet file that must not end in ``.parquet``: the earlier system's next phase reads every
``clusters/<shard>/<subreddit>/*.parquet`` as posts.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reddit_assets.corpus.layout import TABLE_NAME
from reddit_assets.corpus.oserrors import writing
from reddit_assets.corpus.provenance import PROVENANCE_KEY

__all__ = ["OLD_TABLE_NAME", "find_table", "rename_old_table"]

OLD_TABLE_NAME = "clusters.parquet"


def find_table(folder: Path) -> Path:
    """The table of clusters in a subreddit's folder; under its old name until a scan renames it.

    The path need not exist.
    """
    table, old = folder / TABLE_NAME, folder / OLD_TABLE_NAME
    return old if not table.exists() and _is_ours(old) else table


def rename_old_table(folder: Path) -> bool:
    """Give a table of clusters with the old name its new one; whether there was such a table.

    A file that is not ours stays as it is. Where there is a new table, the old one is deleted.

    Raises:
        WriteError: the folder cannot be written.
    """
    table, old = folder / TABLE_NAME, folder / OLD_TABLE_NAME
    if not _is_ours(old):
        return False
    with writing(old):
        if table.exists():
            old.unlink(missing_ok=True)
        else:
            os.replace(old, table)
    return True


def _is_ours(path: Path) -> bool:
    try:
        if path.is_symlink() or not path.is_file():
            return False
        said = json.loads((pq.read_schema(path).metadata or {})[PROVENANCE_KEY])
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return False
    return isinstance(said, dict) and said.get("kind") == "clusters"
