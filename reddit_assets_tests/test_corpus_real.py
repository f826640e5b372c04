"""What a quick look says of files that the real embedding pipeline made, and what comes of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from dagster import DagsterInstance
from factories import write_chain

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.provenance import ModelIdentity
from reddit_assets.corpus.scan import Verdict
from reddit_assets.corpus.wanted import set_wanted_model
from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.planner import ScanReport, queue_wanted
from reddit_assets.platform.resources import Platform
from reddit_assets.settings import Settings
from reddit_assets.workspace import Workspace

TEXTS = ["How do I keep basil alive through the winter?", "", "Warum ist der Himmel blau?"]
KEYS = [f"as/A/c_{number}" for number in range(3)]


def embed(workspace: Workspace, **environment: str) -> str:
    """Queue what is wanted, and let a worker with the real engine do it."""
    queue_wanted(workspace.scanner(), workspace.queues, kinds=(Kind.EMBED,))
    arguments = ["worker", "--until-empty", "--kind", "embed", "--backend", "onnx"]
    done = subprocess.run(
        [sys.executable, "-m", "reddit_assets.cli", *arguments],
        env={
            **os.environ,
            "REDIS_URL": workspace.settings.require_redis_url(),
            "REDDIT_ROOT": str(workspace.settings.root),
            "REDDIT_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def look(workspace: Workspace) -> tuple[ScanReport, dict[str, Verdict]]:
    """A quick look as a sensor takes it, without queueing: what it finds."""
    seen: list = []
    report = queue_wanted(workspace.scanner(), {}, dry_run=True, observe=seen)
    return report, {file.key: file.verdict for status in seen for file in status.files}


@pytest.mark.slow
def test_a_quick_look_knows_other_models_backends_and_the_earlier_system(
    tmp_path: Path, valkey_url: str
) -> None:
    # Given three files: one embedded in fp32, one in int8, one of the earlier system
    layout = Layout.of(tmp_path)
    settings = Settings(root=tmp_path, redis_url=valkey_url, settle_seconds=0)
    workspace = Workspace.load(settings)
    write_chain(layout, KEYS[0], TEXTS)
    embed(workspace)
    write_chain(layout, KEYS[1], TEXTS)
    embed(workspace, REDDIT_PRECISION="int8", REDDIT_ALLOW_NONCONFORMANT="true")
    write_chain(layout, KEYS[2], TEXTS)
    table = pq.read_table(layout.embedding_path(KEYS[0])).replace_schema_metadata(None)
    pq.write_table(table, layout.embedding_path(KEYS[2]))

    # Then inexact vectors are stale, and the earlier system's file is known as such
    fresh, stale, adopted = Verdict.FRESH, Verdict.STALE, Verdict.ADOPTED
    assert look(workspace)[1] == dict(zip(KEYS, (fresh, stale, adopted), strict=True))
    # unless a setting accepts them,
    lax = Workspace.load(settings.model_copy(update={"allow_nonconformant": True}))
    assert look(lax)[1] == dict(zip(KEYS, (fresh, fresh, adopted), strict=True))
    # and REDDIT_ADOPT decides about the earlier system's.
    strict = Workspace.load(settings.model_copy(update={"adopt": False}))
    assert look(strict)[1] == dict(zip(KEYS, (fresh, stale, stale), strict=True))

    # If a worker takes what is queued now, Then all are made again, and all is fresh
    embed(strict, REDDIT_ADOPT="false")
    assert look(strict)[1] == dict.fromkeys(KEYS, fresh)

    # If another model is wanted, and a worker with this one writes its files after that
    other = ModelIdentity(
        name="other", fingerprint="0" * 32, dimension=384, max_tokens=256, pooling="mean"
    )
    set_wanted_model(layout, other)
    for key in KEYS:
        os.utime(layout.embedding_path(key), (time.time() + 60, time.time() + 60))
    # Then none of them is fresh, and no cluster is made of them
    report, verdicts = look(workspace)
    assert verdicts == dict.fromkeys(KEYS, stale)
    assert report.clusters == {Verdict.WAITING: 1}
    assert report.reasons[KEYS[0]] == "was made with another model: all-MiniLM-L6-v2"


@pytest.mark.slow
def test_the_nightly_removes_nothing_but_our_temporary_files(
    tmp_path: Path, valkey_url: str
) -> None:
    # Given a tree of real files with old .tmp files of all kinds in all three trees
    layout = Layout.of(tmp_path)
    write_chain(layout, KEYS[0], TEXTS)
    workspace = Workspace.load(Settings(root=tmp_path, redis_url=valkey_url, settle_seconds=0))
    embed(workspace)
    ours = ["c_0.parquet.0123456789abcdef.tmp", "c_0.parquet.tmp"]
    foreign = ["notes.tmp", "c_0.parquet.part.tmp", "c_0.csv.tmp"]
    gone, kept = [], []
    for root in (layout.chains, layout.embeddings, layout.clusters):
        for name in [*ours, *foreign]:
            path = root / "as/A" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"?")
            (gone if name in ours and root != layout.chains else kept).append(path)
    young = layout.embeddings / "as/A/c_1.parquet.0123456789abcdef.tmp"
    statement = layout.embeddings / ".model.json.0123456789abcdef.tmp"
    statement.write_bytes(b"?")
    gone.append(statement)
    for path in [*gone, *kept]:
        os.utime(path, (time.time() - 200_000, time.time() - 200_000))
    young.write_bytes(b"?")
    kept.append(young)
    # If the nightly rescan runs
    with DagsterInstance.ephemeral() as instance:
        found = Platform(workspace).rescan.run(instance, lambda sentence: None)
    # Then our old ones below embeddings/ and clusters/ are gone, and nothing else is
    assert set(found.removed) == set(gone)
    assert [path for path in gone if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []
    assert layout.chain_path(KEYS[0]).exists()
    assert layout.embedding_path(KEYS[0]).exists()
