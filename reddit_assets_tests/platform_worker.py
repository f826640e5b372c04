"""A fake worker for the orchestration's tests, and small chain files for it. Not a test module.

It claims and acknowledges like a real one and writes real files with two vector columns at once.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reddit_assets.corpus.chainfile import ChainFile
from reddit_assets.corpus.fingerprints import cluster_version, embedding_version, set_hash
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.output import EmbeddingWriter, publish, temporary_path
from reddit_assets.corpus.provenance import (
    PROVENANCE_KEY,
    ClusterProvenance,
    EmbeddingProvenance,
    ModelIdentity,
    cluster_inputs,
)
from reddit_assets.corpus.scan import Scanner, ScanOptions
from reddit_assets.corpus.wanted import read_wanted_model, set_wanted_model
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.errors import BadFileError, Failure
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Claim, Kind, Result
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.settings import Settings
from reddit_assets_tests.factories import claim_jobs

MODEL = ModelIdentity(name="tiny", fingerprint="m1", dimension=2, max_tokens=256, pooling="mean")


def write_chain(
    layout: Layout, key: str, rows: int = 3, salt: str = "", seconds: float = 30.0
) -> None:
    """A small chain file, old enough to have settled."""
    path = layout.chain_path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"body": [f"{key} {salt} {i}" for i in range(rows)]}), path)
    age(path, seconds)


def age(path: Path, seconds: float = 30.0) -> None:
    """Let a file look older."""
    then = time.time() - seconds
    os.utime(path, (then, then))


class FakeWorker(threading.Thread):
    """Takes jobs of both queues.

    Attributes:
        hold: jobs wait while it is set.
    """

    def __init__(self, settings: Settings, layout: Layout, delay: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.settings, self.layout, self.delay = settings, layout, delay
        client = connect(settings)
        self.queues = [JobQueue(client, kind) for kind in Kind]
        self.ended = threading.Event()
        self.hold = threading.Event()
        self.done: list[tuple[Kind, str]] = []

    def stop(self) -> None:
        self.ended.set()
        self.join(10)

    def run(self) -> None:
        while not self.ended.is_set():
            worked = False
            if not self.hold.is_set():
                for queue in self.queues:
                    for claim in claim_jobs(queue, "fake", 1, 60.0) or []:
                        self.work(queue, claim)
                        worked = True
            if not worked:
                time.sleep(0.05)

    def work(self, queue: JobQueue, claim: Claim) -> None:
        time.sleep(self.delay)
        try:
            result, files = self.embed(claim) if queue.kind is Kind.EMBED else self.cluster(claim)
        except BadFileError as error:
            queue.fail(claim, Failure.of(error), max_attempts=1, retry_seconds=0)
            return
        for temporary, output in files:
            publish(temporary, output)
        queue.acknowledge(claim, result, rows=3, tokens=30, seconds=0.01)
        self.done.append((queue.kind, claim.key))

    def model(self) -> ModelIdentity:
        wanted = read_wanted_model(self.layout)
        if wanted is None:
            set_wanted_model(self.layout, MODEL)
            return MODEL
        return wanted

    def embed(self, claim: Claim) -> tuple[Result, list[tuple[Path, Path]]]:
        model = self.model()
        output = self.layout.embedding_path(claim.key)
        temporary = temporary_path(output, claim.token)
        with ChainFile(self.layout.chain_path(claim.key)) as chain:
            version = embedding_version(chain.source.fingerprint, model.fingerprint)
            with EmbeddingWriter(temporary, chain.schema, 2) as writer:
                for batch in chain.batches(1000):
                    vectors = np.tile(np.float32([0.6, 0.8]), (batch.num_rows, 1))
                    writer.write(batch, vectors)
                size = writer.finish(
                    EmbeddingProvenance(
                        key=claim.key,
                        data_version=version,
                        source=chain.source,
                        model=model,
                        job_id=claim.id,
                        text_column=chain.text_column,
                        writer={"backend": "fake", "host": "test"},
                    )
                )
            rows, source = chain.rows, chain.source.fingerprint
        metadata = {
            "rows": rows,
            "tokens": 10 * rows,
            "seconds": 0.01,
            "rows_per_second": 300.0,
            "backend": "fake",
            "device": "cpu",
            "host": "test",
            "bytes": size,
            "path": str(output),
            "job_id": claim.id,
        }
        result = Result(
            job=claim.id,
            asset="embeddings",
            partition=claim.key,
            data_version=version,
            source_version=source,
            metadata=metadata,
        )
        return result, [(temporary, output)]

    def cluster(self, claim: Claim) -> tuple[Result, list[tuple[Path, Path]]]:
        scanner = Scanner(self.layout, ScanOptions(settle_seconds=0))
        keys = [f.key for f in scanner.subreddit(claim.key).files]
        try:
            inputs = dict(zip(keys, cluster_inputs(self.layout, keys), strict=True))
        except FileNotFoundError as error:
            raise BadFileError(f"{error.filename} is missing.", hint="Embed it first.") from None
        versions = {key: file.data_version for key, file in inputs.items()}
        fingerprint = ClusterParams.from_settings(self.settings).fingerprint
        rows = sum(file.rows for file in inputs.values())
        summary = {
            "rows": rows,
            "clusters": 1,
            "noise_share": 0.25,
            "top_clusters": [{"cluster": 0, "rows": rows, "keywords": ["tea", "kettle"]}],
        }
        version = cluster_version(set_hash(versions), fingerprint)
        provenance = ClusterProvenance(
            key=claim.key,
            data_version=version,
            inputs=versions,
            inputs_hash=set_hash(versions),
            inputs_stamp=set_hash({key: file.stamp for key, file in inputs.items()}),
            settings_fingerprint=fingerprint,
            summary=summary,
            job_id=claim.id,
        )
        output = self.layout.cluster_path(claim.key)
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(output, claim.token)
        table = pa.table({"cluster_id": pa.array([0] * rows, pa.int32())})
        pq.write_table(
            table.replace_schema_metadata({PROVENANCE_KEY: provenance.model_dump_json()}), temporary
        )
        result = Result(
            job=claim.id,
            asset="clusters",
            partition=claim.key,
            data_version=version,
            metadata={**summary, "path": str(output), "job_id": claim.id},
        )
        return result, [(temporary, output)]
