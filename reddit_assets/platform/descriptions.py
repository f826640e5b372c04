"""What the assets' pages say: what each is, what to do there, and its columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster import TableColumn, TableSchema

__all__ = ["CLUSTER_COLUMNS", "about", "columns"]

_ABOUT = {
    "chains": """One Parquet file of conversations per partition, as the program that delivers \
them wrote it. Nothing of ours writes here.

- A new file is noticed by itself, and its embedding is queued.
- *Materialize* opens, checks and fingerprints files, and changes nothing.

More: `docs/dagster.md`, `reddit-assets scan --dry-run`.""",
    "embeddings": """The rows of a chain file plus one vector each, made by workers outside Dagster.

- What is missing or stale is queued by itself; *Materialize* has fresh files made again, too.
- A red partition was given up: its page says why and what to do. *Materialize* → *Failed* tries \
all of them again.
- The name before the last `/` is the partition of `clusters` that a file belongs to.

More: `docs/embedding.md`, `reddit-assets dead list`, `reddit-assets status`.""",
    "clusters": """All rows of a subreddit, each with its cluster: themes, keywords, typical posts \
and a map.

- A partition's page links to its map (`map`). `reddit-assets clusters NAME` prints its clusters.
- A subreddit is clustered by itself when all of its files are embedded, and again when one changes.

More: `docs/clustering.md`.""",
    "dumps": """A public dump of Reddit per partition (`RC_2023-05.zst`), below `dumps/`. Workers \
of kind `ingest` parse it; when all are ingested, the last one makes the chain files.

- New and changed dumps are noticed by themselves; *Materialize* has them ingested again.
- A red partition was given up: its page says why, and where the dump is corrupt.

More: `docs/ingest.md`, `reddit-assets worker --kind ingest`.""",
    "model": """The model that the embeddings should be made with (`embeddings/.model.json`). \
Another one makes all embeddings stale: `reddit-assets model set NAME`.""",
    "cluster_settings": """The clustering settings (`REDDIT_REDUCTION`, …; \
`reddit-assets settings` lists them). Others make all clusters stale; workers need the same as \
this host.""",
}

CLUSTER_COLUMNS = {
    "cluster_id": ("int", "-1 is noise; any other id lasts from night to night"),
    "cluster_probability": ("float", "strength of membership; 0 for noise"),
    "outlier_score": ("float", "from 0 (inside a cluster) to 1"),
    "x": ("float", "place on the map"),
    "y": ("float", "place on the map, pointing up"),
    "topic_id": ("int", "topic of the cluster, -1 for noise; lasts likewise"),
    "theme_id": ("int", "theme of the topic, -1 for noise; lasts likewise"),
}
_TEXT = {
    "id": ("string", "of the post, where there is one"),
    "body, text, … or title": ("string", "the text; REDDIT_TEXT_COLUMNS names another column"),
    "…": ("any", "every other column is carried along"),
}
_VECTOR = {"emb_000 … emb_383": ("float", "the vector, of length 1; or `embedding`, one list")}
_COLUMNS: dict[str, dict[str, tuple[str, str]]] = {
    "chains": _TEXT,
    "embeddings": {**_TEXT, **_VECTOR},
    "clusters": {**_TEXT, **_VECTOR, **CLUSTER_COLUMNS},
}


def about(name: str) -> str:
    """An asset's description in Markdown."""
    return _ABOUT[name]


def columns(name: str) -> Mapping[str, Any]:
    """The metadata of an asset of files: its columns, and what one partition is."""
    found = [
        TableColumn(column, kind, description=what)
        for column, (kind, what) in _COLUMNS[name].items()
    ]
    return {"dagster/column_schema": TableSchema(found)}
