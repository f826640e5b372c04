"""`reconcile` mends a system with one difference of each kind, and then finds nothing."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from dagster import DagsterInstance

from reddit_assets.cli.app import run
from reddit_assets.errors import Failure
from reddit_assets.ledger.job import Job, Kind, Result
from reddit_assets.ledger.mending import Difference
from reddit_assets.ledger.outbox import Outbox
from reddit_assets.platform.names import AssetSet
from reddit_assets.platform.reporting import records
from reddit_assets.platform.services.agreement import with_dagster, with_queues
from reddit_assets.workspace import Workspace
from reddit_assets_tests.factories import claim_jobs, write_chain, write_embedding

ASSETS = AssetSet()


def key(name: str) -> str:
    return f"as/Tea/{name}"


def old_embedding(workspace: Workspace, name: str) -> None:
    write_chain(workspace.layout, key(name))
    path = write_embedding(workspace.layout, key(name))
    os.utime(path, (time.time() - 600,) * 2)


def agree(workspace: Workspace, instance: DagsterInstance, *, dry_run: bool) -> dict[str, set[str]]:
    """By what is said: the keys."""
    statuses: list = []
    found: list[Difference] = [*with_queues(workspace, statuses, dry_run=dry_run)]
    found += with_dagster(workspace, instance, statuses, dry_run=dry_run)
    return {f"{one.where}: {one.said}": set(one.keys) for one in found}


def break_everything(workspace: Workspace, instance: DagsterInstance) -> dict[str, set[str]]:
    """One difference of each kind; what should be said of each."""
    layout, queue = workspace.layout, workspace.queues[Kind.EMBED]
    client, prefix = queue.client, queue.prefix
    for name in ("missing", "lost", "expired", "due", "nowhere"):
        write_chain(layout, key(name))
    stamps = {f.key: str(f.stamp) for f in workspace.scanner().subreddit("as/Tea").files}
    jobs = {
        name: Job(Kind.EMBED, key(name), stamps[key(name)])
        for name in ("lost", "expired", "due", "nowhere")
    }
    # A lease that nobody took back, and a wait that is over
    queue.enqueue([jobs["expired"], jobs["due"]], layout)
    claims = {claim.key: claim for claim in claim_jobs(queue, "w", 2, 60) or []}
    client.zadd(f"{prefix}leases", {key("expired"): 1})
    queue.fail(claims[key("due")], Failure("no"), max_attempts=9, retry_seconds=60)
    client.zadd(f"{prefix}delayed", {key("due"): 1})
    # A lane that somebody deleted, and an entry that is in no set
    queue.enqueue([jobs["lost"]], layout, lane="stale")
    client.delete(f"{prefix}lane:stale")
    queue.enqueue([jobs["nowhere"]], layout)
    client.zrem(f"{prefix}queued", key("nowhere"))
    # A member without an entry
    client.zadd(f"{prefix}dead", {key("ghost"): 1})
    # A job whose output is there by now, and one whose input is gone; a dead letter of one gone
    old_embedding(workspace, "made")
    queue.enqueue(
        [Job(Kind.EMBED, key("made"), "1-1"), Job(Kind.EMBED, key("gone"), "1-1")], layout
    )
    queue.enqueue([Job(Kind.EMBED, key("buried"), "1-1")], layout, urgent=True)
    (claim,) = claim_jobs(queue, "w", 1, 60) or []
    queue.fail(claim, Failure("no", permanent=True), max_attempts=1, retry_seconds=1)
    # A result in the outbox, an output that Dagster does not have, a partition of a vanished file
    old_embedding(workspace, "reported")
    result = Result("j", "embeddings", key("reported"), data_version="v")
    Outbox(queue, "r").put([result])
    instance.add_dynamic_partitions(ASSETS.files.name or "", [key("vanished")])
    files = {key(n) for n in ("missing", "lost", "expired", "due", "nowhere", "made", "reported")}
    return {
        "embed: entries that are not where their state says": {key("nowhere"), key("ghost")},
        "embed: leases that ran out and nobody took back": {key("expired")},
        "embed: jobs whose wait is over and nobody queued": {key("due")},
        "embed: jobs whose outputs are there or whose inputs are gone": {key("made"), key("gone")},
        "embed: queued jobs whose copies are in no list": {key("lost")},
        "embed: dead letters that no longer matter": {key("buried")},
        "embed: outputs that are missing or stale and were not queued": {""},
        "dagster: results in the outbox": {""},
        "dagster: files and subreddits without a partition": {"as/Tea", *files},
        "dagster: partitions of vanished files": {key("vanished")},
        "dagster: outputs whose versions Dagster does not have": {key("made")},
    }


def test_reconcile_mends_one_difference_of_each_kind(
    workspace: Workspace, instance: DagsterInstance
) -> None:
    assert agree(workspace, instance, dry_run=False) == {}
    # Given one difference of each kind
    expected = break_everything(workspace, instance)
    # If they are only looked at
    seen = agree(workspace, instance, dry_run=True)
    # Then each is found, and nothing has changed
    assert seen.keys() == expected.keys()
    for said, keys in expected.items():
        assert seen[said] == keys, said
    assert agree(workspace, instance, dry_run=True) == seen
    # If they are mended, then all is found again (what is mended first may queue the rest)
    mended = agree(workspace, instance, dry_run=False)
    assert mended.keys() == expected.keys()
    # Then nothing is left, and everything is where it belongs
    assert agree(workspace, instance, dry_run=False) == {}
    queue = workspace.queues[Kind.EMBED]
    counts = queue.counts()
    assert (counts.queued, counts.delayed, counts.leased, counts.dead, counts.outbox) == (
        5,
        0,
        0,
        0,
        0,
    )
    claimed = {claim.key for claim in claim_jobs(queue, "w2", 9, 60) or []}
    # The one whose lease expired was not started: it is in its own lane again
    assert claimed == {key(n) for n in ("missing", "lost", "expired", "due", "nowhere")}
    versions = records.latest_versions(instance, ASSETS.embeddings, [key("made"), key("reported")])
    assert versions.keys() == {key("made"), key("reported")}
    partitions = set(instance.get_dynamic_partitions(ASSETS.files.name or ""))
    assert key("vanished") not in partitions
    assert key("missing") in partitions


def test_the_command_says_what_it_would_do_and_ends_with_a_status(
    workspace: Workspace,
    valkey_url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    write_chain(workspace.layout, key("c_1"))
    monkeypatch.setenv("REDDIT_SETTLE_SECONDS", "0")
    command = ["reconcile", "--root", str(tmp_path), "--redis-url", valkey_url]
    assert run([*command, "--dry-run"]) == 1
    output = capsys.readouterr()
    assert (
        "embed: 1 outputs that are missing or stale and were not queued: would be queued "
        "(as/Tea/c_1)" in output.out
    )
    assert "Dagster is left out. DAGSTER_HOME is not set" in output.err
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["keys"] == [key("c_1")]
    assert run(command) == 0
    assert capsys.readouterr().out == "Everything agrees.\n"
