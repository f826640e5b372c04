"""Writing a clustering's files under temporary names: rows as a stream, then the small tables."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from reddit_assets.corpus.output import EmbeddingWriter, sync_file, writing
from reddit_assets.corpus.provenance import PROVENANCE_KEY, ClusterProvenance
from reddit_assets.corpus.vectors import VectorFormat
from reddit_assets.engines.clustering.results import Clustering
from reddit_assets.tasks.inputs import ADDED_COLUMNS, Inputs
from reddit_assets.tasks.standing import ROW_CHANGES

__all__ = [
    "GROUP_ROWS",
    "added_fields",
    "grouped",
    "write_clustered",
    "write_clusters",
    "write_whole",
]

#: Rows of a row group.
GROUP_ROWS = 65_536
#: Bytes in memory at which a row group is written, however few its rows.
GROUP_BYTES = 512_000_000
#: Columns of ``clusters.table``, beside ``centroid``.
SCHEMA_FIELDS = [
    pa.field("cluster_id", pa.int32()),
    pa.field("topic_id", pa.int32()),
    pa.field("theme_id", pa.int32()),
    pa.field("name", pa.string()),
    pa.field("size", pa.int64()),
    pa.field("share", pa.float64()),
    pa.field("keywords", pa.list_(pa.string())),
    pa.field("keyword_weights", pa.list_(pa.float64())),
    pa.field("representative_ids", pa.list_(pa.string())),
    pa.field("representative_texts", pa.list_(pa.string())),
    pa.field("score_median", pa.float64()),
    pa.field("score_mean", pa.float64()),
    pa.field("score_max", pa.float64()),
    pa.field("first_date", pa.timestamp("s", tz="UTC")),
    pa.field("last_date", pa.timestamp("s", tz="UTC")),
    pa.field("probability_mean", pa.float64()),
    pa.field("x", pa.float32()),
    pa.field("y", pa.float32()),
    pa.field("fate", pa.string()),
    pa.field("parents", pa.list_(pa.int32())),
]
_TYPES = {
    "cluster_id": pa.int32(),
    "topic_id": pa.int32(),
    "theme_id": pa.int32(),
    "cluster_change": pa.dictionary(pa.int8(), pa.string()),
    "nearest_cluster": pa.int32(),
}
#: Null where the row is in a cluster.
_OPTIONAL = ("nearest_cluster", "nearest_similarity")


def added_fields() -> list[pa.Field]:
    """The appended columns with their types."""
    return [
        pa.field(name, _TYPES.get(name, pa.float32()), nullable=name in _OPTIONAL)
        for name in ADDED_COLUMNS
    ]


def grouped(
    batches: Iterable[pa.RecordBatch], most: int = GROUP_ROWS
) -> Iterable[list[pa.RecordBatch]]:
    """Batches together until they fill a row group: many small files make no tiny groups."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= most or size >= GROUP_BYTES:
            yield held
            held, rows, size = [], 0, 0
    if held:
        yield held


def write_clustered(
    path: Path,
    inputs: Inputs,
    vectors: NDArray[np.float32],
    clustering: Clustering,
    cluster_ids: NDArray[np.int32],
    changes: NDArray[np.int8],
    nearest: NDArray[np.int32],
    provenance: ClusterProvenance,
    form: VectorFormat,
) -> int:
    """Stream ``clustered.parquet``: all input columns, vectors and the appended columns.

    Args:
        path: the temporary file; deleted again on an error.
        vectors: float32 (rows, dimension).
        clustering: with persistent topics and themes.
        cluster_ids: int32 (rows,), persistent ids, −1 noise.
        form: how the vectors are kept.
        changes: int8 (rows,), what became of each row, positions in ``ROW_CHANGES``.
        nearest: int32 (rows,), the persistent id of the cluster nearest to a row that is noise, −1
            where there is none.

    Returns:
        the file's size in bytes; it is synced to disk.

    Raises:
        BadFileError: the vectors cannot be kept so.
        WriteError: the target cannot be written.
    """
    added = (
        pa.array(cluster_ids),
        pa.array(clustering.probabilities),
        pa.array(clustering.outlier_scores),
        pa.array(clustering.x),
        pa.array(clustering.y),
        pa.array(clustering.topics),
        pa.array(clustering.themes),
        pa.DictionaryArray.from_arrays(pa.array(changes), pa.array(ROW_CHANGES)),
        pa.array(nearest, mask=nearest < 0),
        pa.array(clustering.similarities, from_pandas=True),
    )
    with EmbeddingWriter(
        path,
        inputs.schema,
        inputs.dimension,
        rows=inputs.total,
        vectors=form,
        behind=added_fields(),
    ) as writer:
        at = 0
        for group in grouped(inputs.batches()):
            table = pa.Table.from_batches(group)
            stop = at + table.num_rows
            writer.write(table, vectors[at:stop], [values[at:stop] for values in added])
            at = stop
        return writer.finish(provenance)


def write_clusters(path: Path, rows: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    """Write ``clusters.table``, one row per cluster, ``facts`` in its key-value metadata; synced.

    Args:
        rows: columns of ``SCHEMA_FIELDS`` and ``centroid`` (list of float).
        facts: at least ``next_id`` and ``dimension``; anything that JSON can hold.

    Raises:
        WriteError: the target cannot be written.
    """
    schema = pa.schema(
        [*SCHEMA_FIELDS, pa.field("centroid", pa.list_(pa.float32()))],
        metadata={PROVENANCE_KEY: json.dumps({"kind": "clusters", **facts}).encode()},
    )
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")
        sync_file(path)


def write_whole(path: Path, content: bytes) -> None:
    """Write a page or a picture; synced.

    Raises:
        WriteError: the target cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        sync_file(path)
