"""Last night's clusters of a subreddit, as far as identities need them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from reddit_assets.corpus.provenance import PROVENANCE_KEY, is_embedding_column
from reddit_assets.engines.clustering.canonical import row_hashes
from reddit_assets.engines.clustering.identity import Previous
from reddit_assets.tasks.inputs import Inputs

__all__ = ["ID_COLUMNS", "read_previous", "shared_ids"]

#: The first of these that both nights have tells which rows are the same.
ID_COLUMNS = ("id", "name", "permalink")


def read_previous(clusters_file: Path) -> Previous | None:
    """Ids and centroids of a ``clusters.parquet``; ``None`` if there is none to build on.

    A file that is damaged or made by something else counts as none: identities then start anew,
    which the metadata show as births.
    """
    try:
        table = pq.read_table(clusters_file, columns=["cluster_id", "centroid"])
        said = json.loads((table.schema.metadata or {})[PROVENANCE_KEY])
        ids = table["cluster_id"].to_numpy().astype(np.int32)
        width = int(said["dimension"])
        flat = table["centroid"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        centroids = flat.astype(np.float32).reshape(len(ids), width)
        return Previous(ids, centroids, int(said["next_id"]))
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return None


def _hashes(path: Path, names: list[str]) -> NDArray[np.uint64]:
    parts = []
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=16_384, columns=names):
            block = np.stack([column.to_numpy(zero_copy_only=False) for column in batch.columns])
            parts.append(row_hashes(np.ascontiguousarray(block.T, dtype=np.float32)))
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint64)


def shared_ids(
    clustered_file: Path, inputs: Inputs, vectors: NDArray[np.float32]
) -> NDArray[np.int32] | None:
    """For each of tonight's rows its cluster id of last night.

    Rows are recognised by their post id where both nights have such a column, otherwise by their
    vector.

    Returns:
        int32 (rows,): the id, −1 for noise, −2 for a row that was not there; ``None`` if the
        file cannot be used.
    """
    try:
        schema = pq.read_schema(clustered_file)
        if "cluster_id" not in schema.names:
            return None
        before = pq.read_table(clustered_file, columns=["cluster_id"])["cluster_id"].to_numpy()
        name = next((n for n in ID_COLUMNS if n in schema.names and n in inputs.schema.names), None)
        place: Any
        if name is not None:
            theirs = pq.read_table(clustered_file, columns=[name])[name].cast(pa.large_string())
            mine = inputs.columns([name])[name].cast(pa.large_string())
            place = pc.index_in(mine, value_set=theirs, skip_nulls=True)
        else:
            names = sorted(n for n in schema.names if is_embedding_column(n))
            place = pc.index_in(
                pa.array(row_hashes(vectors)), value_set=pa.array(_hashes(clustered_file, names))
            )
        at = place.fill_null(-1).to_numpy()
    except (OSError, pa.ArrowException):
        return None
    return np.where(at >= 0, np.append(before, -1)[at], -2).astype(np.int32)
