"""``reddit-assets verify`` on a small real tree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from reddit_assets.cli.app import app
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.output import EmbeddingWriter
from reddit_assets.corpus.provenance import EmbeddingProvenance, SourceIdentity
from reddit_assets.corpus.vectors import embedding_names
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.engines.embedding.reference import golden
from reddit_assets.engines.embedding.select import open_embedder
from reddit_assets.tasks.pipeline import identity_of

pytest.importorskip("onnxruntime")


def own_file(layout: Layout, key: str, spec: ModelSpec, vectors: np.ndarray) -> None:
    source = pa.table({"id": [str(at) for at in range(len(vectors))], "body": golden().texts})
    with EmbeddingWriter(layout.embedding_path(key), source.schema, vectors.shape[1]) as writer:
        writer.write(source.combine_chunks().to_batches()[0], vectors)
        writer.finish(
            EmbeddingProvenance(
                key=key,
                data_version="v",
                source=SourceIdentity(fingerprint="f", size=1, mtime_ns=1, rows=len(vectors)),
                model=identity_of(spec),
                writer={"precision": "fp32"},
                text_column="body",
            )
        )


def adopted_file(layout: Layout, key: str, vectors: np.ndarray, texts: Sequence[str] = ()) -> None:
    columns: dict[str, Any] = {"body": list(texts) or golden().texts}
    columns |= dict(zip(embedding_names(384), vectors.astype(np.float64).T, strict=True))
    path = layout.embedding_path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def test_verify_says_which_files_hold_other_vectors(
    tmp_path: Path, minilm: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two good files, of which one is the earlier system's, one that deviates and one broken
    monkeypatch.setenv("MODEL_DIR", str(tmp_path / "models"))
    layout = Layout.of(tmp_path)
    good = golden().vectors
    own_file(layout, "a/good/0", minilm, good)
    adopted_file(layout, "a/old/0", good)
    runner = CliRunner()
    # If the good ones are verified
    done = runner.invoke(app, ["verify", "--root", str(tmp_path), "--rows", "200"])
    # Then the status is 0
    assert done.exit_code == 0, done.output
    assert "2 of 2 files agree" in done.output
    # If the tree has one that deviates in one row, and one that is cut off
    wrong = good.copy()
    wrong[11] = -wrong[11]
    own_file(layout, "a/wrong/0", minilm, wrong)
    whole = layout.embedding_path("a/good/0").read_bytes()
    layout.embedding_path("a/good/1").write_bytes(whole[:2_000])
    done = runner.invoke(
        app, ["verify", "--root", str(tmp_path), "--rows", "200", "--threads", "1", "--json"]
    )
    # Then the status is 1, and each is named with its numbers or its problem
    assert done.exit_code == 1
    found = {one["key"]: one for one in json.loads(done.stdout)}
    assert {key for key, one in found.items() if one["conformant"]} == {"a/good/0", "a/old/0"}
    assert found["a/old/0"]["adopted"]
    assert found["a/wrong/0"]["min_cosine"] == pytest.approx(-1.0)
    assert found["a/wrong/0"]["bound"] == 0.99999
    assert "not a whole parquet file" in found["a/good/1"]["problem"]
    # and files can be named
    done = runner.invoke(
        app, ["verify", "--root", str(tmp_path), "--rows", "200", "a/wrong/0", "a/none/0"]
    )
    assert done.exit_code == 1
    assert "a/wrong/0: DIFFERS" in done.output
    assert "a/none/0: There is no embedding file." in done.output


def test_vectors_of_512_tokens_are_recognised(
    tmp_path: Path, minilm: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a file of the earlier ONNX worker, which cut texts at 512 tokens, not at 256
    monkeypatch.setenv("MODEL_DIR", str(tmp_path / "models"))
    texts = ["bread", "knives", "how to cook rice", "word " * 300 + "knife steel " * 100]
    longer = replace(minilm, max_tokens=512)
    how = {"device": "cpu", "precision": "fp32", "threads": 1, "allow_nonconformant": True}
    with open_embedder(longer, **how) as earlier:
        adopted_file(Layout.of(tmp_path), "a/old/0", earlier.encode(texts), texts)
    # If it is verified, Then it is said what it looks like and what to do
    done = CliRunner().invoke(app, ["verify", "--root", str(tmp_path), "--threads", "1"])
    assert done.exit_code == 1
    assert "looks like 512-token vectors of the earlier ONNX worker" in done.output
    assert "REDDIT_ADOPT=false" in done.output


def test_an_empty_tree_is_said_so(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["verify", "--root", str(tmp_path)])
    assert done.exit_code == 1
    assert "no embedding file" in str(done.exception)
