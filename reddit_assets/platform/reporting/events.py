"""From a worker's result to a materialization: readable metadata, data version and provenance.

Provenance tags say from which versions of its inputs an output was made, so that the UI shows
as stale exactly what another file, model or setting has outdated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from dagster import (
    AssetKey,
    AssetMaterialization,
    DagsterInstance,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
)

from reddit_assets.corpus.buckets import Buckets
from reddit_assets.corpus.fingerprints import cluster_version, embedding_version, set_hash
from reddit_assets.ledger.job import Result
from reddit_assets.platform.names import CODE_VERSION, DUMPS, MODEL, SETTINGS, AssetSet, set_of
from reddit_assets.platform.reporting import records
from reddit_assets.platform.reporting.metadata import (
    PICTURE,
    chain_metadata,
    described,
    result_metadata,
)

__all__ = ["Materializer", "chains_event", "input_event", "readable", "table"]

# Inline pictures above this are left out: every event is read whole by the UI.
_LARGEST_PICTURE = 400_000
_BASE64 = re.compile(r"[A-Za-z0-9+/]+=*")


def table(rows: Sequence[Mapping[str, Any]]) -> MetadataValue:
    """Rows as a table; lists in cells become text."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    kinds: dict[str, str] = {}
    for name in names:
        values = [row[name] for row in rows if row.get(name) is not None]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        whole = numbers and all(isinstance(v, int) for v in values)
        kinds[name] = "int" if whole else "float" if numbers else "string"
    return MetadataValue.table(
        records=[
            TableRecord({name: _cell(row.get(name), kinds[name]) for name in names}) for row in rows
        ],
        schema=TableSchema([TableColumn(name, kinds[name]) for name in names]),
    )


def _cell(value: Any, kind: str) -> Any:
    if value is None:
        return None if kind != "string" else ""
    if kind == "string":
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return value


def readable(metadata: Mapping[str, Any]) -> dict[str, MetadataValue]:
    """Plain JSON values, chosen and named by ``reporting.metadata``, as Dagster shows them best."""
    return _typed(described(metadata))


def _typed(metadata: Mapping[str, Any]) -> dict[str, MetadataValue]:
    shown = {name: _shown(name, value) for name, value in metadata.items()}
    return {name: value for name, value in shown.items() if value is not None}


def _shown(name: str, value: Any) -> MetadataValue | None:
    if name == PICTURE:
        if str(value).startswith(("http://", "https://")):
            # Short Markdown is shown at once, long is shown when it is clicked.
            return MetadataValue.md(f"![map]({quote(str(value), safe=':/%?=&')})")
        if len(str(value)) > _LARGEST_PICTURE or not _BASE64.fullmatch(str(value)):
            return None
        return MetadataValue.md(f"![map](data:image/png;base64,{value})")
    if isinstance(value, bool):
        return MetadataValue.bool(value)
    if isinstance(value, int):
        return MetadataValue.int(value)
    if isinstance(value, float):
        return MetadataValue.float(value)
    if isinstance(value, str):
        if value.startswith(("http://", "https://")):
            return MetadataValue.url(value)
        if name in ("path", "map") or name.endswith(" path"):
            return MetadataValue.path(value)
        return MetadataValue.text(value)
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return table(value)
    return MetadataValue.text(str(value))


def chains_event(
    assets: AssetSet, key: str, fingerprint: str, metadata: Mapping[str, Any]
) -> AssetMaterialization:
    """A chain file as it is now."""
    return AssetMaterialization(
        assets.chains,
        partition=key,
        metadata=readable(metadata),
        tags=_tags(fingerprint, {}),
    )


def input_event(key: AssetKey, version: str, metadata: Mapping[str, Any]) -> AssetMaterialization:
    """An unpartitioned input as it is now."""
    return AssetMaterialization(key, metadata=readable(metadata), tags=_tags(version, {}))


def _tags(data_version: str, inputs: Mapping[AssetKey, tuple[str, int | None]]) -> dict[str, str]:
    tags = {
        "dagster/data_version": data_version,
        "dagster/data_version_is_user_provided": "true",
        "dagster/code_version": CODE_VERSION,
    }
    for key, (version, pointer) in inputs.items():
        name = key.to_user_string()
        tags[f"dagster/input_data_version/{name}"] = version
        tags[f"dagster/input_event_pointer/{name}"] = "NULL" if pointer is None else str(pointer)
    return tags


class Materializer:
    """Turns results into materializations, a batch at a time.

    Args:
        instance: where the inputs' versions are looked up.
        buckets: which assets each partition belongs to.
        files_of: the keys of a subreddit's files with the data versions that a cluster was made
            of, as far as they can be known; empty if they cannot.
    """

    def __init__(
        self,
        instance: DagsterInstance,
        buckets: Buckets,
        files_of: Callable[[Result], Mapping[str, str]] = lambda _: {},
    ) -> None:
        self._instance = instance
        self._buckets = buckets
        self._files_of = files_of

    def chains(self, results: Iterable[Result]) -> list[AssetMaterialization]:
        """Chain files that the results were made of, as far as Dagster knows another content."""
        by_set: dict[AssetSet, dict[str, Result]] = {}
        for result in results:
            if result.ok and result.source_version and result.asset == "embeddings":
                assets = set_of("chains", result.partition, self._buckets)
                by_set.setdefault(assets, {})[result.partition] = result
        events = []
        for assets, wanted in by_set.items():
            known = records.latest_versions(self._instance, assets.chains, wanted)
            for key, result in wanted.items():
                # A stamp stands for a content that nobody has read: any known one is better.
                unread = result.source_version.startswith("stamp-") and key in known
                if known.get(key) != result.source_version and not unread:
                    seen = chain_metadata(result)
                    events.append(chains_event(assets, key, result.source_version, seen))
        return events

    def outputs(self, results: Iterable[Result]) -> list[AssetMaterialization]:
        """Embeddings and clusters with provenance. Store :meth:`chains` before."""
        by_asset: dict[tuple[AssetSet, str], list[Result]] = {}
        for result in results:
            if result.ok:
                assets = set_of(result.asset, result.partition, self._buckets)
                by_asset.setdefault((assets, result.asset), []).append(result)
        events = []
        for (assets, name), group in by_asset.items():
            if name == "embeddings":
                events += self._embeddings(assets, group)
            elif name == DUMPS.path[0]:
                events += [self._event(DUMPS, result, {}) for result in group]
            else:
                events += self._clusters(assets, group)
        return events

    def _embeddings(self, assets: AssetSet, group: list[Result]) -> list[AssetMaterialization]:
        pointers = records.latest_ids(self._instance, assets.chains, [r.partition for r in group])
        model = self._current(MODEL)
        events = []
        for result in group:
            # The model that made it is the wanted one if the data version can be made of it.
            text = str(result.metadata.get("text_columns", ""))
            made = embedding_version(result.source_version, model, text) == result.data_version
            adopted = result.data_version.startswith("adopted-")
            inputs: dict[AssetKey, tuple[str, int | None]] = {
                assets.chains: (result.source_version, pointers.get(result.partition)),
                MODEL: (model if made or adopted else "another", None),
            }
            events.append(self._event(assets.embeddings, result, inputs))
        return events

    def _clusters(self, assets: AssetSet, group: list[Result]) -> list[AssetMaterialization]:
        settings = self._current(SETTINGS)
        used = {result.partition: dict(self._files_of(result)) for result in group}
        files = [key for versions in used.values() for key in versions]
        known = records.latest(self._instance, assets.embeddings, files)
        events = []
        for result in group:
            versions = used[result.partition]
            inputs_hash = set_hash(versions) if versions else result.data_version
            made = cluster_version(inputs_hash, settings) == result.data_version
            inputs: dict[AssetKey, tuple[str, int | None]] = {
                assets.embeddings: (inputs_hash, _pointer(versions, known)),
                SETTINGS: (settings if made or not versions else "another", None),
            }
            events.append(self._event(assets.clusters, result, inputs))
        return events

    def _current(self, key: AssetKey) -> str:
        """The data version of an unpartitioned asset; Dagster's word for none if it has none."""
        event = self._instance.get_latest_materialization_event(key)
        if event is None or event.asset_materialization is None:
            return "NULL"
        return (event.asset_materialization.tags or {}).get("dagster/data_version", "INITIAL")

    def _event(
        self,
        key: AssetKey,
        result: Result,
        inputs: Mapping[AssetKey, tuple[str, int | None]],
    ) -> AssetMaterialization:
        return AssetMaterialization(
            key,
            partition=result.partition,
            metadata=_typed(result_metadata(result)),
            tags=_tags(result.data_version, inputs),
        )


def _pointer(used: Mapping[str, str], known: Mapping[str, records.Latest]) -> int | None:
    """Up to which event of ``embeddings`` a cluster has seen its files.

    Dagster compares each file's version before and after this place in the log. A file whose
    latest version is another one than was used must lie behind it.
    """
    seen = [known[key].id for key in used if key in known]
    newer = [
        known[key].id
        for key, version in used.items()
        if key in known and known[key].data_version != version
    ]
    if newer:
        return min(newer) - 1
    return max(seen, default=None)
