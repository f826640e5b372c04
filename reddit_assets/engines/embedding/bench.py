"""``reddit-assets bench``: how fast this host embeds, per backend and budget, and what is best."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from reddit_assets.engines.embedding.conformance import check
from reddit_assets.engines.embedding.engine import Embedder
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.engines.embedding.peak import Peak, matmul_peak
from reddit_assets.engines.embedding.reference import golden
from reddit_assets.engines.embedding.select import Choice, candidates, make_backend
from reddit_assets.engines.embedding.tokenizer import Texts, Tokenizer, TokenTable
from reddit_assets.engines.embedding.weights import is_bert_family, load_bert
from reddit_assets.engines.host import available_cores, cpu_name
from reddit_assets.errors import RedditAssetsError

__all__ = ["BUDGETS", "bench_table", "run_bench"]

BUDGETS = {
    "cpu": (256, 512, 1_024, 2_048),
    "cuda": (16_384, 65_536, 131_072),
    "mps": (4_096, 16_384),
}
ROUNDS = 3
"""How often each budget is timed; budgets take turns, and the best time counts."""


def run_bench(
    spec: ModelSpec,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    budgets: tuple[int, ...] | None = None,
    texts: Texts | None = None,
    seconds: float = 2.0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure every backend that can run here.

    Args:
        spec: the model.
        backend, device, precision: as for
            :func:`~reddit_assets.engines.embedding.select.open_embedder`;
            ``auto`` measures all that are installed.
        threads: cores to compute with; ``None`` takes those available.
        budgets: tokens per batch to try; ``None`` takes sensible ones for the device.
        texts: what to embed; ``None`` takes the committed reference texts, repeated.
        seconds: about how long each budget of each backend is timed.
        progress: called with a sentence before each measurement.

    Returns:
        A JSON object: ``host``, ``model``, ``threads``, ``tokens_per_text``, ``matmul_gflops`` and
        ``matmul_by`` (library and shape of the fastest product) by precision, ``results`` (one
        per backend, precision and budget: tokens/s, rows/s, GFLOPS of
        the products with weights, their share of the matrix-product rate, conformance, or the
        ``error`` that kept it from running) and ``best`` (settings of the fastest conformant
        one), or ``None`` there.
    """
    say = progress or (lambda sentence: None)
    threads = threads or available_cores()
    say("Measuring the rate of matrix products")
    peaks = {precision: matmul_peak(precision, threads) for precision in ("fp32", "bf16")}
    source = golden().texts if texts is None else texts
    tokens = Tokenizer(spec)(source)
    flops = load_bert(spec).dense_flops_per_token() if is_bert_family(spec) else None
    results: list[dict[str, Any]] = []
    for choice in _choices(spec, backend, device, precision):
        say(f"Measuring {choice}")
        try:
            results += _measure(spec, choice, threads, budgets, tokens, seconds, flops)
        except RedditAssetsError as error:
            results.append({**vars(choice), "error": str(error)})
    _share(results, peaks)
    return {
        "host": {
            "processor": cpu_name(),
            "system": f"{platform.system()} {platform.machine()}",
            "cores": available_cores(),
            "load": round(os.getloadavg()[0], 2),
        },
        "model": spec.describe(),
        "threads": threads,
        "tokens_per_text": round(float(tokens.lengths.mean()), 1),
        "matmul_gflops": {p: peak and round(peak.gflops, 1) for p, peak in peaks.items()},
        "matmul_by": {p: peak and str(peak) for p, peak in peaks.items()},
        "results": results,
        "best": _best(results),
    }


def bench_table(report: dict[str, Any]) -> Any:
    """The report as a ``rich`` table, fastest first."""
    from rich.table import Table

    host = report["host"]
    table = Table(
        title=f"{report['model']['model']} on {host['processor']}, {report['threads']} threads",
        caption=_caption(report),
    )
    for name in ("backend", "precision", "device"):
        table.add_column(name)
    for name in ("batch tokens", "tokens/s", "rows/s", "GFLOPS", "of matmul", "min cosine"):
        table.add_column(name, justify="right")
    table.add_column("conformant")
    ordered = sorted(report["results"], key=lambda row: -row.get("tokens_per_second", 0.0))
    for row in ordered:
        if "error" in row:
            table.add_row(row["backend"], row["precision"], row["device"], row["error"])
            continue
        share = row["share_of_matmul"]
        table.add_row(
            row["backend"],
            row["precision"],
            row["device"],
            f"{row['max_batch_tokens']:,}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['rows_per_second']:,.0f}",
            "" if row["gflops"] is None else f"{row['gflops']:,.0f}",
            "" if share is None else f"{share:.0%}",
            f"{row['min_cosine']:.6f}",
            "yes" if row["conformant"] else "no",
        )
    return table


def _choices(spec: ModelSpec, backend: str, device: str, precision: str) -> list[Choice]:
    found = list(candidates(spec, backend=backend, device=device, precision=precision))
    if found and found[0].device != "cpu" and device == "auto":
        found += candidates(spec, backend=backend, device="cpu", precision=precision)
    return list(dict.fromkeys(found))


def _measure(
    spec: ModelSpec,
    choice: Choice,
    threads: int,
    budgets: tuple[int, ...] | None,
    tokens: TokenTable,
    seconds: float,
    flops: int | None,
) -> list[dict[str, Any]]:
    opened = make_backend(spec, choice, threads=threads)
    with Embedder(spec, opened) as embedder:
        found = check(embedder)
        tried = budgets or BUDGETS[choice.device.split(",")[0].split(":")[0]]
        began = time.perf_counter()
        embedder.encode_tokens(tokens)
        once = max(time.perf_counter() - began, 1e-3)
        # The same texts again and again, enough of them for one round's share of the time.
        copies = max(1, round(seconds / ROUNDS / once))
        much = tokens.take(np.tile(np.arange(len(tokens)), copies))
        best = dict.fromkeys(tried, float("inf"))
        for _ in range(ROUNDS):
            for budget in tried:
                embedder.max_batch_tokens = budget
                began = time.perf_counter()
                embedder.encode_tokens(much)
                best[budget] = min(best[budget], time.perf_counter() - began)
    total = int(much.cu_seqlens[-1])
    rows = []
    for budget, taken in best.items():
        gflops = None if flops is None else total * flops / taken / 1e9
        rows.append(
            {
                **vars(choice),
                "threads": threads,
                "max_batch_tokens": budget,
                "tokens_per_second": round(total / taken, 1),
                "rows_per_second": round(len(much) / taken, 2),
                "gflops": gflops and round(gflops, 1),
                "share_of_matmul": None,
                "conformant": found.conformant,
                "min_cosine": round(found.min_cosine, 7),
            }
        )
    return rows


def _share(results: list[dict[str, Any]], peaks: dict[str, Peak | None]) -> None:
    """Fill in what share of the processor's matrix-product rate each result is.

    An engine's products are products too: where one was faster than all that were measured alone,
    since something else ran here then, it is the yardstick.
    """
    rows = [row for row in results if row["device"] == "cpu" and row.get("gflops")]
    for row in rows:
        peak = peaks.get(row["precision"])
        if peak and row["gflops"] > peak.gflops:
            peaks[row["precision"]] = replace(
                peak, gflops=row["gflops"], library=f"{row['backend']}, inside the model"
            )
    for row in rows:
        if peak := peaks.get(row["precision"]):
            row["share_of_matmul"] = round(row["gflops"] / peak.gflops, 4)


def _best(results: list[dict[str, Any]]) -> dict[str, Any] | None:
    good = [row for row in results if row.get("conformant")]
    if not good:
        return None
    best = max(good, key=lambda row: row["tokens_per_second"])
    names = ("backend", "device", "precision", "max_batch_tokens", "threads", "tokens_per_second")
    return {name: best[name] for name in names}


def _caption(report: dict[str, Any]) -> str:
    peaks = [f"{precision} {peak}" for precision, peak in report["matmul_by"].items() if peak]
    text = f"Matrix products: {'; '.join(peaks) or 'not measured'}. "
    best = report["best"]
    if best is None:
        return text + "No conformant backend."
    return (
        f"{text}Best: REDDIT_BACKEND={best['backend']} REDDIT_PRECISION={best['precision']} "
        f"REDDIT_BATCH_TOKENS={best['max_batch_tokens']}"
    )
