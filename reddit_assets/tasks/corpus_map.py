"""The map of the corpus: the clusters of all subreddits as points, each linked to its own map."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from reddit_assets.corpus.cluster_table import find_table
from reddit_assets.corpus.keys import subreddit_of
from reddit_assets.corpus.layout import MAP_NAME, MAP_POSTS_NAME, Layout
from reddit_assets.corpus.output import publish, temporary_path
from reddit_assets.corpus.provenance import PROVENANCE_KEY
from reddit_assets.engines.clustering.clusterer import cluster
from reddit_assets.engines.clustering.identity import keep_identities
from reddit_assets.engines.clustering.map import Wording
from reddit_assets.engines.clustering.meaning import meaning_of
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.engines.vectors import norms
from reddit_assets.errors import NotFoundError
from reddit_assets.tasks.clustered import write_whole
from reddit_assets.tasks.maps import draw_map

__all__ = ["MOST_CLUSTERS", "CorpusMap", "make_corpus_map"]

#: Clusters on the map at most: of each subreddit the largest.
MOST_CLUSTERS = 100_000
COLUMNS = ("cluster_id", "name", "size", "keywords", "representative_texts", "last_date")
WORDING = Wording("clusters", "Cluster", "posts", "open the map of the subreddit")


@dataclass(frozen=True, slots=True)
class CorpusMap:
    """What was drawn.

    Attributes:
        page: where it is.
        subreddits, clusters: on the map.
        left_out: subreddits whose table cannot be read, or is of vectors of another dimension than
            most.
    """

    page: Path
    subreddits: int
    clusters: int
    left_out: tuple[str, ...]


class ClusterPosts:
    """Clusters as the posts of a map.

    Args:
        keys: cluster key of each.
        rows: its row of ``clusters.table``.
    """

    def __init__(self, keys: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
        self._keys, self._rows = keys, rows

    def texts(
        self, rows: NDArray[np.int64], characters: int | None = None
    ) -> list[tuple[str, str]]:
        """Subreddit and name; keywords and the most typical post."""
        return [(self._title(at), self._body(at)) for at in rows.tolist()]

    def _title(self, at: int) -> str:
        return f"{subreddit_of(self._keys[at])}: {self._rows[at]['name']}"

    def _body(self, at: int) -> str:
        row = self._rows[at]
        return "\n\n".join([", ".join(row["keywords"]), *row["representative_texts"][:1]])

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Key and id."""
        return [f"{self._keys[at]}#{self._rows[at]['cluster_id']}" for at in rows.tolist()]

    def links(self, rows: NDArray[np.int64]) -> list[str]:
        """To the cluster on its subreddit's map, from the map of the corpus."""
        return [
            f"{quote(self._keys[at])}/{MAP_NAME}#cluster={self._rows[at]['cluster_id']}"
            for at in rows.tolist()
        ]

    def scores(self) -> NDArray[np.float64]:
        """Posts of each."""
        return np.array([row["size"] for row in self._rows], dtype=np.float64)

    def dates(self) -> NDArray[np.float64]:
        """Of the last post of each, seconds since 1970; NaN where it has none."""
        last = [row["last_date"] for row in self._rows]
        return np.array([np.nan if one is None else one.timestamp() for one in last])


def make_corpus_map(
    layout: Layout,
    keys: Sequence[str],
    params: ClusterParams,
    say: Callable[[str], None] | None = None,
    *,
    most: int = MOST_CLUSTERS,
) -> CorpusMap:
    """Write ``clusters/map.html``: clusters that are alike lie near each other, in named groups.

    The centroids are clustered like posts. Both files get their names when they are whole.

    Args:
        keys: cluster keys of the subreddits.
        params: memory, threads and seed are taken from them.
        say: called with the key of each subreddit that is read.
        most: clusters drawn at most.

    Raises:
        NotFoundError: no subreddit has clusters.
        WriteError: the map cannot be written.
    """
    told = say or (lambda key: None)
    tables = {key: _find(layout, key) for key in keys}
    clustered = sum(table is not None and table.exists() for table in tables.values())
    each = max(1, most // max(clustered, 1))
    found: list[tuple[str, list[dict[str, Any]], NDArray[np.float32]]] = []
    left_out: list[str] = []
    for key, table in tables.items():
        read = None if table is None else _read(table, each)
        if read is None:
            left_out.append(key)
        elif read[0]:
            found.append((key, *read))
        told(key)
    dimensions = Counter(middles.shape[1] for _, _, middles in found)
    if not dimensions:
        raise NotFoundError(
            f"There are no clusters in {layout.clusters}.", hint="Cluster the subreddits first."
        )
    common = max(dimensions, key=lambda dimension: (dimensions[dimension], dimension))
    left_out += [key for key, _, middles in found if middles.shape[1] != common]
    found = [one for one in found if one[2].shape[1] == common][:most]
    posts = ClusterPosts(
        [key for key, rows, _ in found for _ in rows], [row for _, rows, _ in found for row in rows]
    )
    vectors = np.concatenate([middles for _, _, middles in found])
    page = _write(layout, posts, vectors, params, len(found))
    return CorpusMap(page, len(found), len(vectors), tuple(left_out))


def _find(layout: Layout, key: str) -> Path | None:
    """A subreddit's table of clusters; ``None`` where its folder cannot be looked at."""
    try:
        return find_table(layout.cluster_dir(key))
    except OSError:
        return None


def _read(path: Path, most: int) -> tuple[list[dict[str, Any]], NDArray[np.float32]] | None:
    """The largest clusters of a table and their centroids; ``None`` where it is not one of ours."""
    try:
        with pq.ParquetFile(path) as file:
            if PROVENANCE_KEY not in (file.schema_arrow.metadata or {}):
                return None
            if json.loads(file.schema_arrow.metadata[PROVENANCE_KEY]).get("kind") != "clusters":
                return None
            table = file.read([*COLUMNS, "centroid"]).slice(0, most)
        if not len(table):
            return [], np.zeros((0, 0), np.float32)
        middles = np.array(table.column("centroid").to_pylist(), dtype=np.float32)
        lengths = np.maximum(norms(middles), 1e-12)[:, None]
        return table.select(COLUMNS).to_pylist(), (middles / lengths).astype(np.float32)
    except FileNotFoundError:
        return [], np.zeros((0, 0), np.float32)  # not clustered, or not any more
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None


def _write(
    layout: Layout,
    posts: ClusterPosts,
    vectors: NDArray[np.float32],
    params: ClusterParams,
    subreddits: int,
) -> Path:
    own = ClusterParams()
    how = replace(own, memory_mb=params.memory_mb, threads=params.threads, seed=params.seed)
    clustering = cluster(vectors, how)
    none = np.zeros(0, dtype=np.int32)
    changes = keep_identities(none, none, None, clustering.centroids)
    groups = meaning_of(posts, vectors, clustering, changes)
    drawn = draw_map(
        "all subreddits",
        posts,
        clustering,
        clustering.labels,
        groups,
        born=(),
        seed=params.seed,
        wording=WORDING,
        facts=f"{len(vectors):,} clusters of {subreddits:,} subreddits, "
        f"in {len(groups.rows):,} groups",
    )
    token = secrets.token_hex(8)
    files = [(MAP_POSTS_NAME, drawn.posts), (MAP_NAME, drawn.page)]
    temporary = {name: temporary_path(layout.clusters / name, token) for name, _ in files}
    try:
        for name, content in files:
            if content is not None or (layout.clusters / name).exists():
                write_whole(temporary[name], content or b"")
                publish(temporary[name], layout.clusters / name)
    finally:
        for path in temporary.values():
            with suppress(FileNotFoundError):
                path.unlink()
    return layout.corpus_map
