"""A subreddit's embedding files to its cluster files, all under temporary names."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reddit_assets.corpus.fingerprints import cluster_version, set_hash
from reddit_assets.corpus.keys import subreddit_of
from reddit_assets.corpus.layout import (
    CLUSTER_FILES,
    CLUSTERED_NAME,
    MAP_NAME,
    MAP_POSTS_NAME,
    PICTURE_NAME,
    STANDING_NAME,
    TABLE_NAME,
    Layout,
)
from reddit_assets.corpus.nights import Night, kept_nights, read_before
from reddit_assets.corpus.output import temporary_path
from reddit_assets.corpus.provenance import ClusterProvenance, OutputFile, cluster_inputs
from reddit_assets.corpus.vectors import VectorFormat
from reddit_assets.engines.clustering.clusterer import cluster
from reddit_assets.engines.clustering.identity import Changes, Level
from reddit_assets.engines.clustering.meaning import Meaning, meaning_of
from reddit_assets.engines.clustering.names import Named
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.engines.clustering.placing import place
from reddit_assets.engines.clustering.results import Clustering
from reddit_assets.engines.clustering.standing import Standing
from reddit_assets.errors import ClusteringError
from reddit_assets.tasks.clustered import write_clustered, write_clusters, write_whole
from reddit_assets.tasks.inputs import Inputs, open_inputs
from reddit_assets.tasks.maps import PICTURE_ROWS, draw_map
from reddit_assets.tasks.news import news_table, tonight
from reddit_assets.tasks.phrase_model import HostModel
from reddit_assets.tasks.posts import FilePosts, columns_of_texts
from reddit_assets.tasks.previous import identities, row_places
from reddit_assets.tasks.report import table_row
from reddit_assets.tasks.standing import read_standing, recognized, row_changes, write_standing

__all__ = ["PICTURE_ROWS", "ClusterResult", "cluster_subreddit"]

#: Clusters in the table for people.
TABLE_ROWS = 50
#: Of how it was clustered, what people are shown.
SHOWN_FACTS = (
    "clusters",
    "topics",
    "themes",
    "reduction",
    "min_cluster_size",
    "min_samples",
    "selection",
)


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


@dataclass(frozen=True)
class _Clustered:
    """A clustered subreddit before it is written."""

    key: str
    inputs: Inputs
    posts: FilePosts
    vectors: NDArray[np.float32]
    clustering: Clustering
    """With the persistent ids of its topics and themes."""
    changes: Changes
    topics: Level
    themes: Level
    ids: NDArray[np.int32]
    """Persistent id of each row, −1 noise."""
    row_changes: NDArray[np.int8]
    """What became of each row."""
    standing: Standing
    """For the next night."""
    meaning: Meaning
    """What the clusters are about."""
    named_by: str
    nights: tuple[Night, ...]
    """What was new, tonight last."""

    @property
    def born(self) -> set[int]:
        """Clusters that are new tonight; in the first night all are, so none is."""
        if self.nights[-1].first:
            return set()
        return {row["cluster_id"] for row in self.meaning.rows if row["fate"] == "born"}

    @property
    def summary(self) -> dict[str, Any]:
        """How it was clustered, what became of the clusters, what was done to columns."""
        return {
            **self.clustering.info,
            "changes": self.changes.summary(),
            "adopted_files": self.inputs.adopted,
            "united_columns": dict(self.inputs.remarks),
            "unreadable_columns": dict(self.posts.unreadable),
        }


def cluster_subreddit(
    layout: Layout,
    cluster_key: str,
    keys: Sequence[str],
    params: ClusterParams,
    *,
    token: str,
    full: bool = False,
    excluded: Sequence[str] = (),
    job_id: str = "",
    vectors: VectorFormat | None = None,
    model: HostModel | None = None,
    writer: dict[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
) -> ClusterResult:
    """Cluster the embedding files of a subreddit and write its files.

    ``clustered.parquet`` holds the rows of all files in key order with the appended columns,
    ``clusters.table`` one row per cluster, ``clusters.standing`` what the next night places new
    rows into, ``map.html`` and ``map.png`` the map. Nothing is renamed: the caller publishes. On
    an error no temporary file is left.

    Where a clustering with these settings stands, and less than ``params.recluster_share`` of its
    rows have come or gone, new rows are placed into it. Otherwise all rows are clustered.

    Args:
        cluster_key: ``<shard>/<subreddit>``.
        keys: partition keys of the embedding files to take.
        token: names the temporary files.
        full: cluster all rows, whatever stands.
        excluded: files left out (dead letters), recorded in the provenance.
        vectors: how the clustered file keeps them.
        model: names the clusters as well, if it made the vectors.
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
    files = cluster_inputs(layout, keys)
    inputs = open_inputs(files, sorted(keys))
    posts = FilePosts(inputs, columns_of_texts(files))
    phrases = model.made(files) if model is not None else None
    made = _clustered(layout, cluster_key, inputs, posts, params, say, phrases, full=full)
    provenance = _provenance(
        made,
        files,
        params,
        excluded=sorted(excluded),
        writer=writer or {},
        seconds=round(time.monotonic() - start, 3),
        job_id=job_id,
    )
    say("writing")
    written, png = _write(layout, made, provenance, params.seed, token, vectors or VectorFormat())
    seconds = time.monotonic() - start
    size = next(path for path, final in written if final.name == CLUSTERED_NAME).stat().st_size
    return ClusterResult(
        files=written,
        data_version=provenance.data_version,
        rows=made.inputs.total,
        seconds=seconds,
        metadata=_metadata(made, size, seconds, excluded),
        table=[
            table_row(row, made.meaning.topics, made.meaning.themes)
            for row in made.meaning.rows[:TABLE_ROWS]
        ],
        png=png,
    )


def _clustered(
    layout: Layout,
    cluster_key: str,
    inputs: Inputs,
    posts: FilePosts,
    params: ClusterParams,
    say: Callable[[str], None],
    model: HostModel | None,
    *,
    full: bool,
) -> _Clustered:
    """The clustering of all rows, the ids of its clusters and what they are about."""
    vectors = inputs.vectors()
    excluded = posts.placeholders(params.placeholders)
    stood = None if full else read_standing(layout.cluster_dir(cluster_key), params.fingerprint)
    rows = row_places(layout.cluster_path(cluster_key), inputs, vectors)
    if stood is not None:
        stood = recognized(stood, layout.cluster_path(cluster_key), rows, vectors)
    if stood is not None and stood.changed_share(vectors, excluded) > params.recluster_share:
        stood = None
    if stood is None:
        clustering = cluster(vectors, params, say, excluded=excluded)
    else:
        clustering = place(vectors, stood, params, say, excluded=excluded)
    say("identities")
    changes, before, (topics, themes) = identities(
        layout.cluster_path(cluster_key), rows, clustering
    )
    clustering = replace(clustering, cluster_topics=topics.ids, cluster_themes=themes.ids)
    ids = np.append(changes.ids, np.int32(-1))[clustering.labels].astype(np.int32)
    say("meaning")
    table = read_before(layout.cluster_dir(cluster_key))
    named = Named.from_json(table.named)
    meaning = meaning_of(posts, vectors, clustering, changes, named, model)
    how = (table, before, ids, changes, meaning.rows, posts, vectors, clustering)
    night = tonight(*how, full=stood is None)
    return _Clustered(
        cluster_key,
        inputs,
        posts,
        vectors,
        clustering,
        changes,
        topics,
        themes,
        ids,
        row_changes(before, ids, changes, full=stood is None),
        Standing.of(vectors, clustering, changes.ids, excluded=excluded, before=stood),
        meaning,
        "words and model" if meaning.named.by_model else f"words: {model.why if model else ''}",
        (*table.nights, night),
    )


def _provenance(
    made: _Clustered, files: Sequence[OutputFile], params: ClusterParams, **facts: Any
) -> ClusterProvenance:
    versions = {key: file.data_version for key, file in zip(made.inputs.keys, files, strict=True)}
    stamps = {key: file.stamp for key, file in zip(made.inputs.keys, files, strict=True)}
    inputs_hash = set_hash(versions)
    return ClusterProvenance(
        key=made.key,
        data_version=cluster_version(inputs_hash, params.fingerprint),
        inputs=versions,
        inputs_hash=inputs_hash,
        inputs_stamp=set_hash(stamps),
        settings_fingerprint=params.fingerprint,
        settings={name: value for name, value in asdict(params).items() if name != "threads"},
        summary=made.summary,
        written_at=time.time(),
        **facts,
    )


def _write(
    layout: Layout,
    made: _Clustered,
    provenance: ClusterProvenance,
    seed: int,
    token: str,
    form: VectorFormat,
) -> tuple[tuple[tuple[Path, Path], ...], bytes | None]:
    """All files under temporary names, with their final ones; and the picture of the map."""
    folder = layout.cluster_dir(made.key)
    by_name = {name: temporary_path(folder / name, token) for name in CLUSTER_FILES}
    temporaries = list(by_name.values())
    try:
        _write_clusters(by_name[TABLE_NAME], made, provenance.data_version)
        write_standing(by_name[STANDING_NAME], made.standing, provenance)
        drawn = draw_map(
            subreddit_of(made.key),
            made.posts,
            made.clustering,
            made.ids,
            made.meaning,
            born=made.born,
            seed=seed,
        )
        write_whole(by_name[MAP_NAME], drawn.page)
        # Where the page needs none beside it any more, old posts do not stay: they are emptied.
        posts = b"" if drawn.posts is None and (folder / MAP_POSTS_NAME).exists() else drawn.posts
        for name, content in ((MAP_POSTS_NAME, posts), (PICTURE_NAME, drawn.png)):
            if content is None:
                del by_name[name]
            else:
                write_whole(by_name[name], content)
        write_clustered(
            by_name[CLUSTERED_NAME],
            made.inputs,
            made.vectors,
            made.clustering,
            made.ids,
            made.row_changes,
            np.append(made.changes.ids, np.int32(-1))[made.clustering.nearest],
            provenance,
            form,
        )
    except BaseException:
        for path in temporaries:
            with suppress(FileNotFoundError):
                path.unlink()
        raise
    return tuple((path, folder / name) for name, path in by_name.items()), drawn.png


def _write_clusters(path: Path, made: _Clustered, data_version: str) -> None:
    facts = {
        "key": made.key,
        "data_version": data_version,
        "next_id": made.changes.next_id,
        "next_topic_id": made.topics.next_id,
        "next_theme_id": made.themes.next_id,
        "dimension": made.inputs.dimension,
        "rows": made.inputs.total,
        "topics": {str(number): name for number, name in made.meaning.topics.items()},
        "themes": {str(number): name for number, name in made.meaning.themes.items()},
        "summary": made.summary,
        "nights": kept_nights(made.nights),
        "named": made.meaning.named.to_json(),
    }
    middles = made.clustering.centroids
    rows = [{**row, "centroid": middles[at].tolist()} for at, row in enumerate(made.meaning.rows)]
    write_clusters(path, rows, facts)


def _metadata(
    made: _Clustered, size: int, seconds: float, excluded: Sequence[str]
) -> dict[str, Any]:
    info, rows, changes = made.clustering.info, made.inputs.total, made.changes
    moved = changes.moved_share
    return {
        "rows": rows,
        "files": len(made.inputs.keys),
        "adopted_files": made.inputs.adopted,
        "excluded_files": list(excluded),
        **{name: info[name] for name in SHOWN_FACTS},
        "noise_share": round(info["noise_share"], 4),
        "placeholder_rows": info["noise_rows"]["placeholder"],
        "assigned_share": round(info["assigned_share"], 4),
        "placed_rows": info["placed_rows"],
        **{f"clusters_{name}": count for name, count in changes.counts.items()},
        "rows_moved_share": None if moved is None else round(moved, 4),
        "named_by": made.named_by,
        "news": news_table(made.nights, made.meaning.rows),
        "united_columns": [f"{name}: {why}" for name, why in made.inputs.remarks.items()],
        "unreadable_columns": [f"{name}: {why}" for name, why in made.posts.unreadable.items()],
        "bytes": size,
        "seconds": round(seconds, 3),
        "rows_per_second": round(rows / seconds, 1) if seconds > 0 else 0.0,
    }
