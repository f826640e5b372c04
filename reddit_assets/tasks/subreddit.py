"""A subreddit's embedding files to its cluster files, all under temporary names."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reddit_assets.corpus.fingerprints import cluster_version, set_hash
from reddit_assets.corpus.keys import subreddit_of
from reddit_assets.corpus.layout import CLUSTER_FILES, Layout
from reddit_assets.corpus.output import temporary_path
from reddit_assets.corpus.provenance import ClusterProvenance, cluster_inputs
from reddit_assets.engines.clustering.clusterer import Clustering, cluster
from reddit_assets.engines.clustering.identity import Changes, keep_identities
from reddit_assets.engines.clustering.map import map_page, map_png, map_rows
from reddit_assets.engines.clustering.meaning import cluster_rows, excerpt, theme_names
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.errors import ClusteringError
from reddit_assets.tasks.clustered import write_clustered, write_clusters, write_page
from reddit_assets.tasks.inputs import Inputs, open_inputs
from reddit_assets.tasks.previous import read_previous, shared_ids

__all__ = ["PICTURE_ROWS", "ClusterResult", "cluster_subreddit"]

#: A picture of the map is made for subreddits of at least this many rows.
PICTURE_ROWS = 200
#: Clusters in the table for people.
TABLE_ROWS = 50


@dataclass(frozen=True)
class ClusterResult:
    """What a cluster job made.

    Attributes:
        files: temporary file and final name, in the order of publishing; all synced.
        data_version: of the clustered file.
        rows: of the clustered file.
        seconds: it took.
        metadata: plain values for people: clusters, themes, noise share, changes, ….
        table: the largest clusters as rows of plain values.
        png: a small picture of the map, or ``None`` for a small subreddit.
    """

    files: tuple[tuple[Path, Path], ...]
    data_version: str
    rows: int
    seconds: float
    metadata: dict[str, Any]
    table: list[dict[str, Any]] = field(default_factory=list)
    png: bytes | None = None


def cluster_subreddit(
    layout: Layout,
    cluster_key: str,
    keys: Sequence[str],
    params: ClusterParams,
    *,
    token: str,
    excluded: Sequence[str] = (),
    job_id: str = "",
    writer: dict[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
) -> ClusterResult:
    """Cluster the embedding files of a subreddit and write its three files.

    ``clustered.parquet`` holds the rows of all files in key order with the appended columns,
    ``clusters.parquet`` one row per cluster, ``map.html`` the map. Nothing is renamed: the caller
    publishes. On an error no temporary file is left.

    Args:
        cluster_key: ``<shard>/<subreddit>``.
        keys: partition keys of the embedding files to take.
        token: names the temporary files.
        excluded: files left out (dead letters), recorded in the provenance.
        writer: recorded in the provenance: host, versions, ….
        progress: called with each stage's name as it begins.

    Raises:
        ClusteringError: files do not fit together or hold bad vectors; the file is named.
        BadFileError: a file is damaged; it is named.
        WriteError: an output cannot be written.
        FileNotFoundError: an embedding file has vanished.
    """
    start = time.monotonic()
    say = progress or (lambda stage: None)
    if not keys:
        raise ClusteringError(
            f"{cluster_key} has no embedding files.", hint="Embed its chain files first."
        )
    say("reading")
    found = cluster_inputs(layout, keys)
    inputs = open_inputs(found, sorted(keys))
    versions = {key: file.data_version for key, file in zip(inputs.keys, found, strict=True)}
    stamps = {key: file.stamp for key, file in zip(inputs.keys, found, strict=True)}
    inputs_hash = set_hash(versions)
    version = cluster_version(inputs_hash, params.fingerprint)
    vectors = inputs.vectors()
    clustering = cluster(vectors, params, say)
    say("identities")
    changes, ids = _identities(layout, cluster_key, inputs, vectors, clustering)
    say("meaning")
    rows = cluster_rows(inputs, vectors, clustering, changes)
    names = theme_names(rows)
    del vectors
    summary = {**clustering.info, "changes": changes.summary(), "adopted_files": inputs.adopted}
    provenance = ClusterProvenance(
        key=cluster_key,
        data_version=version,
        inputs=versions,
        inputs_hash=inputs_hash,
        inputs_stamp=set_hash(stamps),
        excluded=sorted(excluded),
        settings_fingerprint=params.fingerprint,
        settings={name: value for name, value in asdict(params).items() if name != "threads"},
        summary=summary,
        writer=writer or {},
        seconds=round(time.monotonic() - start, 3),
        job_id=job_id,
        written_at=time.time(),
    )
    finals = [layout.cluster_dir(cluster_key) / name for name in CLUSTER_FILES]
    temporaries = [temporary_path(final, token) for final in finals]
    by_name = dict(zip(CLUSTER_FILES, temporaries, strict=True))
    try:
        say("writing")
        facts = {
            "key": cluster_key,
            "data_version": version,
            "next_id": changes.next_id,
            "dimension": len(inputs.names),
            "rows": inputs.total,
            "themes": {str(number): name for number, name in names.items()},
            "summary": summary,
        }
        middles = clustering.centroids
        full = [{**row, "centroid": middles[at].tolist()} for at, row in enumerate(rows)]
        write_clusters(by_name["clusters.parquet"], full, facts)
        page, png = _map(cluster_key, inputs, clustering, ids, rows, names, params.seed)
        write_page(by_name["map.html"], page)
        size = write_clustered(by_name["clustered.parquet"], inputs, clustering, ids, provenance)
    except BaseException:
        for path in temporaries:
            with suppress(FileNotFoundError):
                path.unlink()
        raise
    seconds = time.monotonic() - start
    return ClusterResult(
        files=tuple(zip(temporaries, finals, strict=True)),
        data_version=version,
        rows=inputs.total,
        seconds=seconds,
        metadata=_metadata(inputs, clustering, changes, size, seconds, excluded),
        table=[_table_row(row, names) for row in rows[:TABLE_ROWS]],
        png=png,
    )


def _identities(
    layout: Layout,
    cluster_key: str,
    inputs: Inputs,
    vectors: NDArray[np.float32],
    clustering: Clustering,
) -> tuple[Changes, NDArray[np.int32]]:
    """Persistent ids of the clusters, and of each row."""
    folder = layout.cluster_dir(cluster_key)
    previous = read_previous(folder / "clusters.parquet")
    before = None
    if previous is not None:
        before = shared_ids(layout.cluster_path(cluster_key), inputs, vectors)
    if previous is None or before is None:
        none = np.zeros(0, dtype=np.int32)
        changes = keep_identities(none, none, previous, clustering.centroids)
    else:
        there = before > -2
        changes = keep_identities(
            before[there], clustering.labels[there], previous, clustering.centroids
        )
    return changes, np.append(changes.ids, np.int32(-1))[clustering.labels].astype(np.int32)


def _map(
    cluster_key: str,
    inputs: Inputs,
    clustering: Clustering,
    ids: NDArray[np.int32],
    rows: list[dict[str, Any]],
    names: dict[int, str],
    seed: int,
) -> tuple[str, bytes | None]:
    chosen = map_rows(inputs.total, clustering.labels, seed)
    column = "title" if "title" in inputs.schema.names else inputs.text_column
    texts = [excerpt(text, 160) for text in inputs.texts(column, chosen)] if column else []
    texts += [""] * (len(chosen) - len(texts))
    name = subreddit_of(cluster_key)
    x, y = clustering.x[chosen], clustering.y[chosen]
    page = map_page(name, x, y, ids[chosen], texts, rows, names, inputs.total)
    if inputs.total < PICTURE_ROWS:
        return page, None
    return page, map_png(name, x, y, clustering.themes[chosen], rows)


def _metadata(
    inputs: Inputs,
    clustering: Clustering,
    changes: Changes,
    size: int,
    seconds: float,
    excluded: Sequence[str],
) -> dict[str, Any]:
    info = clustering.info
    kept = {
        name: info[name]
        for name in (
            "clusters",
            "themes",
            "reduction",
            "min_cluster_size",
            "min_samples",
            "selection",
        )
    }
    moved = changes.moved_share
    return {
        "rows": inputs.total,
        "files": len(inputs.keys),
        "adopted_files": inputs.adopted,
        "excluded_files": list(excluded),
        **kept,
        "noise_share": round(info["noise_share"], 4),
        "assigned_share": round(info["assigned_share"], 4),
        **{f"clusters_{name}": count for name, count in changes.counts.items()},
        "rows_moved_share": None if moved is None else round(moved, 4),
        "bytes": size,
        "seconds": round(seconds, 3),
        "rows_per_second": round(inputs.total / seconds, 1) if seconds > 0 else 0.0,
    }


def _table_row(row: dict[str, Any], names: dict[int, str]) -> dict[str, Any]:
    """A cluster as people read it: plain values only."""
    texts = row["representative_texts"]
    return {
        "cluster_id": row["cluster_id"],
        "name": row["name"],
        "size": row["size"],
        "theme": names.get(row["theme_id"], ""),
        "keywords": ", ".join(row["keywords"][:8]),
        "representative": excerpt(texts[0], 140) if texts else "",
        "median_score": row["score_median"],
        "first": row["first_date"].date().isoformat() if row["first_date"] else "",
        "last": row["last_date"].date().isoformat() if row["last_date"] else "",
        "fate": row["fate"],
    }
