"""Dumps on the queue and in Dagster: found, ingested by a worker, reported, given up."""

from __future__ import annotations

from pathlib import Path

import pytest
from dagster import DagsterInstance

from reddit_assets.ingest.run import Ingest
from reddit_assets.ingest.store import Record, dump_stamp
from reddit_assets.ledger.job import Job, Kind
from reddit_assets.local.sample_dumps import compressed, write_sample_dumps
from reddit_assets.platform.names import DUMP_FILES, DUMPS
from reddit_assets.platform.reporting.drain import Reporter
from reddit_assets.platform.reporting.instance import InstanceSink
from reddit_assets.platform.resources import Platform
from reddit_assets.settings import Settings
from reddit_assets.worker.run import run_worker
from reddit_assets.workspace import Workspace


@pytest.fixture
def settings(tmp_path: Path, valkey_url: str) -> Settings:
    (tmp_path / "chains").mkdir()
    return Settings(root=tmp_path, redis_url=valkey_url, settle_seconds=0.0, threads=1)


def test_dumps_are_found_ingested_and_reported_and_a_corrupt_one_fails_alone(
    settings: Settings, instance: DagsterInstance, tmp_path: Path
) -> None:
    # Given two good dumps and a corrupt one:
    write_sample_dumps(tmp_path)
    whole = compressed((tmp_path / "dumps" / "RC_2023-11.zst").read_bytes() * 3, 1)
    (tmp_path / "dumps" / "RC_2023-12.zst").write_bytes(whole[: len(whole) // 2])
    workspace = Workspace.load(settings)
    platform = Platform(workspace)
    # If the sensor looks and a worker works:
    said = platform.dumps.tick(instance).sentences
    assert "3 dumps, 3 of them to be ingested." in said
    assert run_worker(settings, (Kind.INGEST,), until_empty=True) == 0
    # Then the corrupt one is a dead letter, with the place, and the others are chain files.
    (letter,) = workspace.queues[Kind.INGEST].dead_letters()
    assert letter.key == "RC_2023-12.zst"
    assert "is corrupt near byte" in letter.error
    assert len(list((tmp_path / "chains").rglob("*.parquet"))) == 11
    # And Dagster learns of both.
    sink = InstanceSink(workspace, instance)
    Reporter([workspace.queues[Kind.INGEST]], sink, until_empty=True).run()
    event = instance.get_latest_materialization_event(DUMPS)
    assert event is not None
    assert event.asset_materialization is not None
    shown = event.asset_materialization.metadata.keys()
    assert {"lines", "rejected", "subreddits", "seconds"} <= shown
    platform.dead_letters.tick(instance)
    status = instance.get_status_by_partition(DUMPS, ["RC_2023-12.zst"], DUMP_FILES)
    assert status is not None
    assert str(status["RC_2023-12.zst"]).endswith("FAILED")
    # Nothing is queued again, before the file changes.
    assert "3 dumps, 0 of them to be ingested." in platform.dumps.tick(instance).sentences


def test_a_job_without_a_dump_says_so(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "dumps").mkdir()
    workspace = Workspace.load(settings)
    queue = workspace.queues[Kind.INGEST]
    queue.enqueue([Job(Kind.INGEST, "RC_2011-01.zst", "")], workspace.layout)
    run_worker(settings, (Kind.INGEST,), until_empty=True)
    (letter,) = queue.dead_letters()
    assert "cannot be read" in letter.error


def test_a_job_done_again_reads_the_dump_again(settings: Settings, tmp_path: Path) -> None:
    write_sample_dumps(tmp_path)
    workspace = Workspace.load(settings)
    work = Ingest(settings, workspace.layout)
    name = "RC_2023-11.zst"
    stamp = dump_stamp(work.store.dumps / name, work.filters, skip_corrupt=False)
    work.store.publish(Record(name, "2023-11", stamp, error="The disk had a bad day."))
    queue = workspace.queues[Kind.INGEST]
    queue.enqueue([Job(Kind.INGEST, name, stamp)], workspace.layout)
    assert run_worker(settings, (Kind.INGEST,), until_empty=True) == 0
    assert not queue.dead_letters()
    record = work.store.record(name)
    assert record is not None
    assert (record.error, record.rows > 0) == ("", True)
