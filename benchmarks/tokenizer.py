"""Texts to token ids: nanotoken against tokenizers, alone and inside this project's tokenizer.

    python benchmarks/tokenizer.py [--rounds 5] [--strings 120000] [--data FOLDER]

Every arrangement runs in a process of its own, on one thread and on two, and they take turns, round
after round; the best round counts. First ids are compared: of all posts, whole and cut to the
model's 256 tokens, and of generated strings of all scripts. Writes ``results/tokenizer.csv``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedding_common import MODEL, data_name, host_facts, posts, quiet, show, write_csv

from reddit_assets.engines.embedding.model import find_model
from reddit_assets.engines.embedding.tokenizer import Tokenizer
from reddit_assets.engines.embedding.tokenizer_backends import FastTokenizer, ReferenceTokenizer
from reddit_assets.engines.embedding.tokenizer_proof import difference, random_texts

PEER = "tokenizers"
ARRANGEMENTS = (PEER, "nanotoken", "this project, tokenizers", "this project, nanotoken")
BATCH = 10_000


def spec() -> Any:
    return find_model(MODEL, Path("models"))


def opened(name: str, parallel: bool) -> Callable[[Any, list[str]], int]:
    """A function that tokenizes all posts, given as Arrow and as strings, and counts the ids."""
    model = spec()
    if name.startswith("this project"):
        if name.endswith("tokenizers"):
            sys.modules["nanotoken"] = None  # type: ignore[assignment]  # As if not installed.
        tokenizer = Tokenizer(model, parallel=parallel)
        assert tokenizer.describe().startswith(name.split(", ")[1])
        return lambda array, rows: len(tokenizer(array).ids)
    kinds = {PEER: ReferenceTokenizer, "nanotoken": FastTokenizer}
    options = {} if name == PEER else {"parallel": parallel}
    backend = kinds[name](model.tokenizer_file, **options)
    return lambda array, rows: len(backend.encode(rows, model.max_tokens).ids)


def serve(name: str, threads: int, data: Path | None) -> None:
    """In a process of its own: load, then time all posts whenever asked; the first time is cold."""
    encode = opened(name, threads > 1)
    array = posts(data)
    rows = array.to_pylist()
    for _ in sys.stdin:
        began = time.perf_counter()
        count = encode(array, rows)
        print(json.dumps([time.perf_counter() - began, count]), flush=True)


def compared(data: Path | None, strings: int) -> dict[str, Any]:
    """How many texts, and which is the first that differs."""
    model = spec()
    reference, fast = ReferenceTokenizer(model.tokenizer_file), FastTokenizer(model.tokenizer_file)
    rows = posts(data).to_pylist()
    found: list[str | None] = []
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        found += [difference(fast, reference, part, limit) for limit in (None, model.max_tokens)]
    for seed in range(-(-strings // BATCH)):
        part = list(random_texts(reference, BATCH, seed))
        found.append(difference(fast, reference, part, None))
    return {
        "posts_compared": len(rows),
        "strings_compared": BATCH * -(-strings // BATCH),
        "first_difference": next(filter(None, found), "none"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--strings", type=int, default=120_000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--patience", type=float, default=300, help="Seconds to wait for idleness.")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], int(options.serve[1]), options.data)
        return
    facts = {**host_facts(), "load_before": f"{quiet(patience=options.patience):.2f}"}
    equal = compared(options.data, options.strings)
    print(equal, flush=True)
    servers = {}
    for name in ARRANGEMENTS:
        for threads in (1, 2):
            command = [sys.executable, __file__, "--serve", name, str(threads)]
            command += ["--data", str(options.data)] if options.data else []
            limits = {
                "RAYON_NUM_THREADS": str(threads),
                "TOKENIZERS_PARALLELISM": str(threads > 1).lower(),
            }
            servers[name, threads] = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **limits},
            )
    times: dict[tuple[str, int], list[float]] = {key: [] for key in servers}
    tokens = set()
    for _ in range(options.rounds):
        for key, server in servers.items():
            assert server.stdin is not None
            assert server.stdout is not None
            print(file=server.stdin, flush=True)
            seconds, count = json.loads(server.stdout.readline())
            times[key].append(seconds)
            tokens.add(count)
    for server in servers.values():
        server.communicate()
    if len(tokens) != 1:
        raise SystemExit(f"The arrangements made different numbers of tokens: {tokens}")
    total = tokens.pop()
    rows = [
        {
            "arrangement": name,
            "threads": threads,
            "tokens": total,
            "cold_tokens_per_s": round(total / taken[0]),
            "tokens_per_s": round(total / min(taken)),
            "x_tokenizers": f"{min(times[PEER, threads]) / min(taken):.1f}",
            **equal,
        }
        for (name, threads), taken in times.items()
    ]
    show([{k: v for k, v in row.items() if "compared" not in k} for row in rows], "Tokenizing")
    facts["data"] = data_name(options.data)
    print(write_csv("tokenizer", rows, facts))


if __name__ == "__main__":
    main()
