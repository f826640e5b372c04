"""The public list: whatever a line holds, it ends as a claim, a dead letter or a dropped copy."""

from __future__ import annotations

import json
import time
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, example, given, settings

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import BadJobError, QueueUnavailableError
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.intake import (
    LARGEST_LINE,
    Intake,
    key_of_job,
    line_of_job,
    repush,
    unlisted,
)
from reddit_assets.ledger.job import Claim, Job, Kind, Lane, Result
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.settings import Settings
from reddit_assets_tests.factories import ALL_SERVERS, claim_jobs

LAYOUT = Layout.of(Path("/data"))
TODO = "phase4_todo_queue"


@pytest.fixture
def queue(valkey_url: str) -> JobQueue:
    return JobQueue(connect(Settings(redis_url=valkey_url)), Kind.EMBED)


def paths(key: str) -> dict[str, str]:
    return {
        "input_path": f"/data/chains/{key}.parquet",
        "output_path": f"/data/embeddings/{key}.parquet",
    }


def acknowledge(queue: JobQueue, claim: Claim) -> bool:
    return queue.acknowledge(claim, Result(claim.id, "embeddings", claim.key))


# --- what a job means --------------------------------------------------------------------
def test_the_job_of_the_earlier_system_is_understood() -> None:
    job = {
        "input_path": "/data/chains/as/AskReddit/c_0.parquet",
        "output_path": "/data/embeddings/as/AskReddit/c_0.parquet",
        "extra": 1,
    }
    assert key_of_job(LAYOUT, Kind.EMBED, job) == "as/AskReddit/c_0"
    cluster = {"subreddit_path": "/data/embeddings/as/AskReddit"}
    assert key_of_job(LAYOUT, Kind.CLUSTER, cluster) == "as/AskReddit"


def test_a_key_counts_where_roots_differ() -> None:
    job = {"input_path": "/mnt/a.parquet", "output_path": "/mnt/b.parquet", "key": "as/A/c"}
    assert key_of_job(LAYOUT, Kind.EMBED, job) == "as/A/c"


INPUT, OUTPUT = "/data/chains/as/A/c.parquet", "/data/embeddings/as/A/c.parquet"


@pytest.mark.parametrize(
    ("job", "why"),
    [
        ({}, "has no input_path"),
        ({"input_path": INPUT}, "has no output_path"),
        ({"input_path": 7, "output_path": OUTPUT}, "is int, not text"),
        ({"input_path": "chains/as/A/c.parquet", "output_path": OUTPUT}, "not an absolute path"),
        ({"input_path": "/data/chains/../x/A/c.parquet", "output_path": OUTPUT}, "outside"),
        ({"input_path": "/etc/passwd", "output_path": OUTPUT}, "outside"),
        ({"input_path": INPUT, "output_path": "/tmp/c.parquet"}, "outside"),
        ({"input_path": "/data/chainsaw/A/c.parquet", "output_path": OUTPUT}, "outside"),
        ({"input_path": INPUT, "output_path": "/data/embeddings/as/A/d.parquet"}, "as/A/d"),
        ({"input_path": "/data/chains/as/A/c.csv", "output_path": OUTPUT}, "not a .parquet"),
        ({"key": ["as/A/c"]}, "is list, not text"),
        ({"key": "../../etc/passwd"}, "'..'"),
    ],
)
def test_bad_jobs_are_refused_with_a_reason(job: dict[str, object], why: str) -> None:
    with pytest.raises(BadJobError) as caught:
        key_of_job(LAYOUT, Kind.EMBED, job)
    assert why in str(caught.value)


def test_a_job_through_a_symbolic_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path / "root")
    (layout.chains / "as").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (layout.chains / "as" / "A").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadJobError, match="symbolic link"):
        key_of_job(layout, Kind.EMBED, {"key": "as/A/c"})


def test_a_root_that_is_itself_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real" / "chains").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    layout = Layout.of(tmp_path / "link")
    assert key_of_job(layout, Kind.EMBED, {"key": "as/A/c"}) == "as/A/c"


# --- lines that are no jobs --------------------------------------------------------------
NEARLY = [
    b'{"input_path": "/data/chains/as/A/1\n.parquet"}',
    b'{"input_path": "\t"}',
    b'{"n": 01}',
    b'{"n": 1.}',
    b'{"n": 0x10}',
    b'{"n": nan}',
    b'{"n": NaN}',
    b'{"n": -Infinity}',
    b'{"n": 1e999}',
    b'{"n": ' + b"1" * 5000 + b"}",
    b'{"n": "\xff\xfe"}',
    b'{"key": "\\ud800/A/1"}',
    b'{"key": "as/A/\\u0000"}',
    b'{"input_path": "/data/chains/as/A/\\u0000.parquet", "output_path": "/x"}',
    b"[" * 50_000,
    b'{"a":' * 10_000,
    b"",
    b" ",
    b"\x00",
    b"null",
    b"[]",
    b'"text"',
    b"{'single': 'quotes'}",
    b'{"key": "as/A/1", "key": 7}',
    b'{"id": "0123456789abcdef", "key": 7}',
    b"0123456789abcdef",
    b'{"key": "' + b"a/" * 20_000 + b'b"}',
    b'{"input_path": "' + b"x" * LARGEST_LINE + b'"}',
]


def settle(queue: JobQueue) -> list[Claim]:
    """Claims as long as there is something to claim."""
    intake = Intake(queue, LAYOUT)
    claims: list[Claim] = []
    while True:
        claimed = intake.claim("w", 4, 60, alone=True)
        claims += claimed.claims
        if not claimed.claims and not claimed.more:
            return claims


@pytest.mark.parametrize("line", NEARLY, ids=lambda line: ascii(line[:24]))
@ALL_SERVERS
def test_a_line_that_is_no_job_is_a_dead_letter_at_once(queue: JobQueue, line: bytes) -> None:
    # Given a line that one parser may take and another may not, before a plain job:
    queue.client.rpush(TODO, line, json.dumps(paths("as/A/plain")))
    # If a worker claims, Then it gets the job, and the line is reported with its reason.
    assert [claim.key for claim in settle(queue)] == ["as/A/plain"]
    (letter,) = queue.dead_letters()
    assert letter.key.startswith("malformed:")
    assert letter.error.endswith(".")
    assert letter.hint
    (letter.error + letter.hint).encode()
    assert len(letter.payload) <= 2000
    # Everybody else passes it by.
    assert unlisted(queue, 0) == {}
    assert queue.reap(retry_seconds=0) == []
    assert queue.counts().leased == 1


def test_of_a_key_that_is_there_twice_the_last_one_counts(queue: JobQueue) -> None:
    line = json.dumps(paths("as/A/last"))
    queue.client.rpush(TODO, '{"input_path": "/elsewhere", ' + line[1:])
    assert [claim.key for claim in settle(queue)] == ["as/A/last"]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from(["input_path", "output_path", "subreddit_path", "id", "key", "other"])
VALUES = JSON | st.sampled_from(
    ["as/A/1", "0123456789abcdef", *paths("as/A/1").values(), "/data/chains/../x", "", "\ud800"]
)


HUGE = st.integers(4200, 6000).map(lambda digits: "1" * digits)


def text_of(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


OBJECTS = st.lists(st.tuples(FIELDS, VALUES.map(text_of) | HUGE), max_size=5).map(
    lambda pairs: "{" + ", ".join(f"{text_of(name)}: {value}" for name, value in pairs) + "}"
)
LINES = st.one_of(
    st.binary(max_size=80),
    OBJECTS.map(lambda text: text.encode(errors="surrogatepass")),
    st.tuples(OBJECTS, st.integers(0, 60), st.binary(max_size=2)).map(
        lambda parts: b"".join(
            (
                parts[0].encode(errors="surrogatepass")[: parts[1]],
                parts[2],
                parts[0].encode(errors="surrogatepass")[parts[1] :],
            )
        )
    ),
    st.sampled_from(NEARLY),
    st.just("[").map(lambda text: (text * 5000).encode()),
    st.sampled_from(["as/A/1", 'as/A/"1"']).map(
        lambda key: str(line_of_job(LAYOUT, Kind.EMBED, key, "0123456789abcdef")).encode()
    ),
)


def test_any_lines_end_as_claims_dead_letters_or_dropped_copies(valkey_url: str) -> None:
    queue = JobQueue(connect(Settings(redis_url=valkey_url)), Kind.EMBED)

    @given(st.lists(LINES, min_size=1, max_size=6))
    @example([b"0123456789abcdef as/A/1"])
    @settings(
        max_examples=300,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    def check(lines: list[bytes]) -> None:
        queue.client.flushdb()
        queue.enqueue([Job(Kind.EMBED, "as/B/ours", "s")], LAYOUT)
        queue.client.rpush(TODO, *lines, json.dumps(paths("as/B/plain")))
        assert set(unlisted(queue, 0)) <= {"as/B/ours"}
        claims = settle(queue)
        keys = [claim.key for claim in claims]
        assert {"as/B/ours", "as/B/plain"} <= set(keys)
        assert len(set(keys)) == len(keys)
        counts = queue.counts()
        # Of equal lines the later ones are dropped while the first is there.
        dropped = counts.totals.get("discarded", 0)
        refused = sum(letter.lines for letter in queue.dead_letters())
        assert len(keys) + refused + dropped == len(lines) + 2
        assert (counts.public, counts.queued, counts.leased) == (0, 0, len(keys))
        assert all(acknowledge(queue, claim) for claim in claims)

    check()


# --- our own copies ----------------------------------------------------------------------
@ALL_SERVERS
def test_a_key_with_quotes_is_our_own_copy_as_well(queue: JobQueue) -> None:
    key = 'as/A/a "b" c\\d'
    queue.enqueue([Job(Kind.EMBED, key, "s")], LAYOUT)
    (line,) = queue.client.lrange(TODO, 0, -1)
    assert unlisted(queue, 0) == {}, "it is seen in the list"
    (claim,) = claim_jobs(queue, "w", 1, 30) or []
    assert (claim.key, claim.stamp) == (key, "s")
    # A second copy, as of a plain consumer that pushes back what it took, is dropped.
    queue.client.rpush(TODO, line)
    assert settle(queue) == []
    counts = queue.counts()
    assert (counts.leased, counts.dead, counts.totals["discarded"]) == (1, 0, 1)


def test_a_worker_that_dies_while_it_reads_a_line_loses_nothing(queue: JobQueue) -> None:
    # Given a worker that has leased a line of another producer and dies before it has read it:
    queue.client.rpush(TODO, json.dumps(paths("as/A/1")))
    claimed, (line,) = queue.take("dead", 0.01, ["0" * 16], alone=True)
    assert claimed.claims == []
    time.sleep(0.03)
    (reaped,) = queue.reap(retry_seconds=0)
    assert (reaped.key, reaped.outcome) == (line.key, "queued")
    # Then another worker gets the job; and the first one, should it wake up, does not.
    (claim,) = claim_jobs(queue, "w", 1, 30) or []
    assert (claim.key, claim.evictions) == ("as/A/1", 0)
    late = Intake(queue, LAYOUT)._accept("dead", line)
    assert late is None
    assert acknowledge(queue, claim)
    assert queue.client.keys("*job:*") == []


def test_a_foreign_copy_of_a_suspect_is_dropped(queue: JobQueue) -> None:
    from reddit_assets.errors import Failure

    queue.client.rpush(TODO, json.dumps(paths("as/A/1")))
    (claim,) = claim_jobs(queue, "w", 1, 30) or []
    queue.crashed([(claim, True)], Failure("died"), max_crashes=3)
    queue.client.rpush(TODO, json.dumps(paths("as/A/1")))
    assert claim_jobs(queue, "w", 5, 30, alone=False) == []
    (claim,) = claim_jobs(queue, "w", 5, 30) or []
    assert (claim.suspect, claim.crashes) == (True, 1)


@ALL_SERVERS
def test_one_call_discards_a_bounded_number_of_superseded_copies(queue: JobQueue) -> None:
    # Given very many copies that a run has superseded, and one job behind them:
    stale = [
        line_of_job(LAYOUT, Kind.EMBED, f"as/A/{number}", "0123456789abcdef")
        for number in range(2500)
    ]
    queue.client.rpush(TODO, *stale)
    queue.enqueue([Job(Kind.EMBED, "as/A/wanted", "s")], LAYOUT)
    # If a worker claims, Then each call stops after a thousand and says so.
    intake = Intake(queue, LAYOUT)
    found = [intake.claim("w", 1, 30, alone=True) for _ in range(3)]
    assert [one.more for one in found] == [True, True, False]
    assert [claim.key for one in found for claim in one.claims] == ["as/A/wanted"]


def test_a_queue_of_the_older_code_is_drained(queue: JobQueue) -> None:
    """Its own lanes hold JSON, its entries count ``recoveries``, its retries have a lane."""
    client, p = queue.client, queue.prefix
    now = int(time.time() * 1000)
    places = {"public": TODO, "stale": f"{p}lane:stale", "retry": f"{p}lane:retry"}
    lanes = [*places, "stale", "retry"]
    for number, lane in enumerate(lanes):
        key, job_id = f"as/A/{number}", f"{number:016x}"
        if number == 3:
            key = 'as/A/"quoted"'
        line = line_of_job(LAYOUT, Kind.EMBED, key, job_id)
        fields = {"state": "queued", "id": job_id, "payload": line, "lane": lane, "stamp": "s"}
        client.hset(f"{p}job:{key}", mapping={**fields, "force": "0", "recoveries": "2"})
        client.zadd(f"{p}queued", {key: now})
        client.rpush(places[lane], line)
        if lane != "public":
            client.zadd(f"{p}lanes", {lane: 0})
    # One is leased by a worker that has gone, one of another producer as well.
    for key in ("as/A/leased", "foreign:" + "0" * 40):
        line = json.dumps(paths("as/A/foreign"))
        fields = {"state": "leased", "id": "f" * 16, "payload": line, "lane": "stale"}
        client.hset(f"{p}job:{key}", mapping={**fields, "token": "t", "worker": "w"})
        client.zadd(f"{p}leases", {key: now - 1})
    assert len(queue.reap(retry_seconds=0)) == 2
    claims = settle(queue)
    numbers = [f"as/A/{number}" for number in (0, 1, 2, 4)]
    wanted = [*numbers, 'as/A/"quoted"', "as/A/leased", "as/A/foreign"]
    assert sorted(claim.key for claim in claims) == sorted(wanted)
    assert all(acknowledge(queue, claim) for claim in claims)
    assert client.keys("*job:*") == []


def test_lists_that_only_our_workers_read_hold_no_json(queue: JobQueue) -> None:
    queue.enqueue([Job(Kind.EMBED, "as/A/1", "s")], LAYOUT, lane=Lane.STALE)
    (line,) = queue.client.lrange(f"{queue.prefix}lane:stale", 0, -1)
    assert line.endswith(" as/A/1")
    assert len(line) == 16 + len(" as/A/1")


def test_what_is_malformed_can_be_retried_and_purged(queue: JobQueue) -> None:
    queue.client.rpush(TODO, "rubbish")
    settle(queue)
    assert queue.retry(queue.dead_keys()) == 1
    assert queue.client.lrange(TODO, 0, -1) == ["rubbish"]
    settle(queue)
    assert queue.purge(queue.dead_keys()) == 1
    assert repush(queue, {}) == 0


def test_an_outage_between_claim_and_adoption_loses_no_claim(
    valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two jobs of ours, and a line of another producer before them
    layout = Layout.of(tmp_path)
    queue = JobQueue(connect(Settings(redis_url=valkey_url)), Kind.EMBED)
    paths = {"input_path": layout.chains / "as/A/c_9.parquet"}
    paths["output_path"] = layout.embeddings / "as/A/c_9.parquet"
    line = json.dumps({name: str(path) for name, path in paths.items()})
    queue.client.rpush(queue.public, line)
    queue.enqueue([Job(Kind.EMBED, f"as/A/c_{number}", "s") for number in range(2)], layout)
    intake, adopt = Intake(queue, layout), queue.adopt

    def away(*_: object, **__: object) -> None:
        raise QueueUnavailableError("gone for a moment")

    # If Redis is away after the jobs are leased, while the line is adopted
    monkeypatch.setattr(queue, "adopt", away)
    with pytest.raises(QueueUnavailableError):
        intake.claim("w", 3, 30, alone=False)
    # Then the next call finds all three
    monkeypatch.setattr(queue, "adopt", adopt)
    claimed = intake.claim("w", 3, 30, alone=False)
    assert {claim.key for claim in claimed.claims} == {f"as/A/c_{n}" for n in (0, 1, 9)}
