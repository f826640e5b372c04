"""The orchestration's functions without webserver and daemon, on a real queue."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster import (
    AssetKey,
    AssetMaterialization,
    DagsterInstance,
    DagsterRunStatus,
    build_sensor_context,
)

from reddit_assets.corpus.buckets import FLAT, Buckets, state_buckets
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.provenance import PROVENANCE_KEY
from reddit_assets.errors import SettingsError
from reddit_assets.ledger.job import Job, Kind, Result
from reddit_assets.ledger.outbox import Outbox
from reddit_assets.ledger.waiters import expired_runs
from reddit_assets.platform import choice, quality, run_logic
from reddit_assets.platform.dagster_errors import TickError
from reddit_assets.platform.jobs import make_steering_jobs
from reddit_assets.platform.names import asset_sets
from reddit_assets.platform.reporting import records
from reddit_assets.platform.resources import Platform
from reddit_assets.platform.run_logic import Lease, failed_partitions, wait_for_jobs
from reddit_assets.platform.sensors import make_sensors
from reddit_assets.platform.services import discover as discover_module
from reddit_assets.platform.services import reconcile as reconcile_module
from reddit_assets.platform.services.tick import Cursor
from reddit_assets.platform.services.watchdog import Watchdog
from reddit_assets.workspace import Workspace
from reddit_assets_tests.factories import claim_jobs
from reddit_assets_tests.platform_stack import wait_for
from reddit_assets_tests.platform_worker import FakeWorker, age, write_chain

EMBEDDINGS, CHAINS, CLUSTERS = AssetKey("embeddings"), AssetKey("chains"), AssetKey("clusters")
LOG = logging.getLogger("a run")
TEA = [f"as/Tea/c_{i}" for i in range(3)]


@pytest.fixture
def worker(workspace: Workspace) -> Iterator[FakeWorker]:
    worker = FakeWorker(workspace.settings, workspace.layout)
    yield worker
    worker.ended.set()


def events(instance: DagsterInstance, asset: AssetKey, key: str) -> list[str]:
    """The job ids of a partition's materializations, latest first."""
    found = instance.fetch_materializations(
        records.AssetRecordsFilter(asset, asset_partitions=[key]), limit=50
    )
    return [records._known(record).job_id for record in found.records]


# --- runs --------------------------------------------------------------------------------
def jobs(keys: Sequence[str]) -> list[Job]:
    return [Job(Kind.EMBED, key, "s", force=True) for key in keys]


def test_a_run_collects_what_is_made_and_names_what_failed(
    workspace: Workspace, worker: FakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for key in TEA:
        write_chain(workspace.layout, key)
    workspace.layout.chain_path(TEA[1]).write_bytes(b"PAR1")
    worker.start()
    recorded: list[Result] = []
    queue = workspace.queues[Kind.EMBED]
    outcome = wait_for_jobs(
        queue,
        workspace.layout,
        Lease(queue, "run1", 60),
        jobs(TEA),
        record=recorded.extend,
        log=LOG,
    )
    assert sorted(r.partition for r in recorded) == [TEA[0], TEA[2]]
    assert set(outcome.failed) == {TEA[1]}
    summary = failed_partitions(outcome.failed, outcome.total)
    assert "1 of 3 partitions failed" in summary
    assert f"{TEA[1]}: " in summary
    assert any("2 of 3 partitions done" in line for line in caplog.messages)


def test_an_interrupted_run_leaves_no_job_and_loses_no_result(
    workspace: Workspace, worker: FakeWorker
) -> None:
    # Given a run of three whose recording is interrupted at the first result:
    for key in TEA:
        write_chain(workspace.layout, key)
    queue = workspace.queues[Kind.EMBED]

    def one() -> None:
        wait_for(lambda: queue.counts().queued == 3, 10, "queued")
        for claim in claim_jobs(queue, "fake", 1, 60.0) or []:
            worker.work(queue, claim)

    threading.Thread(target=one, daemon=True).start()

    def interrupted(_: Sequence[Result]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait_for_jobs(
            queue, workspace.layout, Lease(queue, "r", 60), jobs(TEA), record=interrupted, log=LOG
        )
    # Then nothing is queued, and the result waits in the outbox, to be looked up first.
    counts = queue.counts()
    assert (counts.queued, counts.runs, counts.outbox) == (0, 0, 1)
    (entry,) = Outbox(queue, "r1").take(10)
    assert entry.uncertain
    assert entry.result.partition in TEA


def test_a_run_survives_a_wiped_queue(
    workspace: Workspace, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_logic, "_CHECK_SECONDS", 0.5)
    for key in TEA:
        write_chain(workspace.layout, key)
    queue = workspace.queues[Kind.EMBED]

    def wipe() -> None:
        wait_for(lambda: queue.counts().queued == 3, 10, "queued")
        queue.client.flushall()
        time.sleep(0.2)
        worker.start()

    threading.Thread(target=wipe, daemon=True).start()
    recorded: list[Result] = []
    wait_for_jobs(
        queue, workspace.layout, Lease(queue, "r", 60), jobs(TEA), record=recorded.extend, log=LOG
    )
    assert sorted(r.partition for r in recorded) == TEA


def test_a_run_without_lease_is_failed_and_its_jobs_are_withdrawn(
    workspace: Workspace, instance: DagsterInstance
) -> None:
    from dagster import job, op

    @op
    def nothing() -> None: ...

    @job
    def any_job() -> None:
        nothing()

    run = instance.create_run_for_job(any_job, status=DagsterRunStatus.STARTED)
    queue = workspace.queues[Kind.EMBED]
    Lease(queue, run.run_id, 0.05).keep()
    queue.enqueue(jobs(TEA), workspace.layout, run=run.run_id)
    time.sleep(0.1)
    # If the watchdog looks:
    watchdog = Watchdog(workspace)
    told = watchdog.tick(instance).sentences
    # Then the run has failed, and no job is left.
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status is DagsterRunStatus.FAILURE
    assert queue.counts().queued == 0
    assert any("3 embed jobs withdrawn" in sentence for sentence in told)
    assert watchdog.tick(instance).sentences == ["All runs that wait for workers are alive."]


def test_a_held_lease_outlasts_its_length_and_is_given_back(workspace: Workspace) -> None:
    queue = workspace.queues[Kind.EMBED]
    with Lease(queue, "r", 0.4).held():
        time.sleep(1.0)
        assert expired_runs(queue) == []
        assert queue.counts().runs == 1
    assert queue.counts().runs == 0


def test_a_run_without_lease_is_dead_at_the_second_look(
    workspace: Workspace, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    watchdog = Watchdog(workspace)
    monkeypatch.setattr(watchdog, "_without_lease", lambda _: {"between two steps"})
    assert watchdog._lost(instance) == []
    time.sleep(workspace.settings.run_lease_seconds / 2)
    assert watchdog._lost(instance) == ["between two steps"]
    monkeypatch.setattr(watchdog, "_without_lease", lambda _: set())
    assert watchdog._lost(instance) == []
    assert not watchdog._suspects


# --- sensors -----------------------------------------------------------------------------
def test_discovery_goes_on_where_its_budget_ended(
    workspace: Workspace, instance: DagsterInstance
) -> None:
    for name in ("as/Jam", "as/Tea", "bo/books"):
        write_chain(workspace.layout, f"{name}/c_0")
    hasty = Workspace.load(workspace.settings.model_copy(update={"tick_seconds": 1e-9}))
    discover, cursor, looks = Platform(hasty).discover, Cursor(swept=time.time()).text(), []
    for _ in range(3):
        tick = discover.tick(instance, cursor)
        cursor = tick.cursor or ""
        looks.append(Cursor.parse(cursor).after)
        assert "1 files in 1 subreddits" in tick.sentences[0]
    assert looks[:2] == ["as/Jam", "as/Tea"]
    assert instance.get_dynamic_partitions("chain_files") == [
        "as/Jam/c_0",
        "as/Tea/c_0",
        "bo/books/c_0",
    ]
    assert workspace.queues[Kind.EMBED].counts().public == 3
    # The next round finds them queued already, and says so.
    told = Platform(workspace).discover.tick(instance).sentences
    assert "Jobs: 3 skipped: queued or in work already." in told


def test_a_worker_with_other_settings_does_not_send_clusters_in_circles(
    workspace: Workspace, instance: DagsterInstance, worker: FakeWorker
) -> None:
    # Given a subreddit clustered by a worker whose settings are not this host's:
    write_chain(workspace.layout, TEA[0])
    for kind, key in ((Kind.EMBED, TEA[0]), (Kind.CLUSTER, "as/Tea")):
        queue = workspace.queues[kind]
        queue.enqueue([Job(kind, key, "s")], workspace.layout)
        for claim in claim_jobs(queue, "fake", 1, 60.0) or []:
            worker.work(queue, claim)
    other = Workspace.load(workspace.settings.model_copy(update={"seed": 7}))
    # If the settings are wanted since then, then it is queued;
    told = Platform(other).readiness.tick(instance).sentences
    assert "Jobs: 1 queued." in told
    # if that worker makes it once more, then it is not queued again, and the tick says why.
    queue = workspace.queues[Kind.CLUSTER]
    for claim in claim_jobs(queue, "fake", 1, 60.0) or []:
        worker.work(queue, claim)
    told = Platform(other).readiness.tick(instance).sentences
    assert any("give it the same settings" in sentence for sentence in told)
    assert queue.counts().queued == 0


def test_a_missing_queue_is_a_failed_tick_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chains").mkdir()
    monkeypatch.setenv("REDDIT_ROOT", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", "redis://:secret@127.0.0.1:1/0")
    for sensor in make_sensors(30, asset_sets(FLAT)):
        if sensor.name == "dump_discovery":
            continue  # asks the queue only where there are dumps
        with DagsterInstance.ephemeral() as instance, pytest.raises(TickError) as told:
            sensor(build_sensor_context(instance=instance), platform=Platform())
        assert "cannot be reached" in str(told.value)
        assert "correct REDIS_URL" in str(told.value)
        assert "secret" not in str(told.value)


def test_reconciliation_reports_what_dagster_lacks_once(
    workspace: Workspace,
    instance: DagsterInstance,
    worker: FakeWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given outputs on the disk, one of them adopted, that were never reported:
    queue = workspace.queues[Kind.EMBED]
    for key in TEA:
        write_chain(workspace.layout, key)
    queue.enqueue([Job(Kind.EMBED, key, "s") for key in TEA[:2]], workspace.layout)
    for claim in claim_jobs(queue, "fake", 2, 60.0) or []:
        worker.work(queue, claim)
    adopted = workspace.layout.embedding_path(TEA[2])
    pq.write_table(pa.table({"body": ["a"], "emb_000": [0.6], "emb_001": [0.8]}), adopted)
    age(workspace.layout.chain_path(TEA[2]), 9000)
    for key in TEA:
        age(workspace.layout.chain_path(key), 9000)
        age(workspace.layout.embedding_path(key), 5000)
    # While results are in the outbox or with a run, exactly they are left out;
    reconcile = Platform(workspace).reconcile
    tick = reconcile.tick(instance)
    assert tick.sentences == [
        "1 subreddits compared with Dagster, 1 outputs reported.",
        "2 skipped: their results are on their way.",
    ]
    assert [len(events(instance, EMBEDDINGS, key)) for key in TEA] == [0, 0, 1]
    Lease(queue, "r", 60).keep()
    for entry in (outbox := Outbox(queue, "r")).take(2):
        outbox.done([entry.entry])
        queue.client.xadd(f"{queue.prefix}results:r", {"r": entry.result.to_json()})
    tick = reconcile.tick(instance, tick.cursor)
    assert "2 skipped: their results are on their way." in tick.sentences
    # if Redis has lost them, all are reported, once, and looked at no more until they change,
    queue.client.flushall()
    tick = reconcile.tick(instance, tick.cursor)
    assert "2 outputs reported" in tick.sentences[0]
    tick = reconcile.tick(instance, tick.cursor)
    assert tick.sentences == ["0 subreddits compared with Dagster, 0 outputs reported."]
    age(adopted, 0)
    assert "1 subreddits compared" in (young := reconcile.tick(instance, tick.cursor)).sentences[0]
    age(adopted, 5000)
    assert "1 subreddits compared" in reconcile.tick(instance, young.cursor).sentences[0]
    # and by another process not at all.
    assert "0 outputs reported" in reconcile.tick(instance).sentences[0]
    assert "0 outputs reported" in Platform(workspace).reconcile.tick(instance).sentences[0]
    assert not reconcile._known
    assert all(len(events(instance, EMBEDDINGS, key)) == 1 for key in TEA)
    assert all(len(events(instance, CHAINS, key)) == 1 for key in TEA)
    # A night compares all of them by what the look has read, and opens only what differs.
    opened: list[str] = []
    real = reconcile_module._read
    monkeypatch.setattr(
        reconcile_module, "_read", lambda output: opened.append(output.key) or real(output)
    )
    statuses = list(workspace.scanner().scan())
    reconcile.compare(instance, statuses)
    assert opened == [TEA[2]]  # its time, and so its data version, is another one since
    opened.clear()
    assert "0 outputs reported" in reconcile.compare(instance, statuses)[0]
    assert opened == []
    other = {"dagster/data_version": "x", "dagster/data_version_is_user_provided": "true"}
    lost = AssetMaterialization(EMBEDDINGS, partition=TEA[0], tags=other)
    records.report(instance, [lost])
    assert "1 outputs reported" in reconcile.compare(instance, statuses)[0]
    assert opened == [TEA[0]]
    assert [len(events(instance, EMBEDDINGS, key)) for key in TEA] == [3, 1, 2]


def test_a_widened_filter_is_told_what_was_seen_before_page_by_page(
    workspace: Workspace, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given subreddits that another process has seen, and a filter without them
    monkeypatch.setattr(discover_module, "_GATHERED", 1)
    for name in ("as/Jam", "as/Tea", "bo/books"):
        write_chain(workspace.layout, f"{name}/c_0")
    workspace.scanner().look()
    narrow = Workspace.load(workspace.settings.model_copy(update={"subreddits": "Tea"}))
    tick = Platform(narrow).discover.tick(instance)
    assert instance.get_dynamic_partitions("chain_files") == ["as/Tea/c_0"]
    tick = Platform(narrow).discover.tick(instance, tick.cursor)
    # If it is widened, then all of them become partitions, in ticks of their time;
    hasty = Workspace.load(workspace.settings.model_copy(update={"tick_seconds": 1e-9}))
    for _ in range(3):
        tick = Platform(hasty).discover.tick(instance, tick.cursor)
        assert "The next tick adds those after" in str(tick.sentences)
    assert len(instance.get_dynamic_partitions("chain_files")) == 3
    # and reconciliation compares them as well.
    tick = Platform(narrow).reconcile.tick(instance)
    assert "1 subreddits compared" in tick.sentences[0]
    assert (
        "3 subreddits compared"
        in Platform(workspace).reconcile.tick(instance, tick.cursor).sentences[0]
    )


def test_a_code_server_of_another_layout_says_that_it_must_be_started_again(
    workspace: Workspace, instance: DagsterInstance, tmp_path: Path
) -> None:
    # Given definitions that were loaded before the share with the tree was mounted
    away = Layout.of(tmp_path / "away")
    unmounted = workspace.settings.model_copy(update={"layout": "sharded"})
    assert choice._decide(unmounted, away) == FLAT
    assert not away.embeddings.exists()
    early = Platform(Workspace(workspace.settings, away, workspace.queues, defined=FLAT))
    sensor = make_sensors(30, asset_sets(FLAT))[0]

    def tick() -> None:
        sensor(build_sensor_context(instance=instance), platform=early)

    write_chain(away, "as/Tea/c_0")
    tick()
    # if it is, then ticks fail with a sentence, and the night does nothing either;
    state_buckets(away, Buckets.for_files(1))
    with pytest.raises(TickError, match="Start the code server again"):
        tick()
    with pytest.raises(SettingsError, match="other buckets"):
        early.rescan.run(instance, print)
    # and where it is away again, that is said.
    shutil.rmtree(away.embeddings)
    sharded = replace(early.workspace, defined=Buckets.for_files(1))
    with pytest.raises(SettingsError, match="is gone"):
        sharded.require_defined()


def test_pause_and_resume_are_jobs(workspace: Workspace, instance: DagsterInstance) -> None:
    given = {"platform": Platform(workspace)}
    pause, resume, _ = make_steering_jobs()
    assert pause.execute_in_process(instance=instance, resources=given).success
    assert all(claim_jobs(queue, "fake", 1, 1.0) is None for queue in workspace.queues.values())
    assert resume.execute_in_process(instance=instance, resources=given).success
    assert all(claim_jobs(queue, "fake", 1, 1.0) is not None for queue in workspace.queues.values())


# --- checks ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda v: v, ""),
        (lambda v: v * 1.01, "norm"),
        (lambda v: np.where(v > 0.7, np.nan, v), "NaN"),
        (lambda v: v[:2], "rows"),
        (lambda v: v.astype(np.float64), "not float"),
    ],
)
def test_the_check_of_embeddings_sees_what_is_wrong(
    workspace: Workspace, worker: FakeWorker, spoil: object, told: str
) -> None:
    write_chain(workspace.layout, TEA[0])
    queue = workspace.queues[Kind.EMBED]
    queue.enqueue([Job(Kind.EMBED, TEA[0], "s")], workspace.layout)
    for claim in claim_jobs(queue, "fake", 1, 60.0) or []:
        worker.work(queue, claim)
    path = workspace.layout.embedding_path(TEA[0])
    table = pq.read_table(path)
    provenance = {PROVENANCE_KEY: (pq.read_metadata(path).metadata or {})[PROVENANCE_KEY]}
    vectors = np.column_stack([table[f"emb_00{i}"] for i in range(2)])
    vectors = spoil(vectors)  # type: ignore[operator]
    columns = {"body": table["body"][: len(vectors)]}
    columns |= {f"emb_00{i}": pa.array(vectors[:, i]) for i in range(2)}
    pq.write_table(pa.table(columns).replace_schema_metadata(provenance), path)
    found = quality.check_embeddings(workspace.layout, [TEA[0]])
    assert found.looked_at == 1
    assert told in found.problems.get(TEA[0], "")
    assert bool(found.problems) == bool(told)


def test_the_check_of_conformance_judges_by_provenance(
    workspace: Workspace, worker: FakeWorker
) -> None:
    # Given files of a conformant backend, of a nonconformant one, and of the earlier system:
    queue = workspace.queues[Kind.EMBED]
    for key in TEA[:2]:
        write_chain(workspace.layout, key)
    queue.enqueue([Job(Kind.EMBED, key, "s") for key in TEA[:2]], workspace.layout)
    for claim in claim_jobs(queue, "fake", 2, 60.0) or []:
        worker.work(queue, claim)
    path = workspace.layout.embedding_path(TEA[1])
    table = pq.read_table(path)
    text = (pq.read_metadata(path).metadata or {})[PROVENANCE_KEY]
    record = {**json.loads(text), "conformant": False, "writer": {"backend": "quick"}}
    table = table.replace_schema_metadata({PROVENANCE_KEY: json.dumps(record)})
    pq.write_table(table, path)
    pq.write_table(pa.table({"emb_000": [1.0]}), workspace.layout.embedding_path(TEA[2]))
    # Then the second is a problem and the third a warning.
    found = quality.check_conformance(workspace.layout, TEA)
    assert found.looked_at == 3
    assert set(found.problems) == {TEA[1]}
    assert "nonconformant backend quick" in found.problems[TEA[1]]
    assert set(found.warnings) == {TEA[2]}


# --- definitions -------------------------------------------------------------------------
def test_definitions_load_anywhere_and_light(tmp_path: Path) -> None:
    code = (
        "import sys, dagster, reddit_assets.definitions as d;"
        "dagster.Definitions.validate_loadable(d.defs);"
        "heavy = {'torch', 'numba', 'polars', 'pyarrow', 'redis', 'onnxruntime', 'sklearn'};"
        "print(sorted(heavy & set(sys.modules)));"
        "print(sorted(k.to_user_string() for k in d.defs.resolve_asset_graph()"
        ".get_all_asset_keys()))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={
            "PYTHONPATH": str(Path(__file__).parent.parent),
            "PATH": os.environ["PATH"],
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert told[-2] == "[]"
    assert told[-1] == str(
        [
            "chains",
            "cluster_settings",
            "clusters",
            "corpus",
            "dumps",
            "embeddings",
            "model",
        ]
    )
