"""The engine alone, against sentence-transformers and the earlier system's loop.

    python benchmarks/embedding_engine.py [--posts 1200] [--slice 600] [--rounds 3]
                                          [--data FOLDER] [--priority N]

Every arrangement runs in a process of its own. The posts are cut into slices; the arrangements
take turns at each slice, round after round, and the best round of each slice counts, so that a
disturbance by other programs hits no side alone. The matrix products that the arrangements are
compared with take their turns as well. On a host that is never idle, ``--priority -20`` (as root)
with short slices measures nearly what an idle one would, and the CSV says so.
Writes ``results/embedding_engine.csv``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from embedding_common import MODEL, data_name, host_facts, posts, prefer, quiet, show, write_csv

from reddit_assets.engines.host import available_cores, cpu_has_bf16

DENSE_FLOPS = 6 * 2 * (4 * 384 * 384 + 2 * 384 * 1536)
"""Operations per token in products with weights."""
PAUSE = 2.0
"""Seconds between two slices in which others may work, when the priority is raised."""
ORIGINAL = "earlier system's loop (onnx fp32, file order, 32 rows, 512 tokens)"
PEER = "sentence-transformers fp32, encode(batch_size=32)"


def spec() -> Any:
    from reddit_assets.engines.embedding.model import find_model

    return find_model(MODEL, Path("models"))


def sentence_transformers(precision: str) -> Callable[[list[str]], np.ndarray]:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(available_cores())
    model = SentenceTransformer(str(spec().weights_dir), device="cpu")
    if precision == "bf16":
        model = model.to(torch.bfloat16)
    return lambda texts: model.encode(texts, batch_size=32, show_progress_bar=False)


def original() -> Callable[[list[str]], np.ndarray]:
    """File order, batches of 32 rows padded to their longest, 512 tokens, numpy mean pooling."""
    import onnxruntime
    from tokenizers import Tokenizer

    from reddit_assets.engines.embedding.graph import build_encoder
    from reddit_assets.engines.embedding.weights import load_bert

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    session = onnxruntime.InferenceSession(
        build_encoder(load_bert(spec())).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    tokenizer = Tokenizer.from_file(str(spec().tokenizer_file))
    tokenizer.enable_truncation(512)
    tokenizer.enable_padding()

    def encode(texts: list[str]) -> np.ndarray:
        parts = []
        for start in range(0, len(texts), 32):
            encoded = tokenizer.encode_batch(texts[start : start + 32])
            ids = np.array([e.ids for e in encoded], np.int64)
            mask = np.array([e.attention_mask for e in encoded], np.int64)
            feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}
            hidden = session.run(None, feeds)[0]
            weight = mask[:, :, None].astype(np.float32)
            mean = (hidden * weight).sum(1) / weight.sum(1)
            parts.append(mean / np.linalg.norm(mean, axis=1, keepdims=True))
        return np.concatenate(parts)

    return encode


def engine(backend: str, precision: str) -> Callable[[Any], np.ndarray]:
    from reddit_assets.engines.embedding.engine import Embedder
    from reddit_assets.engines.embedding.select import Choice, make_backend

    cores = available_cores()
    opened = make_backend(spec(), Choice(backend, "cpu", precision), threads=cores)
    return Embedder(spec(), opened).encode


ARRANGEMENTS: dict[str, Callable[[], Callable[[Any], np.ndarray]]] = {
    PEER: lambda: sentence_transformers("fp32"),
    "sentence-transformers bf16, encode(batch_size=32)": lambda: sentence_transformers("bf16"),
    ORIGINAL: original,
    "this project, onnx fp32": lambda: engine("onnx", "fp32"),
    "this project, openvino fp32": lambda: engine("openvino", "fp32"),
    "this project, torch fp32": lambda: engine("torch", "fp32"),
    "this project, openvino bf16": lambda: engine("openvino", "bf16"),
    "this project, torch bf16": lambda: engine("torch", "bf16"),
}


PRECISIONS = ["fp32", "bf16"] if cpu_has_bf16() else ["fp32"]
MEASURED = [name for name in ARRANGEMENTS if "bf16" not in name or "bf16" in PRECISIONS]
"""Without bfloat16 in hardware it is emulated, at a rate that says nothing."""


def serve(name: str, count: int, size: int, data: Path | None, target: Path) -> None:
    """In a process of its own: load, warm up, then time each slice that is asked for."""
    texts = posts(data, count)
    if name.startswith("peak"):
        from reddit_assets.engines.embedding.peak import matmul_peak

        for _ in sys.stdin:
            found = matmul_peak(name.split()[1], available_cores())
            print(json.dumps(found and [found.gflops, str(found)]), flush=True)
        return
    encode = ARRANGEMENTS[name]()
    parts: list[Any] = [texts.slice(start, size) for start in range(0, count, size)]
    if not name.startswith("this project"):
        parts = [part.to_pylist() for part in parts]  # What its encode() takes; not counted.
    vectors: dict[int, np.ndarray] = {}
    encode(parts[0][:64])
    for line in sys.stdin:
        index = int(line)
        began = time.perf_counter()
        vectors[index] = encode(parts[index])
        seconds = time.perf_counter() - began
        print(json.dumps(seconds), flush=True)
    np.save(target, np.concatenate([vectors[i] for i in range(len(parts))]).astype(np.float32))


class Server:
    """One arrangement, loaded, waiting for slices."""

    def __init__(self, name: str, options: argparse.Namespace, target: Path) -> None:
        command = [sys.executable, __file__, "--posts", str(options.posts), "--serve", name]
        command += ["--slice", str(options.slice)]
        command += ["--target", str(target), "--priority", str(options.priority)]
        if options.data:
            command += ["--data", str(options.data)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ask(self, index: int) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(index, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit("An arrangement ended; its error is above.")
        return json.loads(answer)

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.wait():
            raise SystemExit("An arrangement failed; its error is above.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=1_200)
    parser.add_argument("--slice", type=int, default=600, help="Posts timed at a time.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path)
    parser.add_argument(
        "--patience", type=float, default=300, help="Seconds to wait for an idle host."
    )
    parser.add_argument("--priority", type=int, default=0, help="Of the measured processes.")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--target", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        if options.priority:
            prefer(options.priority)
        serve(options.serve, options.posts, options.slice, options.data, options.target)
        return
    facts = {**host_facts(), "load_before": f"{quiet(patience=options.patience):.2f}"}
    if options.priority:
        facts["load_before"] += f", measured with priority {options.priority}"
    slices = range(-(-options.posts // options.slice))
    seconds: dict[str, dict[int, list[float]]] = {
        name: {index: [] for index in slices} for name in MEASURED
    }
    peaks: dict[str, dict[int, float]] = {precision: {} for precision in PRECISIONS}
    fastest: dict[str, list[Any]] = {precision: [0.0, ""] for precision in PRECISIONS}
    with tempfile.TemporaryDirectory() as folder:
        vectors = {n: Path(folder) / f"{i}.npy" for i, n in enumerate(MEASURED)}
        servers = {name: Server(name, options, vectors[name]) for name in MEASURED}
        yardsticks = {p: Server(f"peak {p}", options, Path(folder) / "unused") for p in peaks}
        for round_ in range(options.rounds):
            for index in slices:
                time.sleep(PAUSE if options.priority else 0)
                for precision, server in yardsticks.items():
                    found = server.ask(0) or [0.0, ""]
                    fastest[precision] = max(fastest[precision], found)
                    peaks[precision][index] = max(peaks[precision].get(index, 0.0), found[0])
                for name, server in servers.items():
                    if name == ORIGINAL and round_:
                        continue  # It takes as long as all others together.
                    taken = server.ask(index)
                    time.sleep(taken / 2 if options.priority else 0)
                    seconds[name][index].append(taken)
            print(f"round {round_ + 1} of {options.rounds} done", flush=True)
        for server in [*servers.values(), *yardsticks.values()]:
            server.end()
        made = {name: np.load(path) for name, path in vectors.items()}
    best = {name: sum(min(times) for times in by.values()) for name, by in seconds.items()}
    rates = {name: sum(by.values()) / len(by) for name, by in peaks.items()}
    facts["matmul_by"] = "; ".join(f"{p} {said}" for p, (_, said) in fastest.items())
    report(options, best, rates, made, facts)


def report(
    options: argparse.Namespace,
    seconds: dict[str, float],
    peaks: dict[str, float],
    made: dict[str, np.ndarray],
    facts: dict[str, str],
) -> None:
    from reddit_assets.engines.embedding.conformance import cosines
    from reddit_assets.engines.embedding.tokenizer import Tokenizer

    lengths = Tokenizer(spec())(posts(options.data, options.posts)).lengths
    tokens = int(lengths.sum())
    flops = tokens * DENSE_FLOPS + 6 * 4 * 384 * float((lengths.astype(float) ** 2).sum())
    rows = []
    for name, best in seconds.items():
        # An engine's own products are products too: none is faster than the fastest seen.
        precision = "bf16" if "bf16" in name else "fp32"
        peaks[precision] = max(peaks[precision], flops / best / 1e9)
    for name, best in seconds.items():
        precision = "bf16" if "bf16" in name else "fp32"
        similar = cosines(made[name], made[PEER])
        weights = tokens * DENSE_FLOPS / best / 1e9
        rows.append(
            {
                "arrangement": name,
                "seconds": f"{best:.2f}",
                "tokens_per_s": round(tokens / best),
                "rows_per_s": f"{options.posts / best:.1f}",
                "x_sentence_transformers_fp32": f"{seconds[PEER] / best:.2f}",
                "x_earlier_system": f"{seconds[ORIGINAL] / best:.2f}",
                "gflops_weights": f"{weights:.0f}",
                "gflops_all": f"{flops / best / 1e9:.0f}",
                "matmul_gflops": f"{peaks[precision]:.0f}",
                "share_of_matmul_weights": f"{weights / peaks[precision]:.3f}",
                "share_of_matmul_all": f"{flops / best / 1e9 / peaks[precision]:.3f}",
                "min_cosine": f"{similar.min():.6f}",
                "mean_cosine": f"{similar.mean():.6f}",
            }
        )
    facts = {
        **facts,
        "data": f"{options.posts} of {data_name(options.data)}, {tokens / options.posts:.0f} "
        f"tokens on average, timed by {options.slice}",
    }
    shown = (
        "arrangement",
        "seconds",
        "tokens_per_s",
        "x_sentence_transformers_fp32",
        "x_earlier_system",
        "share_of_matmul_weights",
        "share_of_matmul_all",
        "min_cosine",
    )
    show([{k: row[k] for k in shown} for row in rows], "Engine alone, tokenization included")
    print(write_csv("embedding_engine", rows, facts))


if __name__ == "__main__":
    main()
