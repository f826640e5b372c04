"""The queue's protocol against a real server."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import Failure
from reddit_assets.ledger import waiters as runs
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Claim, Job, Kind, Lane, Result
from reddit_assets.ledger.outbox import Outbox
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.settings import Settings

LAYOUT = Layout.of(Path("/data"))


@pytest.fixture
def queue(valkey_url: str) -> JobQueue:
    return JobQueue(connect(Settings(redis_url=valkey_url)), Kind.EMBED)


def jobs(*names: str, stamp: str = "1-1", force: bool = False) -> list[Job]:
    return [Job(Kind.EMBED, f"as/A/{name}", stamp, force=force) for name in names]


def claim_one(queue: JobQueue, worker: str = "w", lease: float = 30) -> Claim:
    claims = queue.claim(worker, 1, lease)
    assert claims, "nothing to claim"
    return claims[0]


def result_of(claim: Claim) -> Result:
    return Result(claim.id, "embeddings", claim.key, data_version="v1")


def fail(queue: JobQueue, claim: Claim, *, permanent: bool = False, attempts: int = 3) -> str:
    failure = Failure("broken", permanent=permanent)
    return queue.fail(claim, failure, max_attempts=attempts, retry_seconds=0)


def test_a_job_is_queued_once_and_plain_consumers_can_read_it(queue: JobQueue) -> None:
    assert queue.enqueue(jobs("1"), LAYOUT).queued == 1
    assert queue.enqueue(jobs("1"), LAYOUT).already == 1
    assert queue.client.llen("phase4_todo_queue") == 1
    _, payload = queue.client.blpop("phase4_todo_queue", timeout=1)
    job = json.loads(payload)
    assert job["input_path"] == "/data/chains/as/A/1.parquet"
    assert job["output_path"] == "/data/embeddings/as/A/1.parquet"


def test_names_that_are_not_utf8_pass_through_the_queue(queue: JobQueue) -> None:
    # Given a foreign job whose path is not UTF-8, and an error that names it:
    queue.client.rpush("phase4_todo_queue", b'{"input_path": "/data/chains/a/\xff/c.parquet"}')
    claim = claim_one(queue)
    assert claim.job["input_path"] == "/data/chains/a/\udcff/c.parquet"
    failure = Failure.of(OSError(f"cannot open {claim.job['input_path']}"))
    queue.fail(claim, failure, max_attempts=1, retry_seconds=0)
    # Then the dead letter tells it in text that everybody can store.
    (letter,) = queue.dead_letters()
    assert "cannot open /data/chains/a/\\udcff/c.parquet" in letter.error
    letter.error.encode()
    assert Result.from_json(Result("j", "a", "p", error="\udcff").to_json()).error == "\udcff"


def test_jobs_are_taken_in_the_order_they_were_queued(queue: JobQueue) -> None:
    queue.enqueue(jobs("1", "2", "3"), LAYOUT)
    claims = queue.claim("w", 2, 30)
    assert [claim.key for claim in claims or []] == ["as/A/1", "as/A/2"]
    assert queue.counts().leased == 2
    assert queue.counts().queued == 1


def test_acknowledging_reports_once_and_empties_the_ledger(queue: JobQueue) -> None:
    queue.enqueue(jobs("1"), LAYOUT)
    claim = claim_one(queue)
    assert queue.acknowledge(claim, result_of(claim), rows=5, tokens=50, seconds=1.5)
    assert not queue.acknowledge(claim, result_of(claim)), "a token ends with its job"
    counts = queue.counts()
    assert (counts.leased, counts.queued, counts.outbox) == (0, 0, 1)
    assert counts.totals["rows"] == 5
    assert queue.client.keys("*job:*") == []
    outbox = Outbox(queue, "r")
    (entry,) = outbox.take(10)
    assert entry.result.partition == "as/A/1"
    assert not entry.uncertain
    outbox.done([entry.entry])
    assert len(outbox) == 0


def test_what_a_reporter_took_and_did_not_finish_is_taken_over_as_uncertain(
    queue: JobQueue,
) -> None:
    queue.enqueue(jobs("1"), LAYOUT)
    claim = claim_one(queue)
    queue.acknowledge(claim, result_of(claim))
    assert Outbox(queue, "died").take(10)
    assert Outbox(queue, "other", takeover_seconds=30).take(10) == []
    (entry,) = Outbox(queue, "other", takeover_seconds=0).take(10)
    assert entry.uncertain


def test_a_frozen_worker_loses_its_job_to_another(queue: JobQueue) -> None:
    queue.enqueue(jobs("1"), LAYOUT)
    frozen = claim_one(queue, "frozen", lease=0.05)
    queue.renew("frozen", [(frozen, True)], 0.05)
    time.sleep(0.1)
    (reaped,) = queue.reap(max_recoveries=3)
    assert (reaped.key, reaped.worker, reaped.dead) == ("as/A/1", "frozen", False)
    other = claim_one(queue, "other")
    assert other.recoveries == 1
    assert other.tombs == (frozen.token,)
    assert queue.renew("frozen", [(frozen, True)], 30) == {frozen.token}
    assert not queue.acknowledge(frozen, result_of(frozen))
    assert queue.acknowledge(other, result_of(other))
    assert queue.counts().outbox == 1


def test_a_death_before_computing_is_no_recovery(queue: JobQueue) -> None:
    queue.enqueue(jobs("1"), LAYOUT)
    claim_one(queue, lease=0.02)
    time.sleep(0.05)
    queue.reap(max_recoveries=1)
    assert claim_one(queue).recoveries == 0


def test_a_job_that_kills_its_workers_becomes_a_dead_letter(queue: JobQueue) -> None:
    queue.enqueue(jobs("1"), LAYOUT)
    for _ in range(2):
        claim = claim_one(queue, lease=0.02)
        queue.renew("w", [(claim, True)], 0.02)
        time.sleep(0.05)
        queue.reap(max_recoveries=2)
    (letter,) = queue.dead_letters()
    assert letter.recoveries == 2
    assert "died or hung" in letter.error


def test_failures_wait_longer_each_time_and_end_as_a_dead_letter(queue: JobQueue) -> None:
    queue.enqueue(jobs("1"), LAYOUT)
    assert fail(queue, claim_one(queue), attempts=2) == "delayed"
    assert queue.claim("w", 1, 30) == []
    queue.reap(max_recoveries=3)
    again = claim_one(queue)
    assert again.attempts == 1
    assert fail(queue, again, attempts=2) == "dead"
    assert queue.enqueue(jobs("1"), LAYOUT).blocked == 1
    assert queue.enqueue(jobs("1", stamp="2-2"), LAYOUT).queued == 1, "the source changed"
    assert queue.counts().dead == 0


def test_retry_and_purge(queue: JobQueue) -> None:
    queue.enqueue(jobs("1", "2"), LAYOUT)
    for claim in queue.claim("w", 2, 30) or []:
        assert fail(queue, claim, permanent=True) == "dead"
    assert queue.retry(["as/A/1", "as/A/unknown"]) == 1
    assert queue.purge(["as/A/2"]) == 1
    claim = claim_one(queue)
    assert (claim.key, claim.attempts) == ("as/A/1", 0)
    assert queue.counts().dead == 0


def test_two_runs_and_a_scan_share_one_computation(queue: JobQueue) -> None:
    queue.enqueue(jobs("1"), LAYOUT)
    for run in ("a", "b"):
        runs.open_run(queue, run, 30)
        assert queue.enqueue(jobs("1", force=True), LAYOUT, run=run).superseded == 1
    claim = claim_one(queue)
    assert claim.force
    assert queue.claim("w", 5, 30) == [], "superseded copies are discarded"
    queue.acknowledge(claim, result_of(claim))
    for run in ("a", "b"):
        ((entry, result),) = runs.collect(queue, run, block_seconds=0)
        assert result.partition == "as/A/1"
        runs.recorded(queue, run, [entry])
        assert runs.withdraw(queue, run).kept == 0
    assert queue.counts().outbox == 0


def test_a_run_that_wants_it_anew_while_it_is_computed_gets_it_anew(queue: JobQueue) -> None:
    queue.enqueue(jobs("1"), LAYOUT)
    first = claim_one(queue)
    runs.open_run(queue, "a", 30)
    assert queue.enqueue(jobs("1", force=True), LAYOUT, run="a").anew == 1
    assert queue.acknowledge(first, result_of(first))
    assert queue.counts().outbox == 1
    assert runs.collect(queue, "a", block_seconds=0) == []
    second = claim_one(queue)
    assert second.force
    queue.acknowledge(second, result_of(second))
    assert len(runs.collect(queue, "a", block_seconds=0)) == 1


def test_cancelling_a_run_leaves_the_others_served(queue: JobQueue) -> None:
    queue.enqueue(jobs("scanned"), LAYOUT)
    for run in ("a", "b"):
        runs.open_run(queue, run, 30)
    queue.enqueue(jobs("scanned", "only-a", "both"), LAYOUT, run="a")
    queue.enqueue(jobs("both"), LAYOUT, run="b")
    withdrawn = runs.withdraw(queue, "a")
    assert (withdrawn.withdrawn, withdrawn.kept) == (1, 2)
    claims = queue.claim("w", 5, 30) or []
    assert sorted(claim.key for claim in claims) == ["as/A/both", "as/A/scanned"]
    for claim in claims:
        queue.acknowledge(claim, result_of(claim))
    assert [r.partition for _, r in runs.collect(queue, "b", block_seconds=0)] == ["as/A/both"]
    assert queue.counts().outbox == 1


def test_results_of_a_dead_run_are_handed_to_the_outbox(queue: JobQueue) -> None:
    runs.open_run(queue, "a", 0.02)
    queue.enqueue(jobs("1", force=True), LAYOUT, run="a")
    claim = claim_one(queue)
    queue.acknowledge(claim, result_of(claim))
    time.sleep(0.05)
    assert runs.expired_runs(queue) == ["a"]
    runs.withdraw(queue, "a")
    assert runs.expired_runs(queue) == []
    (entry,) = Outbox(queue, "r").take(5)
    assert entry.uncertain, "the run may have recorded it before it died"


def test_a_failed_job_tells_its_runs(queue: JobQueue) -> None:
    runs.open_run(queue, "a", 30)
    queue.enqueue(jobs("1", force=True), LAYOUT, run="a")
    fail(queue, claim_one(queue), permanent=True)
    ((_, result),) = runs.collect(queue, "a", block_seconds=0)
    assert (result.ok, result.error, result.partition) == (False, "broken", "as/A/1")
    assert queue.enqueue(jobs("1", force=True), LAYOUT, run="a").queued == 1


def test_a_backfill_does_not_starve_other_work(queue: JobQueue) -> None:
    runs.open_run(queue, "big", 30)
    queue.enqueue(jobs(*(f"big{i}" for i in range(50))), LAYOUT, run="big")
    queue.enqueue(jobs(*(f"small{i}" for i in range(5))), LAYOUT)
    queue.enqueue(jobs("now"), LAYOUT, urgent=True)
    order = [claim.key.removeprefix("as/A/") for claim in queue.claim("w", 11, 30) or []]
    assert order[0] == "now"
    assert sum(name.startswith("small") for name in order) == 5


def test_release_gives_back_to_the_head_without_counting(queue: JobQueue) -> None:
    queue.enqueue(jobs("1", "2"), LAYOUT)
    first = claim_one(queue)
    assert queue.release([first]) == 1
    again = claim_one(queue)
    assert (again.key, again.attempts, again.recoveries) == ("as/A/1", 0, 0)
    assert again.tombs == (first.token,)


def test_nothing_is_claimed_while_paused(queue: JobQueue) -> None:
    queue.enqueue(jobs("1"), LAYOUT)
    queue.pause()
    assert queue.claim("w", 1, 30) is None
    queue.resume()
    assert claim_one(queue)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ("not json", "is not JSON"),
        ("[1, 2]", "is not a JSON object"),
        ("7", "is not a JSON object"),
        ('{"a": "' + "x" * 3_000_000 + '"}', "is larger than"),
    ],
)
def test_what_is_no_job_dies_at_once(queue: JobQueue, payload: str, why: str) -> None:
    queue.client.rpush("phase4_todo_queue", payload)
    assert queue.claim("w", 1, 30) == []
    (letter,) = queue.dead_letters()
    assert why in letter.error
    assert len(letter.payload) <= 2000
    assert queue.purge([letter.key]) == 1


def test_a_foreign_job_takes_over_the_queued_one(queue: JobQueue) -> None:
    queue.enqueue(jobs("1"), LAYOUT)
    queue.client.lpush(
        "phase4_todo_queue",
        json.dumps(
            {
                "input_path": "/data/chains/as/A/1.parquet",
                "output_path": "/data/embeddings/as/A/1.parquet",
                "note": "unknown keys are ignored",
            }
        ),
    )
    foreign = claim_one(queue)
    assert foreign.foreign
    claim = queue.adopt(foreign, LAYOUT.embed_key_of_job(foreign.job), "1-1")
    assert claim is not None
    assert claim.key == "as/A/1"
    assert queue.claim("w", 5, 30) == [], "our own copy is superseded"
    assert queue.acknowledge(claim, result_of(claim))
    assert queue.client.keys("*job:*") == []


def test_a_foreign_copy_of_a_job_in_work_is_dropped(queue: JobQueue) -> None:
    queue.enqueue(jobs("1"), LAYOUT)
    mine = claim_one(queue)
    queue.client.rpush("phase4_todo_queue", '{"input_path": "x", "output_path": "y"}')
    foreign = claim_one(queue)
    assert queue.adopt(foreign, mine.key, "1-1") is None
    assert queue.counts().leased == 1


def test_what_a_plain_consumer_lost_is_found_and_pushed_again(queue: JobQueue) -> None:
    queue.enqueue(jobs("made", "lost", "listed"), LAYOUT)
    for _ in range(2):
        queue.client.blpop("phase4_todo_queue", timeout=1)
    found = queue.unlisted(0)
    assert set(found) == {"as/A/made", "as/A/lost"}
    assert queue.close({"as/A/made": found["as/A/made"]}) == 1
    assert queue.repush({"as/A/lost": found["as/A/lost"]}) == 1
    claims = queue.claim("w", 5, 30) or []
    assert sorted(claim.key for claim in claims) == ["as/A/listed", "as/A/lost"]


def test_stale_outputs_go_where_plain_consumers_do_not_look(queue: JobQueue) -> None:
    queue.enqueue(jobs("1"), LAYOUT, lane=Lane.STALE)
    assert queue.client.llen("phase4_todo_queue") == 0
    assert claim_one(queue).key == "as/A/1"


def test_one_worker_leads_the_reaping(queue: JobQueue) -> None:
    assert queue.lead("a", 0.1)
    assert queue.lead("a", 0.1)
    assert not queue.lead("b", 0.1)
    time.sleep(0.15)
    assert queue.lead("b", 0.1)


def test_a_worker_can_be_seen_until_it_leaves(queue: JobQueue) -> None:
    queue.announce("w", {"host": "h", "backend": "onnx"}, 30)
    queue.claim("w", 1, 30)
    assert queue.workers() == {"w": {"host": "h", "backend": "onnx"}}
    queue.leave("w")
    assert queue.workers() == {}
    assert queue.counts().workers == 0
