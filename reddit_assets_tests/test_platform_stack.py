"""Webserver, daemon, Valkey, Postgres and a fake worker: what people see and steer in Dagster."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

import pytest

from reddit_assets.corpus.wanted import set_wanted_model
from reddit_assets.ledger.job import Kind
from reddit_assets.local.servers import PostgresServer
from reddit_assets_tests.factories import claim_jobs
from reddit_assets_tests.platform_stack import Live, Stack, running, wait_for
from reddit_assets_tests.platform_worker import MODEL, age, write_chain

TEA = [f"as/Tea/c_{i}" for i in range(3)]
JAM = [f"as/Jam/c_{i}" for i in range(3)]
BOOKS = [f"bo/Bücher 2/c_{i:02}" for i in range(20)]
LOT = [f"bo/Lot/c_{i:02}" for i in range(50)]
ALL = [*JAM, *TEA, *BOOKS, *LOT]


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer
) -> Iterator[Live]:
    with running(tmp_path_factory.mktemp("stack"), postgres_server, ALL) as live:
        yield live


def test_files_become_partitions_and_outputs_in_all_three_assets(live: Live) -> None:
    # Given chain files and running sensors. If nobody does anything:
    stack = live.stack
    wait_for(lambda: stack.counts("clusters") == (4, 4), 90, "all clusters are materialized")
    # Then every partition of every asset is materialized and fresh, once,
    assert stack.counts("chains") == (76, 76)
    assert stack.counts("embeddings") == (76, 76)
    for asset, key in (("chains", TEA[0]), ("embeddings", TEA[0]), ("clusters", "as/Tea")):
        assert len(stack.events(asset, key)) == 1
        assert stack.stale(asset, key) == ("FRESH", [])
    # the page knows how files map to subreddits,
    found = stack.gql(
        "query($k: [AssetKeyInput!]!) { assetNodes(assetKeys: $k) { dependencies {"
        " asset { assetKey { path } } partitionMapping { className } } } }",
        k=[{"path": ["clusters"]}],
    )["assetNodes"][0]["dependencies"]
    mappings = {d["asset"]["assetKey"]["path"][0]: d["partitionMapping"] for d in found}
    assert mappings["embeddings"]["className"] == "FileToSubredditMapping"
    # and the events tell from what they were made.
    event = stack.events("embeddings", TEA[0])[0]
    tags = {tag["key"]: tag["value"] for tag in event["tags"]}
    assert tags["dagster/input_data_version/model"] == MODEL.fingerprint
    assert tags["dagster/input_event_pointer/chains"].isdigit()
    labels = {entry["label"] for entry in event["metadataEntries"]}
    assert {"rows", "tokens", "rows/s", "backend", "host", "path", "job_id"} <= labels


def test_changes_are_recomputed_alone_and_the_page_agrees(live: Live) -> None:
    stack, worker = live.stack, live.worker
    live.settle()
    # Given a changed file, a new file and nobody working:
    worker.hold.set()
    before = len(worker.done)
    write_chain(stack.layout, TEA[1], salt="changed", seconds=2.0)
    write_chain(stack.layout, "as/Jam/c_3")
    age(stack.layout.embedding_path(TEA[1]), 60)
    # Then the page shows the changed file's embedding as stale, the others not.
    wait_for(lambda: stack.stale("embeddings", TEA[1])[0] == "STALE", 30, "the change shows")
    assert stack.stale("embeddings", TEA[1])[1] == ["has a new data version"]
    assert stack.stale("embeddings", TEA[0])[0] == "FRESH"
    # If workers go on, then exactly those files and their subreddits are done again.
    worker.hold.clear()
    wait_for(lambda: stack.counts("embeddings") == (77, 77), 30, "the new file is embedded")
    live.settle()
    assert sorted(key for kind, key in worker.done[before:] if kind is Kind.EMBED) == [
        "as/Jam/c_3",
        TEA[1],
    ]
    assert sorted({key for kind, key in worker.done[before:] if kind is Kind.CLUSTER}) == [
        "as/Jam",
        "as/Tea",
    ]
    for asset, key in (("embeddings", TEA[1]), ("clusters", "as/Tea"), ("clusters", "as/Jam")):
        assert stack.stale(asset, key) == ("FRESH", [])

    # If another model is wanted, then every embedding is stale until it is made again.
    before = len(worker.done)
    worker.hold.set()
    set_wanted_model(stack.layout, MODEL.model_copy(update={"fingerprint": "m2"}))
    wait_for(lambda: stack.stale("embeddings", TEA[0])[0] == "STALE", 30, "the model shows")
    assert stack.stale("clusters", "as/Tea")[0] == "FRESH"
    worker.hold.clear()
    wait_for(lambda: len(worker.done) >= before + 81, 90, "everything is made again")
    live.settle()
    assert len({key for kind, key in worker.done[before:] if kind is Kind.EMBED}) == 77
    assert stack.stale("embeddings", TEA[0]) == ("FRESH", [])
    assert stack.stale("clusters", "as/Tea") == ("FRESH", [])


def test_a_backfill_names_its_failures_and_can_be_mended(live: Live) -> None:
    stack = live.stack
    # Given one spoilt file among a subreddit's twenty, and a backfill of files and clusters of two:
    spoilt = stack.layout.chain_path(BOOKS[1])
    whole = spoilt.read_bytes()
    spoilt.write_bytes(b"PAR1 nonsense")
    age(spoilt)
    good = stack.backfill_by_assets({"embeddings": TEA, "clusters": ["as/Tea"]})
    checked = stack.backfill(["chains"], JAM)
    bad = stack.backfill(["embeddings"], BOOKS)
    # Then the first succeeds, clusters included,
    ended = stack.wait_backfill(good)
    assert ended["status"] == "COMPLETED_SUCCESS"
    assert {
        (s["assetKey"]["path"][0], s["numPartitionsMaterialized"])
        for s in ended["assetBackfillData"]["assetBackfillStatuses"]
    } == {("embeddings", 3), ("clusters", 1)}
    # its files were made by a conformant backend,
    runs = [run["runId"] for run in ended["runs"]]
    found = stack.check("embeddings", "embeddings_conformant", runs=runs)
    assert found["status"] == "SUCCEEDED"
    assert found["metadata"]["looked at"] == 3
    # so does the check of chain files, with what it saw,
    assert stack.wait_backfill(checked)["status"] == "COMPLETED_SUCCESS"
    event = stack.events("chains", JAM[0])[0]
    assert event["runId"]
    assert {"rows", "size, MB", "text column"} <= {e["label"] for e in event["metadataEntries"]}
    # and the second fails with one partition, named with its reason in the run's error.
    ended = stack.wait_backfill(bad)
    assert ended["status"] == "COMPLETED_FAILED"
    (status,) = ended["assetBackfillData"]["assetBackfillStatuses"]
    assert (status["numPartitionsMaterialized"], status["numPartitionsFailed"]) == (19, 1)
    (run,) = ended["runs"]
    events = stack.gql(
        "query($r: ID!) { logsForRun(runId: $r) { ... on EventConnection { events { __typename"
        " ... on ExecutionStepFailureEvent { error { message } failureMetadata { description } }"
        " } } } }",
        r=run["runId"],
    )["logsForRun"]["events"]
    told = str([e for e in events if e["__typename"] == "ExecutionStepFailureEvent"])
    assert BOOKS[1] in told
    assert "not a whole parquet file" in told
    # The partition's check fails, too.
    wait_for(lambda: _check(stack, BOOKS[1]) == "EXECUTION_FAILED_OR_FAILED", 30, "failed check")
    # If the file is repaired and the partition tried again, then it succeeds and the check heals.
    spoilt.write_bytes(whole)
    age(spoilt)
    assert stack.wait_backfill(stack.backfill(["embeddings"], [BOOKS[1]]))["status"] == (
        "COMPLETED_SUCCESS"
    )
    wait_for(lambda: _check(stack, BOOKS[1]) == "SUCCEEDED", 30, "the check heals")


def _check(stack: Stack, partition: str) -> str | None:
    found = stack.gql(
        "query($k: AssetKeyInput!, $p: String) { assetCheckExecutions(assetKey: $k,"
        ' checkName: "no_dead_letters", limit: 5, partition: $p) { status partition } }',
        k={"path": ["embeddings"]},
        p=partition,
    )["assetCheckExecutions"]
    if not found:
        return None
    return "EXECUTION_FAILED_OR_FAILED" if "FAILED" in found[0]["status"] else found[0]["status"]


def test_scattered_partitions_are_one_run_that_touches_no_other(live: Live) -> None:
    stack = live.stack
    live.settle()
    # Given every third of fifty files, one of them spoilt, and the clusters of two subreddits:
    chosen = LOT[::3]
    spoilt = stack.layout.chain_path(chosen[2])
    whole = spoilt.read_bytes()
    spoilt.write_bytes(b"PAR1 nonsense")
    age(spoilt)
    before = {key: len(stack.events("embeddings", key)) for key in LOT[:8]}
    # If they are made in one backfill:
    ended = stack.wait_backfill(stack.backfill(["embeddings"], chosen))
    # Then one run makes them; the books say what failed, and nothing of what lies between.
    (run,) = ended["runs"]
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    assert tags["reddit_assets/partitions"] == "17 of 49"
    (status,) = ended["assetBackfillData"]["assetBackfillStatuses"]
    counts = [status[f"numPartitions{what}"] for what in ("Targeted", "Materialized", "Failed")]
    assert (ended["status"], counts) == ("COMPLETED_FAILED", [17, 16, 1])
    grown = {key: len(stack.events("embeddings", key)) - before[key] for key in before}
    assert grown == {key: int(key in chosen and key != chosen[2]) for key in before}
    failed = stack.gql(
        "query($k: AssetKeyInput!) { assetNodeOrError(assetKey: $k) { ... on AssetNode {"
        " assetPartitionStatuses { ... on DefaultPartitionStatuses { failedPartitions } } } } }",
        k={"path": ["embeddings"]},
    )["assetNodeOrError"]["assetPartitionStatuses"]["failedPartitions"]
    assert failed == [chosen[2]]
    # If the run is started again when its backfill has ended, then it makes what is left alone.
    spoilt.write_bytes(whole)
    age(spoilt)
    again = stack.gql(
        "mutation($p: ReexecutionParams) { launchRunReexecution(reexecutionParams: $p) {"
        " __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }",
        p={"parentRunId": run["runId"], "strategy": "FROM_FAILURE"},
    )["launchRunReexecution"]
    assert stack.wait_run(again["run"]["runId"]) == "SUCCESS"
    assert stack.events("embeddings", chosen[2])[0]["runId"] == again["run"]["runId"]
    assert stack.events("embeddings", chosen[3])[0]["runId"] == run["runId"]


def test_cancelling_withdraws_what_is_queued(live: Live) -> None:
    stack, worker = live.stack, live.worker
    live.settle()
    # Given a backfill with one of fifty files in work and the rest queued:
    worker.hold.set()
    queue = stack.queues[Kind.EMBED]
    backfill = stack.backfill(["embeddings"], LOT)
    wait_for(lambda: queue.counts().queued == 50, 40, "the jobs are queued")
    (claim,) = claim_jobs(queue, "fake", 1, 60.0) or []
    before = {key: len(stack.events("embeddings", key)) for key in LOT[::7]}
    before[claim.key] = len(stack.events("embeddings", claim.key))
    # If it is cancelled:
    stack.gql(
        "mutation($b: String!) { cancelPartitionBackfill(backfillId: $b) { __typename } }",
        b=backfill,
    )
    # Then nothing is queued a few seconds later,
    wait_for(lambda: queue.counts().queued == 0, 20, "the jobs are withdrawn")
    assert stack.wait_backfill(backfill)["status"] == "CANCELED"
    # and what was being computed is reported without a run.
    worker.work(queue, claim)
    wait_for(
        lambda: len(stack.events("embeddings", claim.key)) == before[claim.key] + 1, 20, "reported"
    )
    assert stack.events("embeddings", claim.key)[0]["runId"] == ""
    assert all(
        len(stack.events("embeddings", key)) == before[key] for key in before if key != claim.key
    )
    worker.hold.clear()


@pytest.mark.parametrize(
    ("dead", "runs_expected"), [(("webserver", "daemon"), 1), ((), 2)], ids=["page", "all"]
)
def test_a_backfill_survives_the_death_of_dagster(
    live: Live, dead: tuple[str, ...], runs_expected: int
) -> None:
    stack, worker = live.stack, live.worker
    live.settle()
    # Given a backfill that has recorded one of three partitions:
    worker.hold.set()
    queue = stack.queues[Kind.EMBED]
    before = len(stack.events("embeddings", JAM[0]))
    backfill = stack.backfill(["embeddings"], JAM)
    wait_for(lambda: queue.counts().queued == 3, 30, "the jobs are queued")
    for claim in claim_jobs(queue, "fake", 1, 60.0) or []:
        worker.work(queue, claim)
    wait_for(lambda: len(stack.events("embeddings", JAM[0])) == before + 1, 20, "one recorded")
    # If webserver and daemon, or everything of Dagster's, are killed and started again:
    stack.kill(*dead)
    stack.start(*dead)
    worker.hold.clear()
    # Then the backfill completes, each partition materialized once in it: by the run itself, a
    # child of the code server, or by a second one that goes on where a dead one ended.
    ended = stack.wait_backfill(backfill)
    assert ended["status"] == "COMPLETED_SUCCESS"
    runs = {run["runId"] for run in ended["runs"]}
    assert len(runs) == runs_expected
    for key in JAM:
        events = [event["runId"] for event in stack.events("embeddings", key)]
        assert sum(run in runs for run in events) == 1


def test_other_clustering_settings_make_all_clusters_stale_and_nothing_else(live: Live) -> None:
    stack, worker = live.stack, live.worker
    live.settle()
    # If Dagster starts with another clustering setting:
    worker.hold.set()
    before = len(worker.done)
    stack.kill()
    stack.env["REDDIT_SEED"] = "7"
    stack.start()
    # Then the page shows every cluster as stale, and no embedding,
    subreddits = ["as/Jam", "as/Tea", "bo/Bücher 2", "bo/Lot"]
    for key in subreddits:
        wait_for(lambda k=key: stack.stale("clusters", k)[0] == "STALE", 40, f"{key} is stale")
    assert {stack.stale("embeddings", key)[0] for key in (*TEA, *JAM)} == {"FRESH"}
    # and workers with that setting make exactly the clusters again.
    worker.settings = worker.settings.model_copy(update={"seed": 7})
    worker.hold.clear()
    wait_for(lambda: len(worker.done) >= before + 4, 40, "the clusters are made")
    live.settle()
    assert sorted(worker.done[before:]) == [(Kind.CLUSTER, key) for key in subreddits]
    for key in subreddits:
        assert stack.stale("clusters", key) == ("FRESH", [])


def test_the_nightly_finds_one_fault_of_each_kind(live: Live) -> None:
    stack, worker = live.stack, live.worker
    live.settle()
    worker.hold.set()
    before = len(worker.done)
    layout = stack.layout
    # Given a truncated and a missing output, an orphan, a temporary file, a vanished file:
    truncated = layout.embedding_path(TEA[0])
    then = truncated.stat().st_mtime
    truncated.write_bytes(truncated.read_bytes()[:200])
    age(truncated, time.time() - then)
    layout.embedding_path(BOOKS[0]).unlink()
    layout.chain_path(BOOKS[2]).unlink()
    partitions = stack.counts("embeddings")[1]
    shutil.copy(
        layout.chain_path(TEA[2]), layout.embeddings / "as/Tea/c_2.parquet.0123456789abcdef.tmp"
    )
    # If the rescan is run by hand:
    done = stack.launch("nightly")
    # Then the overview counts each, and the right work is queued.
    assert done == "SUCCESS"
    found = stack.gql(
        '{ assetOrError(assetKey: {path: ["corpus"]}) { ... on Asset { assetMaterializations('
        "limit: 1) { metadataEntries { label ... on IntMetadataEntry { intValue } } } } } }"
    )["assetOrError"]["assetMaterializations"][0]["metadataEntries"]
    counts = {entry["label"]: entry.get("intValue") for entry in found}
    assert counts["corrupt"] == 1
    assert counts["missing"] == 1
    assert counts["orphans"] == 1
    assert counts["temporary files"] == 1
    assert counts["partitions deleted"] == 1
    # The checks have looked as well, and one has met the truncated file.
    assert stack.check("embeddings", "embeddings_valid")["status"] == "FAILED"
    assert stack.check("clusters", "clusters_healthy")["status"] == "SUCCEEDED"
    assert stack.check("embeddings", "embeddings_conformant")["status"] == "SUCCEEDED"
    assert stack.counts("embeddings")[1] == partitions - 1
    queue = stack.queues[Kind.EMBED]
    held = list(claim_jobs(queue, "fake", 10, 60.0) or [])
    assert sorted(claim.key for claim in held) == [TEA[0], BOOKS[0]]
    queue.release(held)
    worker.hold.clear()
    live.settle()
    # The vanished file's embedding is kept; its cluster is made without it.
    assert layout.embedding_path(BOOKS[2]).exists()
    assert (Kind.CLUSTER, "bo/Bücher 2") in worker.done[before:]
    assert stack.stale("clusters", "bo/Bücher 2") == ("FRESH", [])
