"""What limits at which card: rates of the processor's stages, a model, and a simulated card.

Every stage that the processor does for a card is timed alone, on one thread, in processor seconds,
so that other programs do not count; from these rates follows what limits at which card, with how
many cores. Then whole files pass through the real pipeline, whose device is a clock: a batch takes
as long as on the card, and its vectors are ready.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from embedding_common import MODEL, REPOSITORY, show
from embedding_trees import equal_files

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
CORES, WRITERS, TOKENIZERS = 16, 8, 8
"""Of the model's host, as one with a large card has them: half of the cores may write, and the
tokenizer, which takes what it finds, is given the other half."""
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


# --- stages ----------------------------------------------------------------------------------
def timed(rows: int, work: Callable[[], Any], rounds: int = 3, *, cpu: bool = True) -> float:
    """Rows per processor second, or per second on the clock; the best of some rounds."""
    clock = time.process_time if cpu else time.perf_counter
    best = float("inf")
    for _ in range(rounds):
        began = clock()
        work()
        best = min(best, clock() - began)
    return rows / best


def stages(folder: Path, table: pa.Table) -> dict[str, float]:
    """Rows per second of each stage, alone, on one thread, and the tokens per row."""
    source = equal_files(folder / "stages", table, 1)[0]
    rows = len(table)

    def read() -> list[pa.RecordBatch]:
        chain = ChainFile(source, ",".join(TEXT_COLUMNS))
        batches = list(chain.batches(2_048))
        chain.verify_unchanged()
        chain.close()
        return batches

    card = SimulatedCard(1e12)
    card.device = "cpu"  # So that one thread tokenizes.
    with Embedder(find_model(MODEL, REPOSITORY / "models"), card) as embedder:
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
            "tokenize": tokenizing(embedder, texts),
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
                2 * rows, lambda kind=kind: write_two(folder, cut, vectors, kind), 2, cpu=False
            )
        found["tokens per row"] = float(lengths.mean())
    return found


def tokenizing(embedder: Embedder, texts: pa.ChunkedArray) -> float:
    """Rows per processor second, of texts that come for the first time: caches know words only."""
    part = len(texts) // 4
    embedder.window(texts.slice(0, part))
    rates = [
        timed(part, lambda start=start: embedder.window(texts.slice(start, part)), 1)
        for start in (part, 2 * part, 3 * part)
    ]
    return max(rates)


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
    """What each card asks for, and what limits it on a host of 16 cores."""
    ways = ("read, hash twice", "tokenize", "plan batches", "gather batches")
    after = ("check and collect", "hand to files")
    tables = []
    for card, peak in CARDS.items():
        tokens = peak * 1e12 * SHARE / FLOPS
        rows = tokens / found["tokens per row"]
        for name in FORMATS:
            per_row = sum(1 / found[stage] for stage in (*ways, *after, f"write {name}"))
            limits = {
                "the card": rows,
                "the reader's thread": found["read, hash twice"],
                f"{TOKENIZERS} tokenizing threads": TOKENIZERS * found["tokenize"],
                "the thread that hands out": found["hand to files"],
                f"{WRITERS} writing threads": WRITERS * found[f"write {name}"],
                f"{CORES} cores": CORES / per_row,
            }
            slowest = min(limits, key=limits.__getitem__)
            tables.append(
                {
                    "card": card,
                    "vectors": name,
                    "card_tokens_per_s": round(tokens),
                    "card_rows_per_s": round(rows),
                    "vector_MB_per_s": round(rows * 384 * (2 if "16" in name else 4) / 1e6),
                    "cores_to_keep_up": f"{rows * per_row:.1f}",
                    "cores_that_write": f"{rows / found[f'write {name}']:.1f}",
                    "limit": slowest,
                    "rows_per_s": round(limits[slowest]),
                    "share_of_card": f"{limits[slowest] / rows:.2f}",
                    "two_cores_rows_per_s": round(2 / per_row),
                }
            )
    return tables


def stage_rows(folder: Path, table: pa.Table) -> list[dict[str, Any]]:
    """The stages' rates as rows."""
    found = stages(folder, table.slice(0, 50_000))
    return [{"part": "stage", "stage": stage, "rows_per_s": round(r)} for stage, r in found.items()]


def modelled_and_simulated(
    folder: Path, table: pa.Table, sources: list[Path]
) -> list[dict[str, Any]]:
    """All rows: stages, model, and whole files with a clock for a card."""
    alone = stage_rows(folder, table)
    found = {row["stage"]: float(row["rows_per_s"]) for row in alone}
    mean = found["tokens per row"]
    show(alone, f"Each stage alone on one thread, texts of {mean:.0f} tokens")
    model = modelled(found)
    show(model, f"Cards at {SHARE:.0%} of their peak, on a host of {CORES} cores")
    clocked = simulated(folder, sources, mean)
    show(clocked, f"Whole files with a simulated card, {available_cores()} cores")
    rows = [*alone, *({"part": "model", **row} for row in model)]
    return rows + [{"part": "simulated", **row} for row in clocked]


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
            with Embedder(find_model(MODEL, REPOSITORY / "models"), backend) as embedder:
                out = folder / "outputs"
                out.mkdir()
                before = time.process_time()
                seconds, rows = through_files(embedder, sources, out, kind)
                used = time.process_time() - before
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
                    "cpu_us_per_row": f"{used / rows * 1e6:.1f}",
                }
            )
            print(tables[-1], flush=True)
    return tables
