"""Small trees of chain files for tests."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.provenance import (
    PROVENANCE_KEY,
    EmbeddingProvenance,
    ModelIdentity,
    SourceIdentity,
)
from reddit_assets.ledger.intake import Intake
from reddit_assets.ledger.job import Claim
from reddit_assets.ledger.queue import JobQueue

MODEL = ModelIdentity(
    name="test-model", fingerprint="feed", dimension=4, max_tokens=256, pooling="mean"
)


def write_chain(
    layout: Layout, key: str, texts: Sequence[str | None] = ("one", "two"), *, age: float = 3600
) -> Path:
    """A chain file of ``texts`` that is ``age`` seconds old."""
    path = layout.chain_path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "id": [f"{key}-{number}" for number in range(len(texts))],
            "body": pa.array(texts, pa.string()),
            "ups": pa.array(range(len(texts)), pa.int64()),
        }
    )
    pq.write_table(table, path)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def write_embedding(layout: Layout, key: str, *, model: ModelIdentity = MODEL) -> Path:
    """An embedding file of the chain file as it is now, with provenance and no real vectors."""
    from reddit_assets.corpus.fingerprints import content_fingerprint, embedding_version

    chain = layout.chain_path(key)
    with open(chain, "rb") as file:
        fingerprint = content_fingerprint(file.fileno())
        stat = os.fstat(file.fileno())
    table = pq.read_table(chain)
    for index in range(model.dimension):
        value = 1.0 if index == 0 else 0.0
        column = pa.array([value] * table.num_rows, pa.float32())
        table = table.append_column(f"emb_{index:03d}", column)
    provenance = EmbeddingProvenance(
        key=key,
        data_version=embedding_version(fingerprint, model.fingerprint),
        source=SourceIdentity(
            fingerprint=fingerprint,
            size=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            rows=table.num_rows,
        ),
        model=model,
    )
    path = layout.embedding_path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {
        **(table.schema.metadata or {}),
        PROVENANCE_KEY: provenance.model_dump_json().encode(),
    }
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


ALL_SERVERS = pytest.mark.parametrize(
    "server_binary", ["valkey", "redis-6.2", "redis"], indirect=True, scope="session"
)
"""Runs a test on Valkey, on the oldest Redis that will do, and on the installed one if any."""


def claim_jobs(
    queue: JobQueue, worker: str, count: int, lease_seconds: float, *, alone: bool = True
) -> list[Claim] | None:
    """Claims as a worker gets them, its trees being below /data; ``None`` while paused."""
    claimed = Intake(queue, Layout.of(Path("/data"))).claim(
        worker, count, lease_seconds, alone=alone
    )
    return None if claimed.paused else claimed.claims
