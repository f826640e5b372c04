"""Last night's clusters of a subreddit, and tonight's ids that continue theirs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from reddit_assets.corpus.cluster_table import find_table
from reddit_assets.corpus.provenance import PROVENANCE_KEY
from reddit_assets.engines.clustering.identity import (
    Changes,
    Level,
    Previous,
    keep_identities,
    keep_level,
)
from reddit_assets.engines.clustering.results import Clustering
from reddit_assets.engines.clustering.standing import vector_keys
from reddit_assets.errors import BadFileError
from reddit_assets.tasks.columns import numbers, to_text
from reddit_assets.tasks.inputs import Inputs, read_vectors
from reddit_assets.tasks.posts import ID_COLUMNS

__all__ = ["identities", "read_previous", "row_places", "shared_ids"]


def read_previous(clusters_file: Path, clustered_file: Path) -> Previous | None:
    """Ids and centroids of a ``clusters.table``; ``None`` if there is none to build on.

    Where that table is missing, damaged or not ours, the ids of the clustered file count, without
    centroids: so the clusters of the earlier system keep theirs.
    """
    try:
        table = pq.ParquetFile(clusters_file).read(
            columns=["cluster_id", "topic_id", "theme_id", "centroid"]
        )
        said = json.loads((table.schema.metadata or {})[PROVENANCE_KEY])
        ids = table["cluster_id"].to_numpy().astype(np.int32)
        width = int(said["dimension"])
        flat = table["centroid"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        centroids = flat.astype(np.float32).reshape(len(ids), width)
        levels = (_level(table, said, name) for name in ("topic", "theme"))
        return Previous(ids, centroids, int(said["next_id"]), *levels)
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return _of_rows(clustered_file)


def _level(table: pa.Table, said: dict[str, Any], name: str) -> Level | None:
    """Topics or themes of a table; ``None`` where it was written before there were any."""
    if f"{name}_id" not in table.column_names:
        return None
    ids = table[f"{name}_id"].to_numpy().astype(np.int32)
    return Level(ids, int(said.get(f"next_{name}_id", ids.max(initial=-1) + 1)))


def _of_rows(clustered_file: Path) -> Previous | None:
    try:
        labels = np.unique(_labels(clustered_file))
    except (OSError, KeyError, pa.ArrowException):
        return None
    ids = labels[labels >= 0]
    return Previous(ids, np.zeros((len(ids), 0), np.float32), int(ids.max(initial=-1)) + 1)


def _labels(clustered_file: Path) -> NDArray[np.int32]:
    """The cluster id of each row, −1 where it is no number that can be one.

    Raises:
        OSError, KeyError, pa.ArrowException: there is no such column.
    """
    found = numbers(pq.read_table(clustered_file, columns=["cluster_id"])["cluster_id"])
    if found is None:
        raise KeyError("cluster_id")
    with np.errstate(invalid="ignore"):
        sound = (found >= 0) & (found < np.iinfo(np.int32).max)
    return np.where(sound, found, -1).astype(np.int32)


def _keys(blocks: Iterable[NDArray[np.float32]]) -> NDArray[np.uint64]:
    parts = [vector_keys(block) for block in blocks]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint64)


def shared_ids(clustered_file: Path, place: NDArray[np.int64] | None) -> NDArray[np.int32] | None:
    """For each of tonight's rows its cluster id of last night.

    Args:
        place: of :func:`row_places`.

    Returns:
        int32 (rows,): the id, −1 for noise, −2 for a row that was not there; ``None`` if the
        file cannot be used.
    """
    try:
        before = _labels(clustered_file)
    except (OSError, KeyError, pa.ArrowException):
        return None
    if place is None:
        return None
    return np.where(place >= 0, np.append(before, -1)[place], -2).astype(np.int32)


def row_places(
    clustered_file: Path, inputs: Inputs, vectors: NDArray[np.float32]
) -> NDArray[np.int64] | None:
    """For each of tonight's rows its row number of last night, −1 if it was not there.

    Rows are recognised by their post id where both nights have such a column in which no id stands
    twice, otherwise by their vector. ``None`` if the file cannot be used.
    """
    try:
        return _places(clustered_file, inputs, vectors)
    except (OSError, pa.ArrowException, BadFileError):
        return None


def _is_key(column: pa.Array | pa.ChunkedArray) -> bool:
    """Whether a column tells rows apart: nulls aside, no value stands twice."""
    there = len(column) - column.null_count
    return bool(there) and pc.count_distinct(column).as_py() == there


def _places(
    clustered_file: Path, inputs: Inputs, vectors: NDArray[np.float32]
) -> NDArray[np.int64]:
    names = pq.read_schema(clustered_file).names
    for name in ID_COLUMNS:
        if name in names and name in inputs.schema.names:
            theirs = to_text(pq.read_table(clustered_file, columns=[name])[name])
            mine = pa.concat_arrays([to_text(batch.column(0)) for batch in inputs.read([name])])
            if _is_key(mine) and _is_key(theirs):
                break
    else:
        theirs = pa.array(_keys(read_vectors(clustered_file)))
        mine = pa.array(vector_keys(vectors))
    place = pc.index_in(mine, value_set=theirs, skip_nulls=True)
    return place.fill_null(-1).to_numpy().astype(np.int64)


def identities(
    clustered_file: Path, rows: NDArray[np.int64] | None, clustering: Clustering
) -> tuple[Changes, NDArray[np.int32] | None, tuple[Level, Level]]:
    """Persistent ids of tonight's clusters, last night's of each row, topics and themes.

    Args:
        clustered_file: last night's, where there is one.
        rows: of :func:`row_places`.
        clustering: tonight's.
    """
    previous = read_previous(find_table(clustered_file.parent), clustered_file)
    before = None
    if previous is not None:
        before = shared_ids(clustered_file, rows)
    old = new = np.zeros(0, dtype=np.int32)
    if before is not None:
        old, new = before[before > -2], clustering.labels[before > -2]
    changes = keep_identities(old, new, previous, clustering.centroids)
    stood = previous or Previous(old[:0], clustering.centroids[:0], 0)
    topics = keep_level(old, new, stood.topics, clustering.cluster_topics, stood.ids)
    themes = keep_level(old, new, stood.themes, clustering.cluster_themes, stood.ids)
    return changes, before, (topics, themes)
