"""The instance sink: every result reaches Dagster once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from dagster import (
    AssetKey,
    DagsterInstance,
)

from reddit_assets.corpus.buckets import Buckets, state_buckets
from reddit_assets.errors import ReportingError
from reddit_assets.ledger.job import Kind, Result
from reddit_assets.ledger.outbox import Outbox, OutboxEntry
from reddit_assets.platform.reporting import records
from reddit_assets.platform.reporting.drain import Reporter
from reddit_assets.platform.reporting.events import readable
from reddit_assets.platform.reporting.instance import InstanceSink
from reddit_assets.workspace import Workspace

EMBEDDINGS, CHAINS, CLUSTERS = AssetKey("embeddings"), AssetKey("chains"), AssetKey("clusters")
TEA = [f"as/Tea/c_{i}" for i in range(3)]


def result(key: str, job: str = "j1", **changes: object) -> Result:
    given = {
        "job": job,
        "asset": "embeddings",
        "partition": key,
        "data_version": "v1",
        "source_version": "c1",
        "metadata": {"rows": 3, "job_id": job},
    }
    return Result(**{**given, **changes})  # type: ignore[arg-type]


def events(instance: DagsterInstance, asset: AssetKey, key: str) -> list[str]:
    """The job ids of a partition's materializations, latest first."""
    found = instance.fetch_materializations(
        records.AssetRecordsFilter(asset, asset_partitions=[key]), limit=50
    )
    return [records._known(record).job_id for record in found.records]


def test_results_leave_the_outbox_when_dagster_has_them(
    workspace: Workspace, instance: DagsterInstance
) -> None:
    # Given 50 results, and a storage whose answer gets lost at first:
    outbox = Outbox(workspace.queues[Kind.EMBED], "r1")
    keys = [f"as/Tea/c_{i}" for i in range(50)]
    outbox.put([result(key, f"job-{key}") for key in keys])
    drain = Reporter([outbox.queue], InstanceSink(workspace, instance))
    stored = records.report
    with pytest.MonkeyPatch.context() as patch:

        def half(given: DagsterInstance, batch: Sequence[object]) -> None:
            stored(given, batch)  # type: ignore[arg-type]
            if any(getattr(e, "asset_key", None) == EMBEDDINGS for e in batch):
                raise ReportingError("The answer got lost.")

        patch.setattr(records, "report", half)
        with pytest.raises(ReportingError):
            drain.drain()
    assert len(outbox) == 50
    # If it works again, then the results are known already and none is stored twice.
    assert drain.drain() == 50
    assert len(outbox) == 0
    for key in keys:
        assert events(instance, EMBEDDINGS, key) == [f"job-{key}"]
        assert len(events(instance, CHAINS, key)) == 1


def test_an_uncertain_result_is_looked_up_behind_newer_ones(
    workspace: Workspace, instance: DagsterInstance
) -> None:
    sink, entry = InstanceSink(workspace, instance), OutboxEntry
    sink.report([entry("1", result(TEA[0], "j1"), False)])
    sink.report([entry("2", result(TEA[0], "j2", data_version="v2"), False)])
    sink.report([entry("1", result(TEA[0], "j1"), True)])
    assert events(instance, EMBEDDINGS, TEA[0]) == ["j2", "j1"]


def test_a_fresh_output_is_reported_only_if_dagster_lacks_it(
    workspace: Workspace, instance: DagsterInstance
) -> None:
    sink, entry = InstanceSink(workspace, instance), OutboxEntry
    found = [entry("1", result(TEA[0], f"j{i}", outcome="fresh"), False) for i in range(2)]
    sink.report(found[:1])
    sink.report(found[1:])
    assert events(instance, EMBEDDINGS, TEA[0]) == ["j0"]


def test_buckets_have_assets_of_their_own(workspace: Workspace, instance: DagsterInstance) -> None:
    # Given what is stated beside the embeddings, which a reporter goes by at once:
    sink = InstanceSink(workspace, instance)
    sink.report([OutboxEntry("1", result(TEA[0]), False)])
    buckets = Buckets.for_files(1)
    state_buckets(workspace.layout, buckets)
    sink.report([OutboxEntry("2", result(TEA[0], "j2", data_version="v2"), False)])
    # Then an event goes to the bucket's asset, and the earlier one stays where it is.
    bucket = buckets.of("as/Tea") or ""
    assert events(instance, AssetKey(["embeddings", bucket]), TEA[0]) == ["j2"]
    assert events(instance, EMBEDDINGS, TEA[0]) == ["j1"]


def test_metadata_are_readable() -> None:
    shown = readable(
        {
            "rows": 3,
            "noise_share": 0.12345,
            "bytes": 125_821,
            "rows_per_second": 1234.5,
            "changes": {"born": 2, "moved": 0.25},
            "path": "/data/x.parquet",
            "top_clusters": [{"id": 1, "keywords": ["tea", "kettle"]}, {"id": 2, "keywords": []}],
            "map_png": "aGVsbG8=",
            "device": None,
        }
    )
    kinds = {name: type(value).__name__ for name, value in shown.items()}
    assert kinds == {
        "rows": "IntMetadataValue",
        "noise, %": "FloatMetadataValue",
        "size, MB": "FloatMetadataValue",
        "rows/s": "IntMetadataValue",
        "changes": "TextMetadataValue",
        "path": "PathMetadataValue",
        "largest clusters": "TableMetadataValue",
        "picture": "MarkdownMetadataValue",
        "dagster/row_count": "IntMetadataValue",
    }
    # The picture comes early and the path late; numbers have three digits, nothing is JSON.
    assert list(kinds)[:2] == ["picture", "rows"]
    assert [shown[name].value for name in ("noise, %", "size, MB", "rows/s", "changes")] == [
        12.3,
        0.126,
        1230,
        "born: 2, moved: 0.25",
    ]
    rows = [dict(record.data) for record in shown["largest clusters"].records]  # type: ignore[attr-defined]
    assert rows == [{"id": 1, "keywords": "tea, kettle"}, {"id": 2, "keywords": ""}]
