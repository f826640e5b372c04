"""What was given up looks failed in Dagster until its output is there; and the hourly glance."""

from __future__ import annotations

from pathlib import Path

import pytest
from dagster import AssetKey, DagsterEventType, DagsterInstance, DagsterRunStatus
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import Failure
from reddit_assets.ledger.job import Job, Kind
from reddit_assets.ledger.planner import sweep
from reddit_assets.platform.names import AssetSet
from reddit_assets.platform.resources import Platform
from reddit_assets.settings import Settings
from reddit_assets.workspace import Workspace
from reddit_assets_tests.factories import claim_jobs
from reddit_assets_tests.platform_worker import FakeWorker, write_chain

EMBEDDINGS = AssetKey("embeddings")
TEA, BOOKS = ["as/Tea/c_0", "as/Tea/c_1"], ["bo/books/c_0"]


@pytest.fixture
def platform(tmp_path: Path, valkey_url: str) -> Platform:
    Layout.of(tmp_path).chains.mkdir()
    return Platform(
        Workspace.load(Settings(root=tmp_path, redis_url=valkey_url, settle_seconds=0.0))
    )


def give_up(platform: Platform, keys: list[str], why: str) -> None:
    queue = platform.workspace.queues[Kind.EMBED]
    queue.enqueue([Job(Kind.EMBED, key, "s", force=True) for key in keys], Layout.of(Path("/x")))
    for claim in claim_jobs(queue, "fake", len(keys), 60.0) or []:
        failure = Failure(why, "Repair it.", host="gpu-7", traceback="Traceback …")
        queue.fail(claim, failure, max_attempts=1, retry_seconds=0)


def statuses(instance: DagsterInstance) -> dict[str, AssetPartitionStatus | None]:
    found = instance.get_status_by_partition(EMBEDDINGS, [*TEA, *BOOKS], AssetSet().files)
    return dict(found or {})


def test_what_was_given_up_is_failed_until_its_output_is_there(
    platform: Platform, instance: DagsterInstance
) -> None:
    workspace = platform.workspace
    for key in (*TEA, *BOOKS):
        write_chain(workspace.layout, key)
    platform.discover.tick(instance)
    workspace.queues[Kind.EMBED].clear()
    # Given two files that were given up on one host, with a reason:
    give_up(platform, TEA, "The file is torn.")
    cursor = platform.dead_letters.tick(instance).cursor
    # Then their partitions are failed and no other, by a run that names them,
    failed = AssetPartitionStatus.FAILED
    assert statuses(instance) == {TEA[0]: failed, TEA[1]: failed, BOOKS[0]: None}
    (run,) = instance.get_runs()
    assert run.status is DagsterRunStatus.FAILURE
    said = [entry.message for entry in instance.all_logs(run.run_id)]
    assert any("2 jobs were given up: as/Tea/c_0, as/Tea/c_1" in message for message in said)
    # and each partition says why, where, and what to do.
    events = instance.all_logs(run.run_id, of_type=DagsterEventType.ASSET_OBSERVATION)
    observed = [entry.dagster_event.asset_observation_data.asset_observation for entry in events]  # type: ignore[union-attr]
    assert [each.partition for each in observed] == TEA
    shown = {name: value.value for name, value in observed[0].metadata.items()}
    assert (shown["error"], shown["what to do"]) == ("The file is torn.", "Repair it.")
    assert (shown["host"], shown["attempts"]) == ("gpu-7", 1)
    # If nothing has changed, then no other run says it again.
    cursor = platform.dead_letters.tick(instance, cursor).cursor
    assert len(instance.get_runs()) == 1
    # If one is retried and made, and the other's output was there (its file was put back),
    queue = workspace.queues[Kind.EMBED]
    worker = FakeWorker(workspace.settings, workspace.layout)
    queue.retry([TEA[0]])
    queue.enqueue([Job(Kind.EMBED, TEA[1], "other", force=True)], workspace.layout, urgent=True)
    for claim in claim_jobs(queue, "fake", 5, 60.0) or []:
        worker.work(queue, claim)
    give_up(platform, [TEA[1]], "The file is torn again.")
    assert sweep(workspace.scanner(), queue, lost_seconds=900).forgotten == (TEA[1],)
    tick = platform.dead_letters.tick(instance, cursor)
    # then both are healed, also in the counts, and the latest run of each is no failure.
    latest = instance.get_runs(limit=1)[0]
    assert latest.status is DagsterRunStatus.SUCCESS
    assert "2 healed" in tick.sentences[0]
    assert statuses(instance) == {
        TEA[0]: AssetPartitionStatus.MATERIALIZED,
        TEA[1]: AssetPartitionStatus.MATERIALIZED,
        BOOKS[0]: None,
    }


def test_the_corpus_is_looked_at_at_once_then_hourly_and_when_the_work_has_ended(
    platform: Platform, instance: DagsterInstance
) -> None:
    workspace = platform.workspace

    def numbers() -> list[tuple[object, object]]:
        records = instance.fetch_materializations(AssetKey("corpus"), limit=10).records
        found = [record.asset_materialization.metadata for record in records]  # type: ignore[union-attr]
        return [(each["embedded"].value, each["unfinished outputs"].value) for each in found]

    # Given one file that is not embedded, then the first look says so, and the next waits.
    write_chain(workspace.layout, BOOKS[0])
    platform.glance.tick(instance)
    said = platform.glance.tick(instance).sentences
    assert numbers() == [(0, 2)]
    assert "still to be queued" in said[0]
    # If everything is done, then it is said without waiting, once.
    worker = FakeWorker(workspace.settings, workspace.layout)
    for kind, key in ((Kind.EMBED, BOOKS[0]), (Kind.CLUSTER, "bo/books")):
        queue = workspace.queues[kind]
        queue.enqueue([Job(kind, key, "s")], workspace.layout)
        for claim in claim_jobs(queue, "fake", 1, 60.0) or []:
            worker.work(queue, claim)
        queue.client.delete(f"{queue.prefix}outbox")
    platform.glance.tick(instance)
    platform.glance.tick(instance)
    assert numbers() == [(1, 0), (0, 2)]
