"""The unpartitioned inputs: the wanted model and the clustering settings, as assets.

As assets rather than code versions, since the model is stated on the disk and may change while
Dagster runs, and since their changes then show without provenance (over REST) as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dagster import AssetKey, AssetMaterialization, DagsterInstance

from reddit_assets.corpus.buckets import Buckets
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.provenance import ClusterProvenance, read_output
from reddit_assets.corpus.wanted import read_wanted_model
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.errors import BadFileError, BadKeyError
from reddit_assets.ledger.job import Result
from reddit_assets.platform.names import MODEL, SETTINGS
from reddit_assets.platform.reporting import records
from reddit_assets.platform.reporting.events import Materializer, input_event
from reddit_assets.settings import Settings

__all__ = ["files_of_cluster", "input_events", "materializer", "report_inputs"]


def input_events(
    settings: Settings, layout: Layout
) -> Iterable[tuple[AssetKey, str, Mapping[str, Any]]]:
    """The inputs that exist: key, data version, metadata."""
    wanted = read_wanted_model(layout)
    if wanted is not None:
        yield MODEL, wanted.fingerprint, wanted.model_dump()
    params = ClusterParams.from_settings(settings)
    facts = {name: getattr(params, name) for name in ("reduction", "n_neighbors", "seed")}
    yield SETTINGS, params.fingerprint, facts


def report_inputs(instance: DagsterInstance, settings: Settings, layout: Layout) -> list[str]:
    """Let Dagster have the inputs that changed; their names."""
    changed: list[AssetMaterialization] = []
    for key, version, metadata in input_events(settings, layout):
        event = instance.get_latest_materialization_event(key)
        known = event.asset_materialization if event is not None else None
        if known is None or (known.tags or {}).get("dagster/data_version") != version:
            changed.append(input_event(key, version, metadata))
    records.report(instance, changed)
    return [event.asset_key.to_user_string() for event in changed]


def files_of_cluster(layout: Layout, result: Result) -> Mapping[str, str]:
    """The files that a cluster was made of, with their data versions, from its provenance.

    Empty when this host does not see the file, or when it is another one by now.
    """
    try:
        provenance = read_output(layout.cluster_path(result.partition)).provenance
    except (OSError, BadFileError, BadKeyError):
        return {}
    if (
        not isinstance(provenance, ClusterProvenance)
        or provenance.data_version != result.data_version
    ):
        return {}
    return provenance.inputs


def materializer(instance: DagsterInstance, layout: Layout, buckets: Buckets) -> Materializer:
    """A materializer that knows clusters' inputs from their provenance."""
    return Materializer(instance, buckets, lambda result: files_of_cluster(layout, result))
