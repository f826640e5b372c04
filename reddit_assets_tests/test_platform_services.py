"""What services keep to themselves, leave alone and do not load; on a real queue and real files."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster import AssetKey, DagsterInstance, DagsterRunStatus, job, materialize, op

from reddit_assets.corpus.chainfile import ChainFile
from reddit_assets.corpus.layout import TABLE_NAME, Layout
from reddit_assets.corpus.nights import Night
from reddit_assets.corpus.provenance import PROVENANCE_KEY, ClusterProvenance
from reddit_assets.errors import Failure
from reddit_assets.ledger.job import Job, Kind
from reddit_assets.ledger.outbox import Outbox
from reddit_assets.ledger.waiters import expired_runs
from reddit_assets.platform import ops
from reddit_assets.platform.factory import make_assets
from reddit_assets.platform.names import AssetSet
from reddit_assets.platform.overview import corpus_metadata
from reddit_assets.platform.quality import check_embeddings, check_stable, sample_keys
from reddit_assets.platform.resources import Platform
from reddit_assets.platform.run_logic import Lease
from reddit_assets.settings import Settings
from reddit_assets.workspace import Workspace
from reddit_assets_tests.factories import claim_jobs
from reddit_assets_tests.platform_worker import FakeWorker, age, write_chain

TEA = [f"as/Tea/c_{i}" for i in range(3)]
DAYS = 3 * 86_400.0


@pytest.fixture
def settings(tmp_path: Path, valkey_url: str) -> Settings:
    Layout.of(tmp_path).chains.mkdir()
    return Settings(
        root=tmp_path,
        redis_url=valkey_url,
        settle_seconds=0.0,
        run_lease_seconds=0.8,
        remove_orphans=True,
    )


@pytest.fixture
def platform(settings: Settings) -> Platform:
    return Platform(Workspace.load(settings))


def embed(workspace: Workspace, keys: list[str]) -> None:
    """Let a worker make embeddings that look an hour old."""
    queue = workspace.queues[Kind.EMBED]
    worker = FakeWorker(workspace.settings, workspace.layout)
    queue.enqueue([Job(Kind.EMBED, key, "s") for key in keys], workspace.layout)
    for claim in claim_jobs(queue, "fake", len(keys), 60.0) or []:
        worker.work(queue, claim)
    for key in keys:
        age(workspace.layout.chain_path(key), 9000)
        age(workspace.layout.embedding_path(key), 3600)


def test_one_slow_chain_file_does_not_cost_the_run_its_lease(
    platform: Platform, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a chain file that takes two leases' time to be read:
    workspace = platform.workspace
    write_chain(workspace.layout, TEA[0])
    instance.add_dynamic_partitions("chain_files", [TEA[0]])

    def slow(path: Path, *more: str) -> ChainFile:
        time.sleep(1.6)
        return ChainFile(path)

    monkeypatch.setattr(ops, "ChainFile", slow)
    queue = workspace.queues[Kind.EMBED]
    expired: list[str] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            expired.extend(expired_runs(queue))

    watcher = threading.Thread(target=watch)
    watcher.start()
    # If it is checked in a run:
    chains = make_assets(AssetSet(), 10)[0]
    given = {"platform": platform}
    result = materialize([chains], instance=instance, partition_key=TEA[0], resources=given)
    done.set()
    watcher.join()
    # Then the run is never without its lease, and gives it back.
    assert result.success
    assert expired == []
    assert queue.counts().runs == 0


def test_the_nightly_deletes_temporary_files_of_ours_and_nothing_else(
    platform: Platform, instance: DagsterInstance
) -> None:
    layout = platform.workspace.layout
    write_chain(layout, TEA[0])
    embed(platform.workspace, TEA[:1])
    # Given old files below all trees, some with temporary names:
    name = "c_0.parquet.0123456789abcdef.tmp"
    kept = [
        layout.chains / "as/Tea" / name,
        layout.chains / "as/Tea/download.tmp",
        layout.embeddings / "as/Tea/notes.tmp",
        layout.clusters / "as/Tea/draft.parquet.tmp.bak",
        layout.clusters / "as/Gone/notes.txt",
    ]
    ours = [
        layout.embeddings / "as/Tea" / name,
        layout.clusters / "as/Tea/clustered.parquet.0123456789abcdef.tmp",
    ]
    orphans = [layout.embeddings / "as/Gone/c_0.parquet", layout.clusters / "as/Gone/map.html"]
    for path in [*kept, *ours, *orphans, layout.clusters / "as/Gone/clustered.parquet"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("somebody's")
        age(path, DAYS)
    folder = layout.embeddings / "as/Tea/c_1.parquet.0123456789abcdef.tmp"
    (folder / "deep").mkdir(parents=True)
    age(folder, DAYS)
    # If the nightly rescan looks, also as one that deletes orphans:
    platform.rescan.run(instance, print)
    # Then our own temporary files and the orphans are gone, and nothing else is.
    assert [path for path in [*ours, *orphans] if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []
    assert (folder / "deep").is_dir()
    assert layout.chain_path(TEA[0]).exists()
    assert layout.embedding_path(TEA[0]).exists()


def test_the_nightly_deletes_nothing_while_the_chain_files_are_away(
    platform: Platform, instance: DagsterInstance
) -> None:
    # Given embeddings, orphans to be deleted, and chain files whose storage is not mounted:
    layout = platform.workspace.layout
    for key in TEA:
        write_chain(layout, key)
    embed(platform.workspace, TEA)
    layout.chains.rename(layout.chains.with_name("elsewhere"))
    layout.chains.mkdir()
    # If the nightly rescan looks:
    said: list[str] = []
    platform.rescan.run(instance, said.append)
    # Then it deletes nothing, and asks.
    assert all(layout.embedding_path(key).exists() for key in TEA)
    assert any("Is the storage mounted?" in sentence for sentence in said)


def test_what_is_on_its_way_does_not_stop_the_nightlys_comparison(
    platform: Platform, instance: DagsterInstance
) -> None:
    # Given three outputs, the result of one of them in the outbox, the others' lost:
    workspace = platform.workspace
    for key in TEA:
        write_chain(workspace.layout, key)
    embed(workspace, TEA)
    outbox = Outbox(workspace.queues[Kind.EMBED], "r")
    entries = outbox.take(10)
    outbox.done([entry.entry for entry in entries])
    outbox.put([entry.result for entry in entries if entry.result.partition == TEA[0]])
    # If the nightly rescan looks:
    said: list[str] = []
    platform.rescan.run(instance, said.append)
    # Then the others are reported, and the one is left to its reporter.
    found = instance.get_materialized_partitions(AssetKey("embeddings"))
    assert found == set(TEA[1:])
    assert "1 skipped: their results are on their way." in said


def test_the_dead_letter_sensor_loads_only_new_letters(
    platform: Platform, instance: DagsterInstance
) -> None:
    # Given thirty dead letters that were reported:
    workspace = platform.workspace
    queue = workspace.queues[Kind.EMBED]
    keys = [f"as/Tea/d_{i:02}" for i in range(30)]

    def bury(wanted: list[str]) -> None:
        queue.enqueue([Job(Kind.EMBED, key, "s") for key in wanted], workspace.layout)
        for claim in claim_jobs(queue, "fake", len(wanted), 60.0) or []:
            failure = Failure("It is broken.", traceback="x" * 8_000)
            queue.fail(claim, failure, max_attempts=1, retry_seconds=0)

    def loaded(cursor: str | None) -> tuple[str | None, int]:
        queue.client.config_resetstat()
        tick = platform.dead_letters.tick(instance, cursor)
        stats: dict[str, Any] = queue.client.info("commandstats")
        return tick.cursor, stats.get("cmdstat_hgetall", {"calls": 0})["calls"]

    bury(keys)
    cursor, number = loaded(None)
    assert number == 60  # once for their partitions, once for the table of all
    # If nothing has changed, then no letter is loaded; if one more dies, then that one is, and
    # the hundred at most that the table shows.
    cursor, number = loaded(cursor)
    assert number == 0
    bury(["as/Tea/e"])
    cursor, number = loaded(cursor)
    assert number == 1 + 31
    assert len(json.loads(cursor or "{}")["embed"]) == 31


def test_a_backfill_never_sees_a_dead_run_that_is_not_to_be_retried(
    platform: Platform, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    @op
    def nothing() -> None: ...

    @job
    def any_job() -> None:
        nothing()

    # Given a run of an instance that retries runs, whose process has died:
    folder = str(tmp_path_factory.mktemp("dagster"))
    retrying = {"run_retries": {"enabled": True, "max_retries": 2}}
    with DagsterInstance.local_temp(folder, overrides=retrying) as instance:
        run = instance.create_run_for_job(any_job, status=DagsterRunStatus.STARTED)
        Lease(platform.workspace.queues[Kind.EMBED], run.run_id, 0.01).keep()
        time.sleep(0.05)
        seen: list[tuple[bool, str | None]] = []
        decide = instance.add_run_tags

        def look(run_id: str, tags: Any) -> None:
            found = instance.get_run_by_id(run_id)
            assert found is not None
            seen.append((found.is_finished, found.tags.get("dagster/will_retry")))
            decide(run_id, tags)

        # If the watchdog looks, while a backfill looks whenever Dagster is about to decide:
        monkeypatch.setattr(instance, "add_run_tags", look)
        platform.watchdog.tick(instance)
        # Then the run was never finished without saying that another one follows.
        assert seen == [(False, None), (True, "true")]
        found = instance.get_run_by_id(run.run_id)
        assert found is not None
        assert found.tags["dagster/will_retry"] == "true"


def test_a_sample_holds_the_broken_the_newest_and_others(platform: Platform) -> None:
    # Given twenty embeddings, one of which was cut short and still looks old:
    layout = platform.workspace.layout
    keys = [f"as/Tea/s_{i:02}" for i in range(20)]
    for key in keys:
        write_chain(layout, key)
    embed(platform.workspace, keys)
    for number, key in enumerate(keys):
        age(layout.embedding_path(key), 3600 - number)
    path = layout.embedding_path(keys[3])
    path.write_bytes(path.read_bytes()[:200])
    age(path, 3600)
    # Then a sample of eight has it, the newest three, and four others.
    sample = sample_keys(platform.workspace.scanner(), 8, seed=1)
    assert len(set(sample)) == 8
    assert {keys[3], *keys[-3:]} <= set(sample)
    assert "whole parquet file" in check_embeddings(layout, sample).problems[keys[3]]


def test_the_overview_counts_what_is_there(platform: Platform, instance: DagsterInstance) -> None:
    # Given two of three files of one shard embedded and clustered, one of another, one not:
    workspace = platform.workspace
    layout = workspace.layout
    for key in (*TEA[:2], "bo/Books/c_0", "bo/Books/c_1"):
        write_chain(layout, key)
    embed(workspace, [*TEA[:2], "bo/Books/c_0"])
    queue = workspace.queues[Kind.CLUSTER]
    queue.enqueue([Job(Kind.CLUSTER, "as/Tea", "s")], layout)
    for claim in claim_jobs(queue, "fake", 1, 60.0) or []:
        FakeWorker(workspace.settings, layout).work(queue, claim)
    # If the nightly rescan looks, then the overview says so, per shard and in all.
    found = platform.rescan.run(instance, print)
    shown = corpus_metadata(workspace, instance, found)
    counts = {name: value.value for name, value in shown.items()}
    assert (counts["files"], counts["embedded"], counts["missing"]) == (4, 3, 1)
    assert (counts["subreddits"], counts["clustered"], counts["rows embedded"]) == (2, 1, 9)
    rows = [dict(r.data) for r in shown["per shard"].records]  # type: ignore[attr-defined]
    assert [(r["shard"], r["files"], r["embedded"], r["clustered"], r["rows"]) for r in rows] == [
        ("as", 2, 2, 1, 6),
        ("bo", 2, 1, 0, 3),
    ]
    (worst,) = [dict(r.data) for r in shown["worst subreddits"].records]  # type: ignore[attr-defined]
    assert worst == {"subreddit": "as/Tea", "noise_share": 0.25, "clusters": 1, "rows": 6}
    on_disk = sum(p.stat().st_size for p in workspace.settings.require_root().rglob("*.parquet"))
    assert counts["disk, GB"] == pytest.approx(on_disk / 1e9, abs=1e-3)
    assert str(counts["progress"]).startswith("![files per shard](data:image/svg+xml;base64,")


def test_moved_posts_are_warned_of_and_news_are_shown(
    platform: Platform, instance: DagsterInstance
) -> None:
    # Given a subreddit of 300 rows, two fifths of which have another cluster since last night,
    layout = platform.workspace.layout
    write_chain(layout, TEA[0])
    moved = {"changes": {"moved_share": 0.4}, "placed_rows": 0}
    night = Night(
        *(time.time(), 300, 60, 0, True, 0.4),
        counts={3: (0, 60, 60, 0)},
        fates={3: ("born", ())},
        examples={3: "a kettle"},
    )
    provenance = ClusterProvenance(
        key="as/Tea",
        data_version="v",
        inputs={},
        inputs_hash="",
        inputs_stamp="",
        settings_fingerprint="",
        summary=moved,
    )
    table = {"cluster_id": [3], "name": ["kettles"], "size": [60]}
    table |= {"keywords": [["kettle"]], "representative_texts": [["tea"]]}
    said = json.dumps({"kind": "clusters", "rows": 300, "nights": [night.to_json()]})
    for path, columns, text in (
        (layout.cluster_path("as/Tea"), {"id": range(300)}, provenance.model_dump_json()),
        (layout.cluster_dir("as/Tea") / TABLE_NAME, table, said),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns).replace_schema_metadata({PROVENANCE_KEY: text}), path)
    scanner = platform.workspace.scanner(dead=())
    (platform.workspace.layout.clusters / "as" / "File").write_bytes(b"")  # no folder
    # If the check looks, by hand or at a run's partitions, Then it warns, above the setting only,
    for keys in (None, ["as/File", "as/Tea"]):
        assert "40% of its rows" in check_stable(scanner, 0.35, keys).warnings["as/Tea"]
        assert not check_stable(scanner, 0.4, keys).warnings
    # and not of what was clustered long ago.
    age(layout.cluster_path("as/Tea"), 2 * 86_400)
    assert check_stable(scanner, 0.35).looked_at == 0
    # The corpus' page shows the news of a day, from a look and from the hourly sensor.
    platform.glance.tick(instance)
    event = instance.get_latest_materialization_event(AssetKey("corpus"))
    assert event is not None
    assert event.asset_materialization is not None
    for shown in (
        corpus_metadata(platform.workspace, instance, platform.rescan.run(instance, print)),
        event.asset_materialization.metadata,
    ):
        assert shown["news of a day"].value == "1 born, in 1 subreddits"
        (row,) = [dict(record.data) for record in shown["news"].records]  # type: ignore[attr-defined]
        assert (row["subreddit"], row["what"], row["example"]) == ("as/Tea", "born", "a kettle")


def test_an_empty_tree_has_an_overview(platform: Platform, instance: DagsterInstance) -> None:
    found = platform.rescan.run(instance, print)
    shown = corpus_metadata(platform.workspace, instance, found)
    assert shown["files"].value == 0
    assert "worst subreddits" not in shown
