"""Reporting over REST to a real webserver: what is sent, once, whatever goes wrong between."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from platform_stack import Stack, wait_for

from reddit_assets.corpus.buckets import FLAT, Buckets
from reddit_assets.errors import ReportingError
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Job, Kind, Result
from reddit_assets.ledger.outbox import Outbox, OutboxEntry
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.platform.reporting.assets import asset_path
from reddit_assets.platform.reporting.drain import Reporter
from reddit_assets.platform.reporting.rest import RestSink
from reddit_assets.settings import Settings
from reddit_assets_tests.factories import claim_jobs

FILES = [f"as/A/c_{number:02}" for number in range(50)]


@pytest.fixture
def stack(tmp_path: Path, valkey_url: str, postgres_url: str) -> Iterator[Stack]:
    """A tree with partitions in Dagster; nothing started."""
    from dagster import DagsterInstance

    one = Stack(tmp_path, valkey_url, postgres_url)
    with DagsterInstance.from_config(str(one.home)) as instance:
        instance.add_dynamic_partitions("chain_files", FILES)
    yield one
    one.kill()


def finish(stack: Stack, keys: list[str]) -> None:
    """Let a worker finish files without a run."""
    queue = stack.queues[Kind.EMBED]
    queue.enqueue([Job(Kind.EMBED, key, "1-1") for key in keys], stack.layout)
    while claims := claim_jobs(queue, "w", 20, 60):
        for claim in claims:
            result = Result(
                claim.id,
                "embeddings",
                claim.key,
                data_version=f"v-{claim.key}",
                source_version=f"s-{claim.key}",
                metadata={"rows": 3, "rows_per_second": 1.5, "backend": "onnx"},
            )
            assert queue.acknowledge(claim, result)


@pytest.mark.slow
def test_what_is_finished_while_the_webserver_is_down_is_reported_once_when_it_is_back(
    stack: Stack,
) -> None:
    # Given fifty files finished while nobody answers:
    finish(stack, FILES)
    outbox = Outbox(stack.queues[Kind.EMBED], "looking")
    reporter = Reporter(list(stack.queues.values()), RestSink(stack.url))
    reporter.start()
    time.sleep(3)
    assert len(outbox) == 50, "nothing leaves the outbox before Dagster has it"
    # If the webserver comes up:
    stack.start("code-server", "webserver")
    wait_for(lambda: len(outbox) == 0, 90, "the outbox is empty")
    reporter.stop()
    reporter.join(20)
    # Then each file and its chain file are materialized, each once, with what was said of it:
    assert stack.counts("embeddings") == (50, 50)
    assert stack.counts("chains") == (50, 50)
    for key in FILES[::10]:
        (event,) = stack.events("embeddings", key)
        assert {"key": "dagster/data_version", "value": f"v-{key}"} in event["tags"]
        assert len(stack.events("chains", key)) == 1
    # And an entry whose first attempt was uncertain is not sent again:
    sink = RestSink(stack.url)
    (event,) = stack.events("embeddings", FILES[0])
    job = next(e["text"] for e in event["metadataEntries"] if e["label"] == "job_id")
    again = Result(job, "embeddings", FILES[0], data_version=f"v-{FILES[0]}")
    sink.report([OutboxEntry("1-1", again, uncertain=True)])
    assert len(stack.events("embeddings", FILES[0])) == 1
    # But a new result of the same file is:
    sink.report(
        [OutboxEntry("1-2", Result("new", "embeddings", FILES[0], data_version="v2"), False)]
    )
    assert len(stack.events("embeddings", FILES[0])) == 2
    sink.close()


def test_the_webservers_refusal_is_a_sentence() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(500, text="out of order"))
    sink = RestSink("http://dagster.test", transport=transport)
    entry = OutboxEntry("1-1", Result("j", "embeddings", "as/A/c"), uncertain=False)
    with pytest.raises(ReportingError, match=r"answers 500 .*out of order"):
        sink.report([entry])


def test_only_two_reporters_at_a_time_hold_a_connection(valkey_url: str) -> None:
    queue = JobQueue(connect(Settings(redis_url=valkey_url)), Kind.EMBED)
    first, second, third = (Outbox(queue, name) for name in "abc")
    assert first.slot(2, 60)
    assert second.slot(2, 60)
    assert not third.slot(2, 60)
    assert first.slot(2, 60), "who has one keeps it"
    first.free_slot()
    assert third.slot(2, 60)


def test_a_file_and_its_cluster_belong_to_one_buckets_assets() -> None:
    buckets = Buckets.for_files(1)
    bucket = buckets.of("as/A")
    assert asset_path("embeddings", "as/A/c", buckets) == ("embeddings", bucket)
    assert asset_path("clusters", "as/A", buckets) == ("clusters", bucket)
    assert asset_path("embeddings", "as/A/c", FLAT) == ("embeddings",)
