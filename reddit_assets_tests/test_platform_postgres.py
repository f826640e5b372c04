"""What we write into Dagster's tables on Postgres ourselves: it is what Dagster would write."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetKey,
    AssetMaterialization,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    EventLogEntry,
    MetadataValue,
)
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from sqlalchemy import text

from reddit_assets.platform.reporting import bulk, records
from reddit_assets.platform.reporting.events import table
from reddit_assets.platform.reporting.prune import prune


@pytest.fixture
def instance(tmp_path: Path, postgres_url: str) -> Iterator[DagsterInstance]:
    config = {"storage": {"postgres": {"postgres_url": postgres_url}}}
    (tmp_path / "dagster.yaml").write_text(json.dumps(config))
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


HOSTILE = 'tab\t line\n\r back\\slash \\N \\. "quote" \x00 é \u2028 \U0001f600'


def test_a_copied_batch_is_what_dagster_itself_writes(instance: DagsterInstance) -> None:
    # Given events with metadata of every kind, and text that COPY could trip over:
    metadata = {
        "n": 3,
        "x": 2.0,
        "text": HOSTILE,
        "path": MetadataValue.path("/c/map.html"),
        "url": MetadataValue.url("https://a.b/c"),
        "md": MetadataValue.md("# a\n\\."),
        "flag": True,
        "json": MetadataValue.json({"a": [1, None]}),
        "table": table([{"a": 1, "b": "x"}]),
        "none": MetadataValue.null(),
        "when": MetadataValue.timestamp(5.0),
    }
    batch = [
        AssetMaterialization("out", partition=key, metadata=metadata, tags=tags)
        for key, tags in (
            ("a/\\N/c\\1", {"dagster/data_version": "v\t1", "dagster/code_version": "1"}),
            ("a/b/é", {}),
            (None, {"dagster/data_version": "v2"}),
        )
    ]
    written = []
    for store in (bulk.store, _one_by_one):
        store(instance, batch, lambda event: records.entry(event, when=1.5e9 + 0.25))
        written.append(_rows(instance))
    # Then a batch leaves the rows that Dagster writes itself, and reads the same.
    assert len(written[0]["event_logs"]) == 3
    assert written[0] == written[1]


def _one_by_one(
    instance: DagsterInstance,
    batch: Sequence[AssetMaterialization],
    entry_of: Callable[[AssetMaterialization], EventLogEntry],
) -> None:
    for event in batch:
        instance.event_log_storage.store_event(entry_of(event))


def _rows(instance: DagsterInstance) -> dict[str, list[Any]]:
    """What the tables of events hold, without numbers that differ; then they are emptied."""
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    queries = {
        "asset_event_tags": "SELECT e.partition, t.asset_key, key, value, event_timestamp"
        " FROM asset_event_tags t JOIN event_logs e ON e.id = event_id ORDER BY event_id",
        "event_logs": "SELECT run_id, event, dagster_event_type, timestamp, step_key, asset_key,"
        " partition FROM event_logs ORDER BY id",
        "asset_keys": "SELECT asset_key, last_run_id, last_materialization_timestamp,"
        " regexp_replace(last_materialization, '\"storage_id\": [0-9]+', '') FROM asset_keys",
    }
    found: dict[str, list[Any]] = {}
    with storage.index_connection() as connection:
        for name, query in queries.items():
            found[name] = [tuple(row) for row in connection.execute(text(query))]
        for name in queries:
            connection.execute(text(f"DELETE FROM {name}"))
    return found


def test_a_backfill_misses_no_batch_that_is_being_written(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a batch that has its places in the log and is not visible yet, and a later event:
    begun, go_on, settled = threading.Event(), threading.Event(), threading.Event()
    copy = bulk._copy_rows

    def slow(*given: Any) -> None:
        begun.set()
        assert go_on.wait(30)
        copy(*given)

    monkeypatch.setattr(bulk, "_copy_rows", slow)
    batch = [AssetMaterialization("out", partition=key) for key in ("a", "b")]
    writer = threading.Thread(target=records.report, args=(instance, batch))
    writer.start()
    assert begun.wait(30)
    instance.report_runless_asset_event(AssetMaterialization("other"))
    place = instance.event_log_storage.get_maximum_record_id() or 0
    # Then settling waits for the batch, whose events lie before that place.
    reader = threading.Thread(
        target=lambda: (bulk.settle(instance.event_log_storage), settled.set())
    )
    reader.start()
    assert not settled.wait(0.5)
    go_on.set()
    reader.join(30)
    writer.join(30)
    assert settled.is_set()
    assert max(records.latest_ids(instance, AssetKey("out"), ["a", "b"]).values()) < place


def test_the_latest_event_is_read_as_dagster_reads_it(instance: DagsterInstance) -> None:
    asset = AssetKey("out")
    events = [
        AssetMaterialization(
            asset,
            partition=key,
            metadata={"rows": 1, "job_id": f"{key} {n} {HOSTILE}"},
            tags={"dagster/data_version": f"{key} {n}"} if n else {},
        )
        for n in range(3)
        for key in ("a", "b")
    ]
    records.report(instance, [*events, AssetMaterialization(asset, partition="c")])
    found = records.latest(instance, asset, ["a", "b", "c", "d"])
    fetched = instance.fetch_materializations(
        records.AssetRecordsFilter(asset, asset_partitions=["a", "b", "c"]), limit=50
    ).records
    for key in ("a", "b", "c"):
        newest = next(r for r in fetched if r.partition_key == key)
        assert found[key] == records._known(newest)
        assert found[key].timestamp == pytest.approx(newest.timestamp)
    assert "d" not in found
    assert found["b"].job_id == f"b 2 {HOSTILE}"


def test_pruning_keeps_the_latest_of_each_partition(instance: DagsterInstance) -> None:
    # Given partitions made thrice, another's asset, and the log of an ended and of a running run:
    old = time.time() - 40 * 86_400
    for version, when in (("v1", old), ("v2", old + 1), ("v3", time.time())):
        for name, keys in (("embeddings", ["a", "b"]), ("theirs", ["a"])):
            events = [
                AssetMaterialization(name, partition=key, tags={"dagster/data_version": version})
                for key in keys
                if (key, version) != ("b", "v3")
            ]
            bulk.store(instance, events, lambda event, when=when: records.entry(event, when))  # type: ignore[misc]
    for status in (DagsterRunStatus.SUCCESS, DagsterRunStatus.STARTED):
        run = instance.add_run(DagsterRun("job", str(uuid.uuid4()), status=status))
        for at in (old, time.time()):
            line = EventLogEntry(None, 10, "a line", run.run_id, at, job_name="job")
            instance.event_log_storage.store_event(line)
    # If what is older than a month is deleted, twice:
    first, second = (prune(instance, 30, shrink=shrink) for shrink in (True, False))
    # Then superseded events and old lines of the ended run are gone, and nothing else.
    assert (first.events, first.log_lines) == (3, 1)
    assert (second.events, second.log_lines) == (0, 0)
    versions = records.latest_versions(instance, AssetKey("embeddings"), ["a", "b"])
    assert versions == {"a": "v3", "b": "v2"}
    assert instance.get_materialized_partitions(AssetKey("embeddings")) == {"a", "b"}
    theirs = records.AssetRecordsFilter(AssetKey("theirs"))
    assert len(instance.fetch_materializations(theirs, limit=10).records) == 3
    assert len(_rows(instance)["asset_event_tags"]) == 2 + 3
