"""What keeping vectors as columns, as a list, or as both costs: a file, and a deep look at a tree.

    python benchmarks/vector_layouts.py [--files 20000] [--rounds 15]

Files of 5, 200 and 10,000 rows with the data's own columns are written (synced), read to an array,
and looked at with pyarrow (footer) and as a quick scan does; the forms take turns, and the median
counts. Then a tree of 5-row files in each form is scanned, quick and deep, by a fresh scanner.
Writes ``results/vector_layouts.csv``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from embedding_common import chain_files, data_name, host_facts, quiet, show, write_csv

from reddit_assets.corpus.facts import read_facts
from reddit_assets.corpus.fingerprints import content_fingerprint, embedding_version
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.output import EmbeddingWriter
from reddit_assets.corpus.provenance import (
    EmbeddingProvenance,
    ModelIdentity,
    SourceIdentity,
    read_output,
)
from reddit_assets.corpus.vectors import VectorFormat
from reddit_assets.settings import load_settings
from reddit_assets.tasks.inputs import read_vectors
from reddit_assets.workspace import Workspace

FORMS = [
    VectorFormat("columns"),
    VectorFormat("columns", "float16"),
    VectorFormat("list"),
    VectorFormat("list", "float16"),
    VectorFormat("both"),
    VectorFormat("both", "float16"),
]
ROWS = (5, 200, 10_000)
MODEL = ModelIdentity(name="m", fingerprint="f" * 32, dimension=384, max_tokens=256, pooling="mean")
PER_SUBREDDIT = 200


def data_of(rows: int) -> tuple[pa.RecordBatch, np.ndarray]:
    """Rows of the data, and unit vectors."""
    whole = pa.concat_tables([pq.read_table(file) for file in chain_files()])
    chosen = whole.take(pa.array(np.resize(np.arange(len(whole)), rows))).combine_chunks()
    vectors = np.random.default_rng(0).normal(size=(rows, 384)).astype(np.float32)
    return chosen.to_batches()[0], vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def provenance_of(key: str, chain: Path, rows: int) -> EmbeddingProvenance:
    """As a worker writes it."""
    with open(chain, "rb") as file:
        fingerprint = content_fingerprint(file.fileno())
        status = os.fstat(file.fileno())
    source = SourceIdentity(
        fingerprint=fingerprint, size=status.st_size, mtime_ns=status.st_mtime_ns, rows=rows
    )
    version = embedding_version(fingerprint, MODEL.fingerprint)
    return EmbeddingProvenance(key=key, data_version=version, source=source, model=MODEL)


def write(
    path: Path, batch: pa.RecordBatch, vectors: np.ndarray, form: VectorFormat, made: Any
) -> None:
    with EmbeddingWriter(path, batch.schema, 384, rows=len(batch), vectors=form) as writer:
        writer.write(batch, vectors)
        writer.finish(made)


def milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - began)


def one_file(folder: Path, rows: int, rounds: int) -> list[dict[str, Any]]:
    """A row per form."""
    batch, vectors = data_of(rows)
    chain = folder / "chain.parquet"
    pq.write_table(pa.Table.from_batches([batch]), chain)
    made = provenance_of("a/b/c", chain, rows)
    paths = {form: folder / f"{form}.parquet" for form in FORMS}
    times: dict[tuple[VectorFormat, str], list[float]] = {}
    for round_ in range(rounds + 1):
        for form, path in paths.items():
            for name, work in (
                ("write_ms", lambda p=path, f=form: write(p, batch, vectors, f, made)),
                ("read_ms", lambda p=path: np.concatenate(list(read_vectors(p)))),
                ("footer_ms", lambda p=path: read_output(p)),
                ("quick_ms", lambda p=path: read_facts(str(p), "a/b/c")),
            ):
                taken = milliseconds(work)
                if round_:  # the first one warms up
                    times.setdefault((form, name), []).append(taken)
    return [
        {
            "case": "one file",
            "layout": form.layout,
            "dtype": form.dtype,
            "rows": rows,
            **{
                name: f"{statistics.median(times[form, name]):.3f}"
                for name in ("write_ms", "read_ms", "footer_ms", "quick_ms")
            },
            "bytes": path.stat().st_size,
        }
        for form, path in paths.items()
    ]


def make_tree(root: Path, form: VectorFormat, files: int) -> Layout:
    """A fresh tree of alike files: each the first one with its own key in the provenance."""
    layout = Layout.of(root)
    batch, vectors = data_of(5)
    keys = [f"be/bench{n // PER_SUBREDDIT:05}/chunk_{n:06}" for n in range(files)]
    chain, first = layout.chain_path(keys[0]), layout.embedding_path(keys[0])
    chain.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_batches([batch]), chain)
    write(first, batch, vectors, form, provenance_of(keys[0], chain, 5))
    content = first.read_bytes()
    for key in keys[1:]:
        there, output = layout.chain_path(key), layout.embedding_path(key)
        there.parent.mkdir(parents=True, exist_ok=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        os.link(chain, there)
        output.write_bytes(content.replace(keys[0].encode(), key.encode()))
    return layout


def tree(folder: Path, form: VectorFormat, files: int) -> dict[str, Any]:
    """Seconds of a quick and of a deep look at a tree."""
    root = folder / "tree"
    layout = make_tree(root, form, files)
    found = {"case": "tree", "layout": form.layout, "dtype": form.dtype, "rows": 5, "files": files}
    for name, deep in (("quick_s", False), ("deep_s", True)):
        workspace = Workspace.of_trees(load_settings(root=root, settle_seconds=0), layout)
        began = time.perf_counter()
        fresh = sum(
            file.verdict.done for s in workspace.scanner(deep=deep).scan() for file in s.files
        )
        found[name] = f"{time.perf_counter() - began:.2f}"
        if fresh != files:
            raise SystemExit(f"{fresh} of {files} files of {form} are fresh.")
    shutil.rmtree(root)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000, help="Files of a tree.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--patience", type=float, default=300)
    options = parser.parse_args()
    quiet(patience=options.patience)
    facts = {**host_facts(), "data": data_name()}
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for count in ROWS for row in one_file(Path(folder), count, options.rounds)]
        written = write_csv("vector_layouts", rows, facts)
        for form in FORMS[::2] if options.files else ():
            rows.append(tree(Path(folder), form, options.files))
            written = write_csv("vector_layouts", rows, facts)
    show(rows, "Vectors as columns, as a list, as both")
    print(written)


if __name__ == "__main__":
    main()
