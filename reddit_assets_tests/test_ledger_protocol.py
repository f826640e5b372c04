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
from reddit_assets.ledger.intake import Intake, repush, unlisted
from reddit_assets.ledger.job import Claim, Job, Kind, Lane, Result
from reddit_assets.ledger.outbox import Outbox
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.settings import Settings
from reddit_assets_tests.factories import ALL_SERVERS, claim_jobs

pytestmark = ALL_SERVERS

LAYOUT = Layout.of(Path("/data"))
PATHS = {
    "input_path": "/data/chains/as/A/1.parquet",
    "output_path": "/data/embeddings/as/A/1.parquet",
}


@pytest.fixture
def queue(valkey_url: str) -> JobQueue:
    return JobQueue(connect(Settings(redis_url=valkey_url)), Kind.EMBED)


def jobs(*names: str, stamp: str = "1-1", force: bool = False) -> list[Job]:
    return [Job(Kind.EMBED, f"as/A/{name}", stamp, force=force) for name in names]


def claim_one(queue: JobQueue, worker: str = "w", lease: float = 30) -> Claim:
    claims = claim_jobs(queue, worker, 1, lease)
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
    assert claim_jobs(queue, "w", 1, 30) == []
    queue.enqueue(jobs("1"), LAYOUT)
    failure = Failure.of(OSError("cannot open /data/chains/a/\udcff/c.parquet"))
    queue.fail(claim_one(queue), failure, max_attempts=1, retry_seconds=0)
    # Then the dead letters tell it in text that everybody can store.
    refused, failed = queue.dead_letters()
    assert "/data/chains/a/\\udcff/c.parquet" in refused.error
    assert "cannot open /data/chains/a/\\udcff/c.parquet" in failed.error
    (refused.error + failed.error).encode()
    assert Result.from_json(Result("j", "a", "p", error="\udcff").to_json()).error == "\udcff"


def test_jobs_are_taken_in_the_order_they_were_queued(queue: JobQueue) -> None:
    queue.enqueue(jobs("1", "2", "3"), LAYOUT)
    claims = claim_jobs(queue, "w", 2, 30)
    assert [claim.key for claim in claims or []] == ["as/A/1", "as/A/2"]
    assert queue.counts().leased == 2
    assert queue.counts().queued == 1


def test_acknowledging_reports_once_and_empties_the_ledger(queue: JobQueue) -> None:
    queue.enqueue(jobs("1"), LAYOUT)
    claim = claim_one(queue)
    assert queue.acknowledge(claim, result_of(claim), rows=5, tokens=50, seconds=1.5)
    assert queue.acknowledge(claim, result_of(claim)), "sent again: the same answer"
    assert claim_jobs(queue, "w", 1, 30) == []
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
    (reaped,) = queue.reap(retry_seconds=0)
    assert (reaped.key, reaped.worker, reaped.outcome) == ("as/A/1", "frozen", "suspect")
    other = claim_one(queue, "other")
    assert (other.evictions, other.crashes) == (1, 0)
    assert other.tombs == (frozen.token,)
    assert queue.renew("frozen", [(frozen, True)], 30) == {frozen.token}
    assert not queue.acknowledge(frozen, result_of(frozen))
    assert queue.acknowledge(other, result_of(other))
    assert queue.counts().outbox == 1


def test_a_death_before_computing_counts_for_nothing(queue: JobQueue) -> None:
    queue.enqueue(jobs("1"), LAYOUT)
    claim_one(queue, lease=0.02)
    time.sleep(0.05)
    queue.reap(retry_seconds=0)
    again = claim_one(queue)
    assert (again.evictions, again.crashes, again.suspect) == (0, 0, False)


def crash(queue: JobQueue, *started: Claim, limit: int = 2) -> list[str]:
    failure = Failure("The process died.")
    outcomes = queue.crashed([(claim, True) for claim in started], failure, max_crashes=limit)
    return [outcomes[claim.token] for claim in started]


def test_a_job_that_kills_its_process_alone_becomes_a_dead_letter(queue: JobQueue) -> None:
    queue.enqueue(jobs("1"), LAYOUT)
    assert crash(queue, claim_one(queue)) == ["suspect"]
    again = claim_one(queue)
    assert (again.crashes, again.suspect) == (1, True)
    assert crash(queue, again) == ["dead"]
    (letter,) = queue.dead_letters()
    assert (letter.crashes, letter.error) == (2, "The process died.")


def test_of_several_that_were_computed_none_is_blamed_and_each_runs_alone(queue: JobQueue) -> None:
    # Given a process with two jobs in work and one that waits, and one job more in the queue:
    queue.enqueue(jobs("1", "2", "waits", "queued"), LAYOUT)
    claims = claim_jobs(queue, "w", 3, 30) or []
    started = [(claim, claim.key != "as/A/waits") for claim in claims]
    # If the process dies, again and again:
    outcomes = queue.crashed(started, Failure("The process died."), max_crashes=1)
    # Then none is dead, and each that was in work waits until a worker has nothing else:
    assert [outcomes[claim.token] for claim in claims] == ["suspect", "suspect", "queued"]
    busy = Intake(queue, LAYOUT).claim("w", 5, 30, alone=False)
    assert [claim.key for claim in busy.claims] == ["as/A/waits", "as/A/queued"]
    assert busy.suspects
    for _ in range(2):
        (claim,) = claim_jobs(queue, "w", 5, 30) or []
        assert (claim.suspect, claim.crashes) == (True, 0)
    assert not Intake(queue, LAYOUT).claim("w", 5, 30, alone=True).suspects


def evict(queue: JobQueue, retry_seconds: float) -> str:
    claim = claim_one(queue)
    queue.renew("w", [(claim, True)], 0)
    (reaped,) = queue.reap(retry_seconds=retry_seconds)
    return reaped.outcome


def test_a_worker_that_vanishes_again_and_again_makes_no_dead_letter(queue: JobQueue) -> None:
    queue.enqueue(jobs("1"), LAYOUT)
    assert [evict(queue, 0.05) for _ in range(3)] == ["suspect", "suspect", "delayed"]
    assert claim_jobs(queue, "w", 1, 30) == [], "it waits"
    time.sleep(0.06)
    queue.reap(retry_seconds=0.05)
    assert evict(queue, 3600) == "delayed"
    assert queue.counts().dead == 0
    (due,) = dict(queue.client.zrange(f"{queue.prefix}delayed", 0, -1, withscores=True)).values()
    assert 3500 < due / 1000 - time.time() <= 3600, "an hour at the most"


def test_a_crash_loop_ends_though_the_job_is_wanted_again_each_time(queue: JobQueue) -> None:
    # Given a job that kills its process, and a source that changes while it is computed:
    runs.open_run(queue, "first", 30)
    runs.open_run(queue, "second", 30)
    queue.enqueue(jobs("1"), LAYOUT, run="first")
    outcomes = []
    for number in range(2):
        claim = claim_one(queue)
        again = jobs("1", stamp=f"new-{number}", force=True)
        assert queue.enqueue(again, LAYOUT, run="second").again == 1
        outcomes += crash(queue, claim)
    # Then it ends as a dead letter of the newest source, and both runs know.
    assert outcomes == ["suspect", "dead"]
    (letter,) = queue.dead_letters()
    assert letter.stamp == "new-1"
    for run in ("first", "second"):
        ((_, result),) = runs.collect(queue, run, block_seconds=0)
        assert (result.ok, result.error) == (False, "The process died.")


def test_attempts_are_kept_when_the_same_input_is_wanted_again(queue: JobQueue) -> None:
    runs.open_run(queue, "r", 30)
    queue.enqueue(jobs("1"), LAYOUT)
    claim = claim_one(queue)
    queue.enqueue(jobs("1", force=True), LAYOUT, run="r")
    assert fail(queue, claim) == "queued"
    claim = claim_one(queue)
    assert claim.attempts == 1
    queue.enqueue(jobs("1", stamp="other"), LAYOUT)
    assert fail(queue, claim) == "queued"
    assert claim_one(queue).attempts == 0, "another input"


def test_a_success_forgives_crashes(queue: JobQueue) -> None:
    queue.enqueue(jobs("1"), LAYOUT)
    crash(queue, claim_one(queue))
    claim = claim_one(queue)
    queue.enqueue(jobs("1", stamp="2-2"), LAYOUT)
    assert queue.acknowledge(claim, result_of(claim))
    again = claim_one(queue)
    assert (again.crashes, again.suspect) == (0, False)


def test_failures_wait_longer_each_time_and_end_as_a_dead_letter(queue: JobQueue) -> None:
    queue.enqueue(jobs("1"), LAYOUT)
    assert fail(queue, claim_one(queue), attempts=2) == "delayed"
    assert claim_jobs(queue, "w", 1, 30) == []
    queue.reap(retry_seconds=0)
    again = claim_one(queue)
    assert again.attempts == 1
    assert fail(queue, again, attempts=2) == "dead"
    assert queue.enqueue(jobs("1"), LAYOUT).blocked == 1
    assert queue.enqueue(jobs("1", stamp="2-2"), LAYOUT).queued == 1, "the source changed"
    assert queue.counts().dead == 0


def test_retry_and_purge(queue: JobQueue) -> None:
    queue.enqueue(jobs("1", "2"), LAYOUT)
    for claim in claim_jobs(queue, "w", 2, 30) or []:
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
    assert claim_jobs(queue, "w", 5, 30) == [], "superseded copies are discarded"
    queue.acknowledge(claim, result_of(claim))
    for run in ("a", "b"):
        ((entry, result),) = runs.collect(queue, run, block_seconds=0)
        assert result.partition == "as/A/1"
        runs.recorded(queue, run, [entry])
        assert runs.withdraw(queue, run).kept == 0
    assert queue.counts().outbox == 0


def test_a_run_that_wants_an_output_while_it_is_computed_gets_it_made_again(
    queue: JobQueue,
) -> None:
    queue.enqueue(jobs("1"), LAYOUT)
    first = claim_one(queue)
    runs.open_run(queue, "a", 30)
    assert queue.enqueue(jobs("1", force=True), LAYOUT, run="a").again == 1
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
    claims = claim_jobs(queue, "w", 5, 30) or []
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
    order = [claim.key.removeprefix("as/A/") for claim in claim_jobs(queue, "w", 11, 30) or []]
    assert order[0] == "now"
    assert sum(name.startswith("small") for name in order) == 5


def test_release_gives_back_to_the_head_without_counting(queue: JobQueue) -> None:
    queue.enqueue(jobs("1", "2"), LAYOUT)
    first = claim_one(queue)
    assert queue.release([first]) == 1
    again = claim_one(queue)
    assert (again.key, again.attempts, again.crashes) == ("as/A/1", 0, 0)
    assert again.tombs == (), "who gives a job back has deleted its temporary files"


def test_nothing_is_claimed_while_paused(queue: JobQueue) -> None:
    queue.enqueue(jobs("1"), LAYOUT)
    queue.pause()
    assert claim_jobs(queue, "w", 1, 30) is None
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
    assert claim_jobs(queue, "w", 1, 30) == []
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
                **PATHS,
                "note": "unknown keys are ignored",
            }
        ),
    )
    claim = claim_one(queue)
    assert claim.key == "as/A/1"
    assert claim_jobs(queue, "w", 5, 30) == [], "our own copy is superseded"
    assert queue.acknowledge(claim, result_of(claim))
    assert queue.client.keys("*job:*") == []


def test_a_foreign_copy_of_a_job_in_work_is_dropped(queue: JobQueue) -> None:
    queue.enqueue(jobs("1"), LAYOUT)
    assert claim_one(queue).key == "as/A/1"
    queue.client.rpush("phase4_todo_queue", json.dumps(PATHS))
    assert claim_jobs(queue, "w", 1, 30) == []
    counts = queue.counts()
    assert (counts.leased, counts.dead, counts.totals["discarded"]) == (1, 0, 1)


def test_what_a_plain_consumer_lost_is_found_and_pushed_again(queue: JobQueue) -> None:
    queue.enqueue(jobs("made", "lost", "listed"), LAYOUT)
    for _ in range(2):
        queue.client.blpop("phase4_todo_queue", timeout=1)
    found = unlisted(queue, 0)
    assert set(found) == {"as/A/made", "as/A/lost"}
    assert queue.close({"as/A/made": found["as/A/made"]}) == 1
    assert repush(queue, {"as/A/lost": found["as/A/lost"]}) == 1
    claims = claim_jobs(queue, "w", 5, 30) or []
    assert sorted(claim.key for claim in claims) == ["as/A/listed", "as/A/lost"]


def test_stale_outputs_go_where_plain_consumers_do_not_look(queue: JobQueue) -> None:
    queue.enqueue(jobs("1"), LAYOUT, lane=Lane.STALE)
    assert queue.client.llen("phase4_todo_queue") == 0
    assert claim_one(queue).key == "as/A/1"


NO_RESULTS = [
    {"r": "no json"},
    {"r": "[1]"},
    {"r": '{"job": "j", "partition": 7}'},
    {"r": '{"job": "j"}'},
    {"r": '{"job": "j", "partition": "p", "metadata": []}'},
    {"r": '{"job": "j", "partition": "p", "ok": "yes"}'},
    {"r": '{"job": "j", "partition": "p", "metadata": {"n": NaN}}'},
    {"r": "[" * 50_000},
    {"x": "no field r"},
]


@pytest.mark.parametrize("fields", NO_RESULTS, ids=lambda fields: str(fields)[:50])
def test_an_outbox_entry_that_is_no_result_is_set_aside(
    queue: JobQueue, fields: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    # Given a result before and one behind an entry that is none:
    outbox = Outbox(queue, "r")
    outbox.put([Result("before", "embeddings", "p")])
    queue.client.xadd(f"{queue.prefix}outbox", fields)
    outbox.put([Result("behind", "embeddings", "p")])
    # If a reporter takes them, Then it has the two, and the other is logged once and shown.
    entries = outbox.take(10)
    assert [entry.result.job for entry in entries] == ["before", "behind"]
    outbox.done([entry.entry for entry in entries])
    assert (queue.counts().outbox, queue.counts().rejected) == (0, 1)
    assert Outbox(queue, "other", takeover_seconds=0).take(10) == []
    assert sum("set aside" in record.message for record in caplog.records) == 1
    ((_, told),) = queue.client.xrange(f"{queue.prefix}rejected")
    assert told["why"].endswith(".")


def test_a_result_that_is_none_does_not_stop_its_run(queue: JobQueue) -> None:
    runs.open_run(queue, "a", 30)
    name = f"{queue.prefix}results:a"
    queue.client.xadd(name, {"r": "no json"})
    queue.client.xadd(name, {"r": Result("j", "embeddings", "p").to_json()})
    assert [r.job for _, r in runs.collect(queue, "a", block_seconds=0)] == ["j"]
    queue.client.xadd(name, {"x": "y"})
    runs.withdraw(queue, "a")
    assert [entry.result.job for entry in Outbox(queue, "r").take(5)] == ["j"]
    assert queue.counts().rejected == 2


def test_the_outbox_is_emptied_past_entries_that_were_deleted_by_hand(queue: JobQueue) -> None:
    outbox = Outbox(queue, "r", takeover_seconds=0)
    outbox.put([Result("gone", "embeddings", "p"), Result("there", "embeddings", "p")])
    first, _ = outbox.take(10)
    queue.client.xdel(f"{queue.prefix}outbox", first.entry)
    assert [entry.result.job for entry in outbox.take(10)] == ["there"]


def test_results_of_a_large_run_are_handed_over_in_bounded_steps(queue: JobQueue) -> None:
    runs.open_run(queue, "a", 30)
    for number in range(1200):
        queue.client.xadd(
            f"{queue.prefix}results:a", {"r": Result(str(number), "embeddings", "p").to_json()}
        )
    _, _, left = queue.run_script("withdraw", "a", 500)
    assert left == 700
    runs.withdraw(queue, "a")
    assert [entry.result.job for entry in Outbox(queue, "r").take(2000)] == [
        str(number) for number in range(1200)
    ]


def test_dead_letters_are_known_by_time_without_their_tracebacks(queue: JobQueue) -> None:
    queue.enqueue(jobs("1", "2"), LAYOUT)
    before = time.time()
    for claim in claim_jobs(queue, "w", 2, 30) or []:
        fail(queue, claim, permanent=True)
    since = queue.dead_since()
    assert list(since) == ["as/A/1", "as/A/2"]
    assert all(before - 1 < at < time.time() + 1 for at in since.values())
    (letter,) = queue.dead_letters(["as/A/2"])
    assert (letter.key, letter.died_at) == ("as/A/2", since["as/A/2"])


def test_one_worker_leads_the_reaping(queue: JobQueue) -> None:
    assert queue.lead("a", 0.1)
    assert queue.lead("a", 0.1)
    assert not queue.lead("b", 0.1)
    time.sleep(0.15)
    assert queue.lead("b", 0.1)


def test_a_worker_can_be_seen_until_it_leaves(queue: JobQueue) -> None:
    queue.announce("w", {"host": "h", "backend": "onnx"}, 30)
    claim_jobs(queue, "w", 1, 30)
    assert queue.workers() == {"w": {"host": "h", "backend": "onnx"}}
    queue.leave("w")
    assert queue.workers() == {}
    assert queue.counts().workers == 0
