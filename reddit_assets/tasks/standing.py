"""The standing clustering of a subreddit as a file: read, written, and whether it may be used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from reddit_assets.corpus.layout import CLUSTERED_NAME, STANDING_NAME
from reddit_assets.corpus.output import sync_file, writing
from reddit_assets.corpus.provenance import PROVENANCE_KEY, ClusterProvenance, read_output
from reddit_assets.engines.clustering.identity import Changes
from reddit_assets.engines.clustering.standing import Standing, vector_keys
from reddit_assets.errors import BadFileError, RedditAssetsError
from reddit_assets.tasks.inputs import read_vectors

__all__ = ["ROW_CHANGES", "read_standing", "recognized", "row_changes", "write_standing"]

#: Raised when the columns change: a file of another version is not used, and written again.
VERSION = 2
#: Least cosine at which a post's vector counts as computed again: what a backend may deviate.
SAME_COSINE = 0.9998
#: What can have become of a row since the clustering before, as ``cluster_change`` says it.
ROW_CHANGES = ("kept", "placed", "clustered", "moved", "born", "split", "merged", "died")
_SCHEMA = pa.schema(
    [
        pa.field("hash", pa.uint64(), nullable=False),
        pa.field("cluster_id", pa.int32(), nullable=False),
        pa.field("probability", pa.float32(), nullable=False),
        pa.field("outlier_score", pa.float32(), nullable=False),
        pa.field("x", pa.float32(), nullable=False),
        pa.field("y", pa.float32(), nullable=False),
        pa.field("recent", pa.bool_(), nullable=False),
    ]
)


def write_standing(path: Path, standing: Standing, provenance: ClusterProvenance) -> None:
    """Write what stands after a clustering; synced.

    Args:
        path: the temporary file.
        provenance: of the clustered file that it belongs to.

    Raises:
        WriteError: the target cannot be written.
    """
    facts = {
        "kind": "standing",
        "version": VERSION,
        "settings_fingerprint": provenance.settings_fingerprint,
        "belongs_to": _name(provenance),
        "cluster_ids": standing.cluster_ids.tolist(),
        "cluster_topics": standing.cluster_topics.tolist(),
        "cluster_themes": standing.cluster_themes.tolist(),
        "clustered": standing.clustered,
        "gone": standing.gone,
    }
    schema = _SCHEMA.with_metadata({PROVENANCE_KEY: json.dumps(facts).encode()})
    columns = [
        standing.hashes,
        standing.ids,
        standing.probabilities,
        standing.outlier_scores,
        np.ascontiguousarray(standing.xy[:, 0]),
        np.ascontiguousarray(standing.xy[:, 1]),
        standing.recent,
    ]
    table = pa.Table.from_arrays([pa.array(column) for column in columns], schema=schema)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, compression="zstd", use_dictionary=["cluster_id"])
        sync_file(path)


def _name(provenance: ClusterProvenance) -> str:
    """What a clustered file is known by: two with the same inputs differ in the time."""
    return f"{provenance.data_version} {provenance.written_at!r}"


def read_standing(folder: Path, settings_fingerprint: str) -> Standing | None:
    """What stands in a subreddit's folder; ``None`` where there is nothing to build on.

    That is so where the file is missing, damaged or of another version, where it does not belong to
    the clustered file beside it, and where that was made with other settings.
    """
    try:
        provenance = read_output(folder / CLUSTERED_NAME).provenance
        table = pq.read_table(folder / STANDING_NAME)
        said = json.loads((table.schema.metadata or {})[PROVENANCE_KEY])
        if (
            not isinstance(provenance, ClusterProvenance)
            or said["version"] != VERSION
            or said["belongs_to"] != _name(provenance)
            or said["settings_fingerprint"] != settings_fingerprint
            or not table.num_rows
        ):
            return None
        xy = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
        return Standing(
            hashes=table["hash"].to_numpy(),
            ids=table["cluster_id"].to_numpy(),
            probabilities=table["probability"].to_numpy(),
            outlier_scores=table["outlier_score"].to_numpy(),
            xy=xy,
            recent=table["recent"].to_numpy(),
            cluster_ids=np.array(said["cluster_ids"], dtype=np.int32),
            cluster_topics=np.array(said["cluster_topics"], dtype=np.int32),
            cluster_themes=np.array(said["cluster_themes"], dtype=np.int32),
            clustered=int(said["clustered"]),
            gone=int(said["gone"]),
        )
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError, RedditAssetsError):
        return None


def recognized(
    stood: Standing,
    clustered_file: Path,
    place: NDArray[np.int64] | None,
    vectors: NDArray[np.float32],
) -> Standing:
    """What stands, with the rows whose vectors have been computed again.

    Another batch changes the last bits of a vector, and another backend a little more. Such a row
    is no new one.

    Args:
        place: int64 (n,), of :func:`~.previous.row_places`.
        vectors: float32 (n, d), tonight's.
    """
    if place is None:
        return stood
    tonight = vector_keys(vectors)
    rows = np.flatnonzero((place >= 0) & ~stood.find(tonight)[1])
    if not len(rows):
        return stood
    rows = rows[np.argsort(place[rows], kind="stable")]
    before = _rows_of(clustered_file, place[rows], vectors.shape[1])
    if before is None:
        return stood
    same = np.einsum("nd,nd->n", before, vectors[rows]) >= SAME_COSINE
    return stood.also_known_as(vector_keys(before[same]), tonight[rows[same]], tonight)


def _rows_of(path: Path, rows: NDArray[np.int64], dimension: int) -> NDArray[np.float32] | None:
    """Vectors of some rows of a clustered file, ascending; ``None`` if it does not have them."""
    found = np.empty((len(rows), dimension), dtype=np.float32)
    at = 0
    try:
        for block in read_vectors(path):
            if block.shape[1] != dimension:
                return None
            low, high = np.searchsorted(rows, (at, at + len(block)))
            found[low:high] = block[rows[low:high] - at]
            at += len(block)
    except (OSError, pa.ArrowException, BadFileError):
        return None  # it is about to be written again
    return found if rows[-1] < at else None


def row_changes(
    before: NDArray[np.int32] | None,
    ids: NDArray[np.int32],
    changes: Changes,
    *,
    full: bool,
) -> NDArray[np.int8]:
    """What became of each row, as positions in :data:`ROW_CHANGES`.

    Args:
        before: int32 (n,), the id of the clustering before, −1 noise, −2 for a row that was not
            there; ``None`` if there was no clustering.
        ids: int32 (n,), tonight's.
        changes: what became of the clusters.
        full: whether all rows were clustered, instead of the new ones placed.
    """
    at = {name: np.int8(number) for number, name in enumerate(ROW_CHANGES)}
    result = np.full(len(ids), at["clustered" if full else "placed"], dtype=np.int8)
    if before is None:
        return result
    there = before > -2
    same = there & (before == ids)
    other = there & ~same
    result[same], result[other] = at["kept"], at["moved"]
    result[other & np.isin(before, changes.died)] = at["died"]
    for fate in ("born", "split", "merged"):
        made = changes.ids[np.array(changes.fates, dtype=str) == fate]
        result[other & np.isin(ids, made)] = at[fate]
    return result
