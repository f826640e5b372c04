"""GPUs: measured where there is one, else a model of the pipeline and a simulated card.

    python benchmarks/embedding_gpu.py [--rows 400000] [--data FOLDER] [--simulate] [--device NAME]

With a CUDA device: tokens/s of the engine by precision and attention, with and without
``torch.compile``; of sentence-transformers in fp16 and fp32 on the same texts; of whole files
through the pipeline, and the share of the engine's rate that is left; all as a share of the
device's own matrix-product rate; the smallest cosine of all posts to sentence-transformers in
fp32. Writes ``results/embedding_gpu.csv``. ``--device cpu`` runs the same on a processor, to try
this program, and writes nothing.

Without one: ``embedding_gpu_model.py``, which writes ``results/embedding_gpu_model.csv``.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from embedding_common import (
    MODEL,
    REPOSITORY,
    data_name,
    host_facts,
    posts,
    prefer,
    quiet,
    show,
    write_csv,
)
from embedding_gpu_model import FLOPS, FORMATS, modelled_and_simulated, stage_rows, through_files
from embedding_trees import comments, equal_files

from reddit_assets.engines.embedding.engine import Embedder
from reddit_assets.engines.embedding.model import find_model

FILES = 12


def product_rate(precision: str, device: str) -> float:
    """Operations per second of a large square product on the device."""
    import torch

    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    size = 8_192 if device.startswith("cuda") else 1_024
    left = torch.randn(size, size, device=device, dtype=dtype)
    torch.matmul(left, left)
    wait(device)
    began = time.perf_counter()
    for _ in range(10):
        torch.matmul(left, left)
    wait(device)
    return 10 * 2 * size**3 / (time.perf_counter() - began)


def wait(device: str) -> None:
    """Until the device has done what it was told."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def compiled(backend: Any) -> None:
    """Let ``torch.compile`` fuse a backend's forward pass."""
    import torch

    flat = backend._flat

    class Compiled:
        attention = f"{flat.attention}, compiled"
        __call__ = staticmethod(torch.compile(flat.__call__, dynamic=True))

    backend._flat = Compiled()


def attending(name: str) -> Callable[[Any], None]:
    """Take one kind of attention, whichever the backend would take."""

    def change(backend: Any) -> None:
        backend._flat.attention, backend._flat._attend = backend._flat._choose_attention(name)

    return change


class Measurement:
    """Rates on one device, as rows of a table.

    Args:
        texts: large_string array; timed.
        checked: large_string array; the smallest cosine to sentence-transformers is taken of it.
        device: ``cuda:0``, or ``cpu`` to try the program.
    """

    def __init__(self, texts: pa.Array, checked: pa.Array, device: str) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        self.spec = find_model(MODEL, REPOSITORY / "models")
        self.texts, self.checked, self.device = texts, checked, device
        self.card = "cpu" if device == "cpu" else torch.cuda.get_device_name(device)
        self.rows: list[dict[str, Any]] = []
        with Embedder(self.spec, self._backend("fp32")) as embedder:
            self.tokens = int(embedder.tokenizer(texts).lengths.sum())
        self._peer = SentenceTransformer(str(self.spec.weights_dir), device=device)
        self._exact = self._peer.encode(checked.to_pylist(), batch_size=256)

    def _backend(self, precision: str) -> Any:
        from reddit_assets.engines.embedding.select import Choice, make_backend

        return make_backend(self.spec, Choice("torch", self.device, precision), threads=1)

    def add(self, name: str, seconds: float, precision: str, **more: Any) -> None:
        """A row of all texts in so many seconds."""
        rate = self.tokens / seconds
        share = rate * FLOPS / product_rate(precision, self.device)
        row = {
            "card": self.card,
            "arrangement": name,
            "rows_per_s": round(len(self.texts) / seconds),
            "tokens_per_s": round(rate),
            "share_of_product_rate": f"{share:.3f}",
            **more,
        }
        self.rows.append(row)
        print(row, flush=True)

    def peer(self) -> None:
        """sentence-transformers."""
        listed = self.texts.to_pylist()
        for precision in ("fp32", "fp16"):
            if precision == "fp16":
                self._peer.half()
            self._peer.encode(listed[:1_000], batch_size=256)
            began = time.perf_counter()
            self._peer.encode(listed, batch_size=256, show_progress_bar=False)
            self.add(f"sentence-transformers {precision}", time.perf_counter() - began, precision)

    def engine(self, precision: str, change: Callable[[Any], None] | None = None) -> Embedder:
        """This project's engine, texts in memory; it stays open."""
        from reddit_assets.engines.embedding.conformance import cosines

        embedder = Embedder(self.spec, self._backend(precision))
        if change is not None:
            change(embedder.backend)
        least = cosines(embedder.encode(self.checked), self._exact).min()
        embedder.encode(self.texts.slice(0, 20_000))
        began = time.perf_counter()
        embedder.encode(self.texts)
        seconds = time.perf_counter() - began
        name = f"this project {precision}, {embedder.backend.describe()['attention']}"
        self.add(name, seconds, precision, min_cosine=f"{least:.6f}")
        return embedder

    def variants(self) -> None:
        """Other ways to compute the same; what does not run on this device says so."""
        ways = {"nested": attending("nested"), "compiled": compiled}
        if self.device == "cpu":
            ways = {"groups": attending("groups")}
        for name, change in ways.items():
            try:
                self.engine("fp16", change).close()
            except Exception as error:
                print(f"{name} does not run here: {error}", flush=True)

    def files(self, embedder: Embedder, folder: Path, sources: list[Path]) -> None:
        """Whole files, and what is left of the engine's rate."""
        alone = self.rows[-1]["rows_per_s"]
        for label, kind in FORMATS.items():
            out = folder / "outputs"
            out.mkdir()
            seconds, count = through_files(embedder, sources, out, kind)
            shutil.rmtree(out)
            share = f"{count / seconds / alone:.3f}"
            self.add(f"file to file, {label}", seconds, "fp16", share_of_engine=share)


def measured(
    folder: Path, table: pa.Table, sources: list[Path], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Engine, sentence-transformers and whole files on the card."""
    texts = table["body"].combine_chunks().cast(pa.large_string())
    checked = posts(options.data).slice(0, options.rows)
    taken = Measurement(texts, checked, options.device)
    taken.peer()
    for precision in ("fp32", "bf16"):
        taken.engine(precision).close()
    taken.variants()
    with taken.engine("fp16") as embedder:
        taken.files(embedder, folder, sources)
    return taken.rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--device", default="cuda:0", help="cuda:0, or cpu to try this program.")
    parser.add_argument("--simulate", action="store_true", help="Even where there is a card.")
    parser.add_argument("--patience", type=float, default=300, help="Seconds to wait for idleness.")
    parser.add_argument("--priority", type=int, default=0, help="Of this process.")
    options = parser.parse_args()
    import torch

    facts = {**host_facts(), "load_before": f"{quiet(patience=options.patience):.2f}"}
    if options.priority:
        prefer(options.priority)
        facts["load_before"] += f", measured with priority {options.priority}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = comments(options.rows, options.data)
        sources = equal_files(folder / "chains", table, FILES)
        facts["data"] = f"{options.rows:,} parts of {data_name(options.data)}"
        if options.device == "cpu" or (torch.cuda.is_available() and not options.simulate):
            rows = measured(folder, table, sources, options)
            show(rows, "On the card")
            if options.device != "cpu":
                rows += stage_rows(folder, table)
                print(write_csv("embedding_gpu", rows, facts))
            return
        print("No CUDA device here: a model and a simulated card.", flush=True)
        rows = modelled_and_simulated(folder, table, sources)
        print(write_csv("embedding_gpu_model", rows, facts))


if __name__ == "__main__":
    main()
