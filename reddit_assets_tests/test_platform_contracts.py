"""What the design leans on in Dagster, undocumented for the most part: an upgrade that changes it
fails here by name.
"""

from __future__ import annotations

import inspect
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from dagster import (
    AssetCheckEvaluation,
    AssetDep,
    AssetKey,
    AssetMaterialization,
    AssetSpec,
    BackfillPolicy,
    DagsterEventType,
    DagsterInstance,
    Definitions,
    DynamicPartitionsDefinition,
    asset,
    in_process_executor,
    materialize,
    multi_asset,
)
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.errors import DagsterDefinitionChangedDeserializationError
from dagster._core.execution import asset_backfill
from dagster._core.loader import LoadingContextForTest
from dagster._serdes import deserialize_value, serialize_value

from reddit_assets.platform import plugins
from reddit_assets.platform.mapping import FileToSubredditMapping
from reddit_assets.platform.reporting import records

REPO = Path(__file__).parent.parent
FILES = DynamicPartitionsDefinition(name="files")
SUBREDDITS = DynamicPartitionsDefinition(name="subs")
KEYS = ["as/Tea/a", "as/Tea/b", "as/Jam/a"]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    with DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.add_dynamic_partitions("files", KEYS)
        instance.add_dynamic_partitions("subs", ["as/Tea", "as/Jam"])
        yield instance


def made(asset: str, partition: str | None, version: str, **inputs: Any) -> AssetMaterialization:
    """A materialization with provenance: ``inputs`` are (version, pointer) by asset."""
    tags = {"dagster/data_version": version, "dagster/code_version": "1"}
    for name, (of, pointer) in inputs.items():
        tags[f"dagster/input_data_version/{name}"] = of
        tags[f"dagster/input_event_pointer/{name}"] = str(pointer)
    return AssetMaterialization(asset, partition=partition, tags=tags)


def test_a_logged_event_is_stored_while_the_op_goes_on(instance: DagsterInstance) -> None:
    seen: list[int] = []

    @multi_asset(
        specs=[AssetSpec("out", partitions_def=FILES, skippable=True)],
        backfill_policy=BackfillPolicy.multi_run(2),
    )
    def op(context) -> Iterator[Any]:  # type: ignore[no-untyped-def]
        context.log_event(AssetMaterialization("out", partition=context.partition_keys[0]))
        seen.append(len(records.latest_ids(context.instance, AssetKey("out"), KEYS)))
        return
        yield

    tags = {
        "dagster/asset_partition_range_start": KEYS[0],
        "dagster/asset_partition_range_end": KEYS[2],
    }
    result = materialize([op], instance=instance, tags=tags)
    # Then the one logged event was there at once, and no other was made for the range.
    assert result.success
    assert seen == [1]
    assert set(records.latest_ids(instance, AssetKey("out"), KEYS)) == {KEYS[0]}


def test_batches_of_events_are_indexed_by_partition_and_version(instance: DagsterInstance) -> None:
    records.report(instance, [made("out", key, f"v-{key}") for key in KEYS])
    records.report(instance, [made("out", KEYS[0], "newer")])
    versions = records.latest_versions(instance, AssetKey("out"), KEYS)
    assert versions == {KEYS[0]: "newer", KEYS[1]: f"v-{KEYS[1]}", KEYS[2]: f"v-{KEYS[2]}"}
    ids = records.latest_ids(instance, AssetKey("out"), KEYS)
    assert ids[KEYS[0]] > ids[KEYS[2]] > ids[KEYS[1]]
    assert instance.get_materialized_partitions(AssetKey("out")) == set(KEYS)
    assert records.latest(instance, AssetKey("out"), KEYS)[KEYS[0]].data_version == "newer"


def test_the_mapping_crosses_the_code_location_border() -> None:
    mapping = deserialize_value(serialize_value(FileToSubredditMapping()))
    assert isinstance(mapping, FileToSubredditMapping)


def test_the_mapping_maps_files_to_their_subreddits(instance: DagsterInstance) -> None:
    store = {"dynamic_partitions_store": instance}
    mapping = FileToSubredditMapping()
    subset = SUBREDDITS.empty_subset().with_partition_keys(["as/Tea"])
    up = mapping.get_upstream_mapped_partitions_result_for_partitions(
        subset, SUBREDDITS, FILES, **store
    )
    assert set(up.partitions_subset.get_partition_keys()) == {"as/Tea/a", "as/Tea/b"}
    files = FILES.empty_subset().with_partition_keys(["as/Jam/a"])
    down = mapping.get_downstream_partitions_for_partitions(files, FILES, SUBREDDITS, **store)
    assert set(down.get_partition_keys()) == {"as/Jam"}


def test_the_instance_imports_the_mapping_before_any_location_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text((REPO / "dagster.yaml").read_text())
    code = (
        "import sys; from dagster import DagsterInstance; i = DagsterInstance.get();"
        "print('reddit_assets.platform.mapping' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={"DAGSTER_HOME": str(tmp_path), "PYTHONPATH": str(REPO), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip().endswith("True")


def test_a_backfill_waits_for_a_code_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given the module that dagster.yaml names, imported, and a location that cannot be reached:
    assert callable(plugins.Scheduler)
    monkeypatch.setattr(asset_backfill, "_get_unloadable_location_names", lambda *_: ["away"])

    def gone(*_: object) -> None:
        raise DagsterDefinitionChangedDeserializationError("no such asset")

    monkeypatch.setattr(asset_backfill, "_check_asset_backfill_data_validity", gone)
    # Then the backfill is left as it is until later.
    look = asset_backfill._check_validity_of_asset_backfill_data_and_should_process_backfill
    arguments = dict.fromkeys(inspect.signature(look).parameters)
    assert look(**{**arguments, "logger": logging.getLogger()}) is False  # type: ignore[arg-type]


def test_provenance_marks_exactly_the_outdated_as_stale(instance: DagsterInstance) -> None:
    @asset(partitions_def=FILES)
    def chains() -> None: ...

    @asset
    def model() -> None: ...

    @asset(partitions_def=FILES, deps=[chains, model], code_version="1")
    def embeddings() -> None: ...

    @asset(
        partitions_def=SUBREDDITS,
        deps=[AssetDep(embeddings, partition_mapping=FileToSubredditMapping())],
        code_version="1",
    )
    def clusters() -> None: ...

    graph = Definitions(assets=[chains, model, embeddings, clusters]).resolve_asset_graph()

    def stale(name: str, partition: str) -> str:
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        return resolver.get_status(AssetKey(name), partition).value

    def ids(name: str) -> dict[str, int]:
        return records.latest_ids(instance, AssetKey(name), KEYS)

    # Given a first round,
    records.report(instance, [made("model", None, "m1")])
    records.report(instance, [made("chains", key, "c1") for key in KEYS])
    first = ids("chains")
    records.report(
        instance,
        [
            made("embeddings", k, f"e1-{k}", chains=("c1", first[k]), model=("m1", "NULL"))
            for k in KEYS
        ],
    )
    last = max(ids("embeddings").values())
    records.report(
        instance, [made("clusters", s, "k1", embeddings=("h", last)) for s in ("as/Tea", "as/Jam")]
    )
    assert {stale("embeddings", k) for k in KEYS} == {"FRESH"}
    assert stale("clusters", "as/Tea") == "FRESH"
    # if one file changes, its embedding is stale, and no other;
    records.report(instance, [made("chains", KEYS[0], "c2")])
    assert [stale("embeddings", k) for k in KEYS] == ["STALE", "FRESH", "FRESH"]
    # if it is embedded again, its cluster is stale, and no other;
    pointer = ids("chains")[KEYS[0]]
    again = made("embeddings", KEYS[0], "e2", chains=("c2", pointer), model=("m1", "NULL"))
    records.report(instance, [again])
    assert stale("embeddings", KEYS[0]) == "FRESH"
    assert (stale("clusters", "as/Tea"), stale("clusters", "as/Jam")) == ("STALE", "FRESH")
    # if another model is wanted, every embedding is stale.
    records.report(instance, [made("model", None, "m2")])
    assert {stale("embeddings", k) for k in KEYS} == {"STALE"}


def test_a_partition_keeps_its_place_and_is_not_added_twice(instance: DagsterInstance) -> None:
    instance.add_dynamic_partitions("files", [KEYS[2], "zz/New/a", KEYS[0]])
    assert list(instance.get_dynamic_partitions("files")) == [*KEYS, "zz/New/a"]


def test_a_second_report_of_a_partitions_check_is_refused_unless_it_replaces_the_first(
    instance: DagsterInstance,
) -> None:
    def evaluation(passed: bool) -> AssetCheckEvaluation:
        return AssetCheckEvaluation(
            asset_key=AssetKey("out"), check_name="c", passed=passed, partition=KEYS[0]
        )

    instance.report_runless_asset_event(evaluation(False))
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        instance.report_runless_asset_event(evaluation(True))
    records.report_check(instance, evaluation(True))
    records.report_check(instance, evaluation(False))
    from dagster import AssetCheckKey

    (latest,) = instance.event_log_storage.get_asset_check_execution_history(
        AssetCheckKey(AssetKey("out"), "c"), limit=5
    )
    assert latest.status.value == "FAILED"


def test_a_failing_run_in_process_leaves_what_it_recorded(instance: DagsterInstance) -> None:
    @multi_asset(specs=[AssetSpec("out", partitions_def=FILES, skippable=True)])
    def op(context) -> Iterator[Any]:  # type: ignore[no-untyped-def]
        context.log_event(AssetMaterialization("out", partition=KEYS[0]))
        raise RuntimeError("the rest failed")
        yield

    defs = Definitions(assets=[op], executor=in_process_executor)
    job = defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, partition_key=KEYS[0], raise_on_error=False)
    assert not result.success
    events = instance.all_logs(result.run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION)
    assert [event.get_dagster_event().partition for event in events] == [KEYS[0]]
