"""Workers with their real engines, as a user starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from factories import write_chain, write_embedding

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.provenance import read_output
from reddit_assets.corpus.vectors import embedding_names
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Claim, Job, Kind
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.settings import Settings
from reddit_assets.tasks.messages import Event, Failed

SENTENCES = [
    "How do I keep basil alive through the winter?",
    "My landlord will not return the deposit.",
    "The Guitar Is Out Of Tune — again 🎸",
    "Warum ist der Himmel blau?",
    "",
    "word " * 400,
]


def start(url: str, root: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "reddit_assets.cli", "worker", "--until-empty", *arguments],
        env={
            **os.environ,
            "REDIS_URL": url,
            "REDDIT_ROOT": str(root),
            "REDDIT_SETTLE_SECONDS": "0",
            "REDDIT_CLAIM_JOBS": "2",
            "REDDIT_THREADS": "1",
            "REDDIT_RETRY_SECONDS": "0.1",
            "HF_HUB_OFFLINE": "1",
        },
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def vectors(path: Path) -> np.ndarray:
    table = pq.read_table(path, columns=embedding_names(384))
    return np.column_stack([column.to_numpy() for column in table.columns])


def libraries_of(worker: subprocess.Popen[str]) -> str:
    """What the worker's processes have loaded, as the kernel sees it."""
    family = psutil.Process(worker.pid)
    maps = []
    for process in [family, *family.children(recursive=True)]:
        with open(f"/proc/{process.pid}/maps") as file:
            maps.append(file.read())
    return "\n".join(maps)


@pytest.mark.slow
def test_onnx_and_torch_workers_share_a_queue_and_agree(tmp_path: Path, valkey_url: str) -> None:
    pytest.importorskip("torch")
    layout = Layout.of(tmp_path)
    keys = [f"as/Sub{number % 3}/c_{number:02}" for number in range(24)]
    for number, key in enumerate(keys):
        write_chain(layout, key, [f"{number} {text}" for text in SENTENCES])
    # The same texts again, so that both backends meet them.
    twin = "as/Twins/"
    for name in ("a", "b"):
        write_chain(layout, twin + name, SENTENCES)
    queue = JobQueue(connect(Settings(redis_url=valkey_url)), Kind.EMBED)
    for key in [*keys, twin + "a", twin + "b"]:  # in the earlier system's format, by hand
        job = {
            "input_path": str(layout.chain_path(key)),
            "output_path": str(layout.embedding_path(key)),
        }
        queue.client.rpush("phase4_todo_queue", json.dumps(job))
    workers = [start(valkey_url, tmp_path, "--backend", name) for name in ("onnx", "onnx", "torch")]
    onnx_libraries = ""
    while workers[0].poll() is None:
        try:
            onnx_libraries = max(onnx_libraries, libraries_of(workers[0]), key=len)
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            break
    logs = [worker.communicate(timeout=200)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], "\n".join(logs)
    totals = queue.counts().totals
    assert totals["done"] == 26, "every file once"
    assert "rejected" not in totals
    assert "onnxruntime" in onnx_libraries
    assert "libtorch" not in onnx_libraries, "a CPU host needs no torch"
    for key in [*keys, twin + "a", twin + "b"]:
        found = vectors(layout.embedding_path(key))
        assert found.dtype == np.float32
        assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        assert read_output(layout.embedding_path(key)).provenance is not None
    first, second = (vectors(layout.embedding_path(twin + name)) for name in ("a", "b"))
    assert (first * second).sum(axis=1).min() >= 0.9998


@pytest.mark.slow
def test_a_cluster_worker_clusters_and_then_finds_it_fresh(tmp_path: Path, valkey_url: str) -> None:
    from reddit_assets.corpus.scan import Scanner, ScanOptions, Verdict
    from reddit_assets.engines.clustering.params import ClusterParams
    from reddit_assets.ledger.planner import queue_wanted

    layout = Layout.of(tmp_path)
    for number in range(3):
        write_chain(layout, f"as/A/c_{number}", SENTENCES)
        write_embedding(layout, f"as/A/c_{number}")
    settings = Settings(redis_url=valkey_url, root=tmp_path)
    client = connect(settings)
    queues = {kind: JobQueue(client, kind) for kind in Kind}
    options = ScanOptions(
        settle_seconds=0, settings_fingerprint=ClusterParams.from_settings(settings).fingerprint
    )
    report = queue_wanted(Scanner(layout, options), queues, kinds=(Kind.CLUSTER,))
    assert report.jobs[Kind.CLUSTER].queued == 1
    worker = start(valkey_url, tmp_path, "--kind", "cluster")
    log = worker.communicate(timeout=200)[1]
    assert worker.returncode == 0, log
    again = queue_wanted(Scanner(layout, options), queues, kinds=(Kind.CLUSTER,))
    assert again.clusters[Verdict.FRESH] == 1, log
    assert again.jobs[Kind.CLUSTER].queued == 0
    clustered = pq.read_table(layout.cluster_path("as/A"))
    assert clustered.num_rows == 3 * len(SENTENCES)
    assert {"cluster_id", "cluster_probability"} <= set(clustered.column_names)


@pytest.mark.slow
def test_a_worker_with_other_clustering_settings_gives_the_job_back(
    tmp_path: Path, valkey_url: str
) -> None:
    # Given a cluster job that was queued for other settings than the worker's
    layout = Layout.of(tmp_path)
    write_chain(layout, "as/A/c_0", SENTENCES)
    write_embedding(layout, "as/A/c_0")
    queue = JobQueue(connect(Settings(redis_url=valkey_url)), Kind.CLUSTER)
    queue.enqueue([Job(Kind.CLUSTER, "as/A", "cafe-0123456789ab")], layout)
    # If the worker takes it
    worker = start(valkey_url, tmp_path, "--kind", "cluster")
    assert worker.stderr is not None
    said = ""
    while "0123456789ab" not in said:
        line = worker.stderr.readline()
        assert line, said
        said += line
    worker.terminate()
    said += worker.communicate(timeout=60)[1]
    # Then it gives it back unharmed, says why, and makes nothing
    assert "is given back" in said
    assert "same REDDIT_… clustering settings" in said
    counts = queue.counts()
    assert (counts.queued + counts.delayed, counts.dead) == (1, 0)
    assert "failed" not in counts.totals
    assert not layout.cluster_path("as/A").exists()


def test_a_cluster_is_not_made_without_files_that_only_this_host_refuses(tmp_path: Path) -> None:
    # Given a cluster that a scan queued with a file of the earlier system, and a host that does
    # not adopt such files
    from reddit_assets.tasks.cluster import ClusterTask

    layout = Layout.of(tmp_path)
    write_chain(layout, "as/A/c_0", SENTENCES, age=7200)
    path = write_embedding(layout, "as/A/c_0")
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    task = ClusterTask(Settings(root=tmp_path, adopt=False), layout)
    stamp = f"cafe-{task.params.fingerprint[:12]}"
    # If the host gets the job, then it gives it back with the reason
    events: list[Event] = []
    task.run(iter([Claim(Kind.CLUSTER, "as/A", "id", "token", stamp=stamp)]), events.append)
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.failure.host_fault
    assert "as/A/c_0" in failed.failure.error
    assert "REDDIT_ADOPT" in failed.failure.hint
