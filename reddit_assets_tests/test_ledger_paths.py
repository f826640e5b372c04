"""Jobs of producers that know the trees by other roots."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import ElsewhereError, SettingsError
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.intake import Intake, key_of_job
from reddit_assets.ledger.job import Job, Kind
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.settings import Settings
from reddit_assets_tests.factories import ALL_SERVERS, write_chain

TODO = "phase4_todo_queue"


def job_of(root: str | Path, key: str) -> dict[str, object]:
    """A job as the earlier system's producers push it."""
    return {
        "input_path": f"{root}/chains/{key}.parquet",
        "output_path": f"{root}/embeddings/{key}.parquet",
    }


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout.of(tmp_path / "real")
    write_chain(layout, "as/A/c")
    layout.subreddit_path("as/A").mkdir(parents=True)
    return layout


def test_a_root_that_is_a_link_and_its_target_are_the_same(layout: Layout, tmp_path: Path) -> None:
    # Given one host's root that is a link to another's, If jobs are pushed with either
    link, real = tmp_path / "link", tmp_path / "real"
    link.symlink_to(real)
    for ours, theirs in ((link, real), (real, link)):
        # Then they are understood, also those of files that are not there (the task says so)
        for key in ("as/A/c", "as/A/missing", "flat/c"):
            assert key_of_job(Layout.of(ours), Kind.EMBED, job_of(theirs, key)) == key
        job = {"subreddit_path": f"{theirs}/embeddings/as/A"}
        assert key_of_job(Layout.of(ours), Kind.CLUSTER, job) == "as/A"


def test_a_foreign_path_means_the_file_of_the_same_last_parts(layout: Layout) -> None:
    # Given jobs of another root, If the files are here, Then they are meant
    assert key_of_job(layout, Kind.EMBED, job_of("/Volumes/data", "as/A/c")) == "as/A/c"
    cluster = {"subreddit_path": "/Volumes/data/embeddings/as/A"}
    assert key_of_job(layout, Kind.CLUSTER, cluster) == "as/A"
    # If they are not, or lie in no such tree, Then the job is refused with what to do
    for job in (job_of("/Volumes/data", "as/A/missing"), job_of("/Volumes/data/more", "as/B/c")):
        with pytest.raises(ElsewhereError, match="no such file is here") as caught:
            key_of_job(layout, Kind.EMBED, job)
        assert "REDDIT_PATH_PREFIXES=" in caught.value.hint
    with pytest.raises(ElsewhereError):
        key_of_job(layout, Kind.CLUSTER, {"subreddit_path": "/Volumes/data/embeddings/as/B"})


def test_a_setting_names_other_hosts_roots(layout: Layout, tmp_path: Path) -> None:
    # Given a tree that another host knows by two names, one below the other
    text = f"/Volumes/data={tmp_path}/wrong, /Volumes/data/reddit/ = {tmp_path}/real"
    prefixes = text.replace(" = ", "=")
    layout = Layout.from_settings(Settings(root=layout.chains.parent, path_prefixes=prefixes))
    # If its jobs come, Then they mean files here, whether or not these exist
    for key in ("as/A/c", "as/A/missing"):
        assert key_of_job(layout, Kind.EMBED, job_of("/Volumes/data/reddit", key)) == key
    # If the setting is wrong, Then that is said
    for wrong in ("/Volumes/data", "/a=b", "=/b"):
        with pytest.raises(SettingsError, match="REDDIT_PATH_PREFIXES"):
            Layout.from_settings(Settings(root=tmp_path, path_prefixes=wrong))


@ALL_SERVERS
def test_own_files_behind_a_leftover_queue_are_done_within_seconds(
    layout: Layout, valkey_url: str
) -> None:
    # Given 3,000 jobs of other roots that were left in the list, and six files of ours behind them
    queue = JobQueue(connect(Settings(redis_url=valkey_url)), Kind.EMBED)
    left = [job_of("/Volumes/data", f"zz/Gone/c_{number}") for number in range(2990)]
    left += [job_of("/mnt/old", f"zz/Gone/c_{number}") for number in range(10)]
    queue.client.rpush(TODO, *(json.dumps(job) for job in left))
    keys = [f"as/A/own_{number}" for number in range(6)]
    for key in keys:
        write_chain(layout, key)
    queue.enqueue([Job(Kind.EMBED, key, "s") for key in keys], layout)
    # If a worker starts
    environment = {"REDDIT_ROOT": str(layout.chains.parent), "REDIS_URL": valkey_url}
    command = [sys.executable, str(Path(__file__).parent / "hash_task.py"), "--until-empty"]
    worker = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        while queue.counts().public == len(left) + len(keys):
            time.sleep(0.05)
        started = time.monotonic()
        assert worker.wait(90) == 0
    finally:
        worker.kill()
    # Then all are done in seconds, not at two lines per poll (0.5 s)
    assert time.monotonic() - started < 60
    assert all(layout.embedding_path(key).exists() for key in keys)
    # and each producer is one dead letter, which counts its jobs and says what to do
    letters = queue.dead_letters()
    assert sorted(letter.lines for letter in letters) == [10, 2990]
    assert letters[0].error.startswith("2,990 jobs like this: The job's input_path lies below")
    assert letters[0].payload.count("\n") == 2, "three examples"
    assert 'REDDIT_PATH_PREFIXES="/Volumes/data=' in letters[0].hint
    # If they are tried again, Then no line is lost
    assert queue.retry(queue.dead_keys()) == 2
    assert queue.client.llen(TODO) == 3000
    assert queue.client.keys("*refused*") == []


def test_what_is_purged_leaves_nothing(layout: Layout, valkey_url: str) -> None:
    # Given jobs of another root that became a dead letter, If it is purged, Then no line stays
    queue = JobQueue(connect(Settings(redis_url=valkey_url)), Kind.CLUSTER)
    for name in ("A", "B", "C", "D"):
        job = {"subreddit_path": f"/Volumes/data/embeddings/zz/{name}"}
        queue.client.rpush("phase4_cluster_queue", json.dumps(job))
    claimed = Intake(queue, layout).claim("w", 9, 30, alone=True)
    assert (claimed.claims, claimed.more) == ([], True)
    (letter,) = queue.dead_letters()
    assert (letter.lines, letter.payload.count("\n")) == (4, 2)
    assert queue.purge([letter.key]) == 1
    assert queue.client.keys("*refused*") + queue.client.keys("*job:*") == []
