"""GPUs: measured where there is one, else a model of the pipeline and a simulated card.

    python benchmarks/embedding_gpu.py [--rows 120000] [--data FOLDER] [--simulate]

With a CUDA device: tokens/s of the engine by precision and attention, of sentence-transformers in
fp16 and fp32 on the same texts, of whole files through the pipeline, their share of the device's
own matrix-product rate, and the cosine to fp32.

Without one, every stage that the processor does for a card is timed alone, on one thread, on texts
of 39 tokens (a comment's average); from these rates follows what limits at which card, with how
many cores. Then whole files pass through the real pipeline, whose device is a clock: a batch takes
as long as on the card, and its vectors are ready. Writes ``results/embedding_gpu.csv`` or
``results/embedding_gpu_model.csv``.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from embedding_common import MODEL, data_name, host_facts, posts, quiet, show, write_csv

from reddit_assets.corpus.chainfile import ChainFile
from reddit_assets.corpus.output import EmbeddingWriter
from reddit_assets.corpus.texts import TEXT_COLUMNS, texts_of
from reddit_assets.corpus.vectors import VectorFormat
from reddit_assets.engines.embedding.backends.base import Backend, Batch
from reddit_assets.engines.embedding.backends.devices import SeveralDevices
from reddit_assets.engines.embedding.batching import plan_batches
from reddit_assets.engines.embedding.engine import Embedder
from reddit_assets.engines.embedding.model import find_model
from reddit_assets.engines.host import available_cores
from reddit_assets.tasks.filework import FileJob
from reddit_assets.tasks.pipeline import FilePipeline

FLOPS = 6 * 2 * (4 * 384 * 384 + 2 * 384 * 1536)
"""Operations per token in products with weights."""
CARDS = {"L4": 121, "RTX 4090": 165, "A100": 312, "H100": 989, "4 × H100": 4 * 989}
"""Dense bf16 peak in 10¹² operations per second, as published."""
SHARE = 0.40
"""Of its peak that a card is taken to reach; an A100 was published at about that."""
FILES = 12
WRITERS = 8
"""Write threads of the model's host, which has 16 cores, as one with a large card has."""
FORMATS = {
    "columns float32": VectorFormat("columns", "float32"),
    "list float32": VectorFormat("list", "float32"),
    "list float16": VectorFormat("list", "float16"),
}


class SimulatedCard(Backend):
    """A device that is a clock: each batch takes ``tokens / rate`` seconds, one after the other."""

    name = "simulated"

    def __init__(self, rate: float, number: int = 0) -> None:
        self.precision, self.device = "fp32", f"cuda:{number}"
        self.padded, self.streams, self.max_batch_tokens = False, 3, 65_536
        self.window_rows = 200_000
        self.rate, self.busy = rate, 0.0
        self._until = 0.0
        self._lock = threading.Lock()
        made = np.random.default_rng(0).standard_normal((40_000, 384), dtype=np.float32)
        self._made = made / np.linalg.norm(made, axis=1, keepdims=True)

    def forward(self, batch: Batch) -> np.ndarray:
        """Vectors that were made before, when the card would have them."""
        seconds = int(batch.tokens.lengths.sum()) / self.rate
        with self._lock:
            self._until = max(self._until, time.perf_counter()) + seconds
            self.busy += seconds
            ready = self._until
        vectors = self._made[: len(batch)].copy()
        time.sleep(max(0.0, ready - time.perf_counter()))
        return vectors

    def describe(self) -> dict[str, Any]:
        """What it is."""
        return {"backend": self.name, "device": self.device, "precision": self.precision}


class Silent:
    """Callbacks that only keep failures."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []

    def started(self, job: FileJob) -> None: ...

    def progress(self, job: FileJob, rows: int) -> None: ...

    def finished(self, job: FileJob, result: Any) -> None: ...

    def failed(self, job: FileJob, error: Exception) -> None:
        self.errors.append(error)


# --- data ------------------------------------------------------------------------------------
def comments(count: int, data: Path | None) -> pa.Table:
    """Different texts as long as comments are: parts of posts, numbered, 39 tokens on average."""
    bodies = [body for body in posts(data).to_pylist() if len(body) > 400]
    random = np.random.default_rng(0)
    sizes = np.clip(random.lognormal(4.7, 0.75, count), 10, 1_500).astype(int)
    starts = random.integers(0, 200, count)
    texts = [
        f"{i} {bodies[i % len(bodies)][start : start + size]}"
        for i, (start, size) in enumerate(zip(starts.tolist(), sizes.tolist(), strict=True))
    ]
    return pa.table(
        {
            "id": [f"t1_{i:x}" for i in range(count)],
            "parent_id": [f"t3_{i // 9:x}" for i in range(count)],
            "body": texts,
            "author": [f"author_{i % 4_001}" for i in range(count)],
            "created_utc": np.arange(count) + 1_600_000_000,
            "ups": random.integers(0, 500, count),
        }
    )


def tree(folder: Path, table: pa.Table, files: int) -> list[Path]:
    """The table as chain files of equal size."""
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(table) // files)
    paths = []
    for number in range(files):
        paths.append(folder / f"chunk_{number}.parquet")
        pq.write_table(table.slice(number * size, size), paths[-1], compression="zstd")
    return paths


# --- stages ----------------------------------------------------------------------------------
def timed(rows: int, work: Callable[[], Any], rounds: int = 3) -> float:
    """Rows per second, the best of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return rows / best


def stages(folder: Path, table: pa.Table) -> dict[str, float]:
    """Rows per second of each stage, alone, on one thread, and the tokens per row."""
    source = tree(folder / "stages", table, 1)[0]
    rows = len(table)

    def read() -> list[pa.RecordBatch]:
        chain = ChainFile(source, ",".join(TEXT_COLUMNS))
        batches = list(chain.batches(2_048))
        chain.verify_unchanged()
        chain.close()
        return batches

    card = SimulatedCard(1e12)
    with Embedder(find_model(MODEL, Path("models")), card) as embedder:
        batches = read()
        texts = pa.chunked_array([texts_of(batch, "body") for batch in batches])
        window = embedder.window(texts)
        tokens, lengths = window.tokens, window.tokens.lengths
        plan = plan_batches(lengths, card.max_batch_tokens, padded=False)
        vectors = np.empty((len(tokens), 384), np.float32)
        made = [card.forward(Batch(tokens.take(part))) for part in plan]

        def collect() -> None:
            for part, some in zip(plan, made, strict=True):
                assert np.isfinite(some).all()
                vectors[part] = some

        found = {
            "read, hash twice": timed(rows, read),
            "tokenize": timed(rows, lambda: embedder.window(texts)),
            "plan batches": timed(rows, lambda: plan_batches(lengths, 65_536, padded=False)),
            "gather batches": timed(rows, lambda: [tokens.take(part) for part in plan]),
            "check and collect": timed(rows, collect),
            "hand to files": timed(rows, lambda: vectors[window.rows]),
        }
        cut = pa.Table.from_batches(batches)
        for name, kind in FORMATS.items():
            found[f"write {name}"] = timed(
                rows, lambda kind=kind: write(folder / "out.parquet", cut, vectors, kind), 2
            )
            found[f"write {name}, two threads"] = timed(
                2 * rows, lambda kind=kind: write_two(folder, cut, vectors, kind), 2
            )
        found["tokens per row"] = float(lengths.mean())
    return found


def write(path: Path, table: pa.Table, vectors: np.ndarray, kind: VectorFormat) -> None:
    """One embedding file, in row groups as the pipeline's."""
    with EmbeddingWriter(path, table.schema, 384, rows=len(table), vectors=kind) as writer:
        for start in range(0, len(table), 16_384):
            part = table.slice(start, 16_384).combine_chunks()
            writer.write(part, vectors[start : start + len(part)])
        writer.finish({})


def write_two(folder: Path, table: pa.Table, vectors: np.ndarray, kind: VectorFormat) -> None:
    """Two embedding files, each on a thread."""
    paths = [folder / "out-0.parquet", folder / "out-1.parquet"]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda path: write(path, table, vectors, kind), paths))


def modelled(found: dict[str, float]) -> list[dict[str, Any]]:
    """What each card asks for, and what limits it."""
    reader = ("read, hash twice", "tokenize", "plan batches")
    streams = ("gather batches",)
    after = ("check and collect", "hand to files")
    tables = []
    for card, peak in CARDS.items():
        tokens = peak * 1e12 * SHARE / FLOPS
        rows = tokens / found["tokens per row"]
        for name in FORMATS:
            seconds = {
                "one reader thread": sum(1 / found[stage] for stage in reader),
                "one distributing thread": 1 / found["hand to files"],
                f"{WRITERS} write threads": 1 / (WRITERS * found[f"write {name}"]),
            }
            slowest = max(seconds, key=seconds.__getitem__)
            cores = rows * sum(1 / found[s] for s in (*reader, *streams, *after, f"write {name}"))
            limit = min(rows, 1 / seconds[slowest])
            tables.append(
                {
                    "card": card,
                    "vectors": name,
                    "card_tokens_per_s": round(tokens),
                    "card_rows_per_s": round(rows),
                    "vector_MB_per_s": round(rows * 384 * (2 if "16" in name else 4) / 1e6),
                    "cores_to_keep_up": f"{cores:.1f}",
                    "limit": "the card" if limit == rows else slowest,
                    "rows_per_s_with_cores": round(limit),
                    "share_of_card": f"{limit / rows:.2f}",
                }
            )
    return tables


# --- whole files -----------------------------------------------------------------------------
def through_files(
    embedder: Embedder, sources: list[Path], folder: Path, kind: VectorFormat
) -> tuple[float, int]:
    """Seconds and rows of files through the pipeline."""
    silent = Silent()
    jobs: Iterator[FileJob] = (
        FileJob(f"t{i}", f"be/bench/{path.stem}", path, folder / path.name)
        for i, path in enumerate(sources)
    )
    began = time.perf_counter()
    FilePipeline(embedder, silent, vectors=kind).run(jobs)
    seconds = time.perf_counter() - began
    if silent.errors:
        raise silent.errors[0]
    rows = sum(pq.read_metadata(path).num_rows for path in folder.iterdir())
    return seconds, rows


def simulated(folder: Path, sources: list[Path], mean: float) -> list[dict[str, Any]]:
    """Whole files with a clock for a device, on this host's cores."""
    tables = []
    cases: list[tuple[str, list[float]]] = [("L4", [121]), ("A100", [312]), ("H100", [989])]
    cases += [("two L4 in one worker", [121, 121]), ("no time at all", [1e9])]
    for card, peaks in cases:
        rates = [peak * 1e12 * SHARE / FLOPS for peak in peaks]
        for name, kind in FORMATS.items():
            devices = [SimulatedCard(rate, number) for number, rate in enumerate(rates)]
            backend = devices[0] if len(devices) == 1 else SeveralDevices(devices)
            with Embedder(find_model(MODEL, Path("models")), backend) as embedder:
                out = folder / "outputs"
                out.mkdir()
                seconds, rows = through_files(embedder, sources, out, kind)
                shutil.rmtree(out)
            busy = sum(device.busy for device in devices) / len(devices)
            tables.append(
                {
                    "card": card,
                    "vectors": name,
                    "rows": rows,
                    "seconds": f"{seconds:.2f}",
                    "rows_per_s": round(rows / seconds),
                    "tokens_per_s": round(rows * mean / seconds),
                    "vector_MB_per_s": round(
                        rows * 384 * (2 if "16" in name else 4) / seconds / 1e6
                    ),
                    "card_busy": f"{busy / seconds:.2f}",
                }
            )
            print(tables[-1], flush=True)
    return tables


# --- a real card -----------------------------------------------------------------------------
def product_rate(precision: str, device: str) -> float:
    """Operations per second of a large square product on the card."""
    import torch

    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    left = torch.randn(8_192, 8_192, device=device, dtype=dtype)
    torch.matmul(left, left)
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    for _ in range(10):
        torch.matmul(left, left)
    torch.cuda.synchronize(device)
    return 10 * 2 * 8_192**3 / (time.perf_counter() - began)


def measured(folder: Path, table: pa.Table, sources: list[Path]) -> list[dict[str, Any]]:
    """Engine, sentence-transformers and whole files on the card."""
    import torch
    from sentence_transformers import SentenceTransformer

    from reddit_assets.engines.embedding.conformance import cosines
    from reddit_assets.engines.embedding.select import Choice, make_backend

    spec, device = find_model(MODEL, Path("models")), "cuda:0"
    card = torch.cuda.get_device_name(0)
    texts = table["body"].combine_chunks().cast(pa.large_string())
    model = SentenceTransformer(str(spec.weights_dir), device=device)
    exact: np.ndarray | None = None
    rows: list[dict[str, Any]] = []
    tokens = 0

    def row(name: str, seconds: float, precision: str, count: int, **more: Any) -> None:
        rate = tokens / seconds
        rows.append(
            {
                "card": card,
                "arrangement": name,
                "rows_per_s": round(count / seconds),
                "tokens_per_s": round(rate),
                "share_of_product_rate": f"{rate * FLOPS / product_rate(precision, device):.3f}",
                **more,
            }
        )
        print(rows[-1], flush=True)

    for precision in ("fp16", "bf16", "fp32"):
        with Embedder(spec, make_backend(spec, Choice("torch", device, precision), threads=1)) as e:
            e.encode(texts.slice(0, 20_000))
            began = time.perf_counter()
            made = e.encode_counted(texts)
            seconds, tokens = time.perf_counter() - began, int(made.tokens.sum())
            if exact is None:
                listed = texts.to_pylist()
                model.encode(listed[:1_000], batch_size=256)
                began = time.perf_counter()
                exact = model.encode(listed, batch_size=256, show_progress_bar=False)
                row("sentence-transformers fp32", time.perf_counter() - began, "fp32", len(texts))
                model.half()
                began = time.perf_counter()
                model.encode(listed, batch_size=256, show_progress_bar=False)
                row("sentence-transformers fp16", time.perf_counter() - began, "fp16", len(texts))
            similar = cosines(made.vectors, exact)
            name = f"this project {precision}, {e.backend.describe()['attention']}"
            row(name, seconds, precision, len(texts), min_cosine=f"{similar.min():.6f}")
            if precision == "fp16":
                for label, kind in FORMATS.items():
                    out = folder / "outputs"
                    out.mkdir()
                    took, count = through_files(e, sources, out, kind)
                    shutil.rmtree(out)
                    row(f"file to file, {label}", took, precision, count)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=120_000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--simulate", action="store_true", help="Even where there is a card.")
    parser.add_argument("--patience", type=float, default=300, help="Seconds to wait for idleness.")
    options = parser.parse_args()
    import torch

    facts = {**host_facts(), "load_before": f"{quiet(patience=options.patience):.2f}"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = comments(options.rows, options.data)
        sources = tree(folder / "chains", table, FILES)
        facts["data"] = f"{options.rows:,} parts of {data_name(options.data)}"
        if torch.cuda.is_available() and not options.simulate:
            rows = measured(folder, table, sources)
            show(rows, "On the card")
            print(write_csv("embedding_gpu", rows, facts))
            return
        print("No CUDA device here: a model and a simulated card.", flush=True)
        found = stages(folder, table.slice(0, 50_000))
        mean = found.pop("tokens per row")
        alone = [
            {"part": "stage", "stage": stage, "rows_per_s": round(rate)}
            for stage, rate in found.items()
        ]
        show(alone, f"Each stage alone on one thread, texts of {mean:.0f} tokens")
        model = modelled({**found, "tokens per row": mean})
        show(model, f"Cards at {SHARE:.0%} of their peak, with as many cores as they ask for")
        clocked = simulated(folder, sources, mean)
        show(clocked, f"Whole files with a simulated card, {available_cores()} cores")
        rows = [*alone, *({"part": "model", **row} for row in model)]
        rows += [{"part": "simulated", **row} for row in clocked]
        print(write_csv("embedding_gpu_model", rows, facts))


if __name__ == "__main__":
    main()
