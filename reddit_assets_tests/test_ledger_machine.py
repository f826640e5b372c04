"""Any sequence of steps against a real server: no job is lost, doubled or brought back."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import Failure
from reddit_assets.ledger import waiters as runs
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Claim, Job, Kind, Lane, Result
from reddit_assets.ledger.outbox import Outbox
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.local.servers import ValkeyServer
from reddit_assets.settings import Settings
from reddit_assets_tests.factories import ALL_SERVERS, claim_jobs

LAYOUT = Layout.of(Path("/data"))
KEYS = [f"as/A/{number}" for number in range(4)]
RUNS = ["one", "two"]


class QueueMachine(RuleBasedStateMachine):
    """The queue beside a model of what everybody wants.

    The model keeps, per key, whether the scan still waits and which runs do. What the queue says
    of a key must follow from it: a wanted key is in exactly one place, an unwanted one in none.
    """

    server: ValkeyServer
    claims: Bundle = Bundle("claims")

    @initialize()
    def empty(self) -> None:
        self.client = connect(Settings(redis_url=self.server.url))
        self.client.flushall()
        self.queue = JobQueue(self.client, Kind.EMBED)
        self.outbox = Outbox(self.queue, "reporter", takeover_seconds=0)
        self.done_tokens: set[str] = set()
        self.open: set[str] = set()
        self.owed: dict[str, set[str]] = {run: set() for run in RUNS}
        self.scan_wants: set[str] = set()
        self.stamp = 0
        self.reported: list[str] = []
        self.crashes: dict[str, int] = dict.fromkeys(KEYS, 0)

    # --- wishes --------------------------------------------------------------------------
    @rule(
        keys=st.sets(st.sampled_from(KEYS), min_size=1),
        lane=st.sampled_from([Lane.PUBLIC, Lane.STALE]),
        urgent=st.booleans(),
    )
    def scan(self, keys: set[str], lane: Lane, urgent: bool) -> None:
        dead = self.queue.dead_keys()
        jobs = [Job(Kind.EMBED, key, "s") for key in sorted(keys)]
        self.queue.enqueue(jobs, LAYOUT, lane=lane, urgent=urgent)
        self.scan_wants |= {key for key in keys if key not in dead}

    @rule(key=st.sampled_from(KEYS))
    def source_changes(self, key: str) -> None:
        self.stamp += 1
        self.queue.enqueue([Job(Kind.EMBED, key, f"s{self.stamp}")], LAYOUT, lane=Lane.STALE)
        self.scan_wants.add(key)

    @rule(
        run=st.sampled_from(RUNS),
        keys=st.sets(st.sampled_from(KEYS), min_size=1),
        force=st.booleans(),
    )
    def run_wants(self, run: str, keys: set[str], force: bool) -> None:
        runs.open_run(self.queue, run, 3600)
        self.open.add(run)
        jobs = [Job(Kind.EMBED, key, "s", force=force) for key in sorted(keys)]
        self.queue.enqueue(jobs, LAYOUT, run=run)
        self.owed[run] |= keys

    @rule(run=st.sampled_from(RUNS))
    def run_is_cancelled(self, run: str) -> None:
        runs.withdraw(self.queue, run)
        self.open.discard(run)
        self.owed[run] = set()
        for key in KEYS:
            if not self.client.exists(f"{self.queue.prefix}job:{key}"):
                self.crashes[key] = 0

    # --- workers -------------------------------------------------------------------------
    @rule(target=claims, count=st.integers(1, 3), alone=st.booleans())
    def claim(self, count: int, alone: bool):
        found = claim_jobs(self.queue, "w", count, 3600, alone=alone) or []
        if any(claim.suspect for claim in found):
            assert alone, "a suspect came to a worker that is busy"
            assert len(found) == 1, "a suspect came with others"
        for claim in found:
            assert claim.crashes == self.crashes[claim.key], "crashes were forgotten or made up"
        return multiple(*found)

    @rule(claim=claims, started=st.booleans())
    def renew(self, claim: Claim, started: bool) -> None:
        lost = self.queue.renew("w", [(claim, started)], 3600)
        if claim.token in self.done_tokens:
            assert lost == {claim.token}, "a token that has ended holds again"

    @rule(claim=consumes(claims))
    def acknowledge(self, claim: Claim) -> None:
        held = self.holds(claim)
        done = self.queue.acknowledge(claim, Result(claim.token, "embeddings", claim.key))
        assert done == held
        if held:
            self.crashes[claim.key] = 0
        assert not (done and claim.token in self.done_tokens), "acknowledged twice"
        self.done_tokens.add(claim.token)

    @rule(claim=consumes(claims), permanent=st.booleans())
    def fail(self, claim: Claim, permanent: bool) -> None:
        held = self.holds(claim)
        outcome = self.queue.fail(
            claim, Failure("broken", permanent=permanent), max_attempts=2, retry_seconds=0
        )
        assert (outcome != "lost") == held
        if outcome == "dead":
            self.crashes[claim.key] = 0
        self.done_tokens.add(claim.token)

    @rule(claim=consumes(claims))
    def release(self, claim: Claim) -> None:
        assert self.queue.release([claim]) == self.holds_before(claim)
        self.done_tokens.add(claim.token)

    @rule(claim=consumes(claims))
    def process_dies_with_one(self, claim: Claim) -> None:
        held, crashes = self.holds(claim), self.crashes[claim.key] + 1
        outcomes = self.queue.crashed([(claim, True)], Failure("died"), max_crashes=3)
        wanted = "lost" if not held else "dead" if crashes == 3 else "suspect"
        assert outcomes == {claim.token: wanted}, "wanted again or not, the third crash ends it"
        if held:
            self.crashes[claim.key] = crashes % 3
        self.done_tokens.add(claim.token)

    @rule(times=st.integers(1, 3), wanted_again=st.booleans())
    def next_job_kills_its_process_again_and_again(self, times: int, wanted_again: bool) -> None:
        for _ in range(times):
            for claim in claim_jobs(self.queue, "w", 1, 3600, alone=True) or []:
                assert claim.crashes == self.crashes[claim.key]
                if wanted_again:
                    self.source_changes(claim.key)
                self.process_dies_with_one(claim)

    @rule(first=consumes(claims), second=consumes(claims), started=st.booleans())
    def process_dies_with_two(self, first: Claim, second: Claim, started: bool) -> None:
        held = [self.holds(claim) for claim in (first, second)]
        both = [(first, True), (second, started)]
        if started:
            outcomes = self.queue.crashed(both, Failure("died"), max_crashes=1)
            wanted = ["suspect" if one else "lost" for one in held]
            assert [outcomes[claim.token] for claim, _ in both] == wanted, "nobody is blamed"
        else:
            outcomes = self.queue.crashed([(second, False)], Failure("died"), max_crashes=1)
            assert outcomes == {second.token: "queued" if held[1] else "lost"}
            self.queue.release([first])
        self.done_tokens |= {first.token, second.token}

    @rule(claim=claims)
    def lease_expires(self, claim: Claim) -> None:
        """The worker is silent for too long; it may wake up later: the claim stays in hand."""
        self.queue.renew("w", [(claim, True)], 0)
        dead = self.queue.dead_keys()
        self.queue.reap(retry_seconds=0)
        assert self.queue.dead_keys() == dead, "a worker that vanished makes no dead letter"
        self.done_tokens.add(claim.token)

    @rule()
    def reap(self) -> None:
        self.queue.reap(retry_seconds=0)

    # --- operators and faults ------------------------------------------------------------
    @rule()
    def retry(self) -> None:
        keys = self.queue.dead_keys()
        assert self.queue.retry(keys) == len(keys)
        self.scan_wants |= keys

    @rule()
    def purge(self) -> None:
        keys = self.queue.dead_keys()
        assert self.queue.purge(keys) == len(keys)

    @rule()
    def server_restarts(self) -> None:
        """It forgets its memory and reads its append-only file, as after a restart."""
        self.client.execute_command("DEBUG", "LOADAOF")

    @rule()
    def report(self) -> None:
        entries = self.outbox.take(100)
        self.reported += [entry.result.job for entry in entries]
        self.outbox.done([entry.entry for entry in entries])

    # --- what must hold ------------------------------------------------------------------
    def holds(self, claim: Claim) -> bool:
        entry = self.client.hgetall(f"{self.queue.prefix}job:{claim.key}")
        return entry.get("state") == "leased" and entry.get("token") == claim.token

    def holds_before(self, claim: Claim) -> int:
        return 0 if claim.token in self.done_tokens else 1

    @invariant()
    def every_job_is_in_exactly_one_place(self) -> None:
        p = self.queue.prefix
        places = {
            name: set(self.client.zrange(p + name, 0, -1))
            for name in ("queued", "delayed", "leases", "dead")
        }
        entries = {
            name.removeprefix(f"{p}job:")
            for name in self.client.keys(f"{p}job:*".replace("{", "\\{"))
        }
        everywhere = [key for keys in places.values() for key in keys]
        assert sorted(everywhere) == sorted(entries), "a key is in two places, or in none"
        for name, state in (
            ("queued", "queued"),
            ("delayed", "delayed"),
            ("leases", "leased"),
            ("dead", "dead"),
        ):
            for key in places[name]:
                assert self.client.hget(f"{p}job:{key}", "state") == state

    @invariant()
    def every_queued_job_has_its_current_copy_in_its_lane_once(self) -> None:
        p = self.queue.prefix
        for key in self.client.zrange(f"{p}queued", 0, -1):
            lane, job_id = self.client.hmget(f"{p}job:{key}", "lane", "id")
            name = self.queue.public if lane == "public" else f"{p}lane:{lane}"
            copies = [c for c in self.client.lrange(name, 0, -1) if job_id in c]
            assert len(copies) == 1, f"{key} has {len(copies)} copies in {lane}"
            if lane != "public":
                assert self.client.zscore(f"{p}lanes", lane) is not None, "nobody looks there"

    @invariant()
    def suspects_wait_to_run_alone_and_wishes_are_only_with_the_leased(self) -> None:
        p = self.queue.prefix
        for key in self.client.zrange(f"{p}queued", 0, -1):
            entry = self.client.hgetall(f"{p}job:{key}")
            assert (entry["lane"] == "alone") == (entry.get("suspect") == "1")
            assert "next_id" not in entry

    @invariant()
    def what_an_open_run_waits_for_is_coming_or_has_come(self) -> None:
        p = self.queue.prefix
        for run in self.open:
            waiting = self.client.smembers(f"{p}run:{run}")
            come = {
                result.partition for _, result in runs.collect(self.queue, run, block_seconds=0)
            }
            assert self.owed[run] <= waiting | come
            for key in waiting:
                entry = self.client.hgetall(f"{p}job:{key}")
                assert run in (entry.get("runs", "") + entry.get("next_runs", "")).split(), (
                    f"{run} waits for {key}, and nobody knows"
                )

    @invariant()
    def no_job_is_reported_twice(self) -> None:
        assert len(self.reported) == len(set(self.reported))


@ALL_SERVERS
def test_the_queue_keeps_its_promises(own_valkey) -> None:
    class Machine(QueueMachine):
        server = own_valkey(appendonly="yes", enable_debug_command="local")

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )
