"""The host's benchmark: a report that people and programs can read."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from reddit_assets.engines.embedding import peak
from reddit_assets.engines.embedding.bench import bench_table, run_bench
from reddit_assets.engines.embedding.model import find_model
from reddit_assets.errors import ModelNotFoundError


@pytest.fixture(autouse=True)
def short_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "SECONDS", 0.02)


def test_bench_reports_rates_and_the_best_settings(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    try:
        spec = find_model("all-MiniLM-L6-v2", tmp_path)
    except ModelNotFoundError as error:
        pytest.skip(str(error))
    # Given one backend, two budgets and a few texts
    said: list[str] = []
    report = run_bench(
        spec,
        backend="onnx",
        device="cpu",
        threads=1,
        budgets=(64, 256),
        texts=["a short text", "and a longer one " * 8] * 4,
        seconds=0.05,
        progress=said.append,
    )
    # Then both are measured and checked, and the faster one is the best
    assert [row["max_batch_tokens"] for row in report["results"]] == [64, 256]
    assert all(row["conformant"] for row in report["results"])
    assert all(row["tokens_per_second"] > 0 and row["gflops"] > 0 for row in report["results"])
    fastest = max(report["results"], key=lambda row: row["tokens_per_second"])
    assert report["best"]["max_batch_tokens"] == fastest["max_batch_tokens"]
    assert said
    # and it is JSON, and a table that names the settings
    assert json.loads(json.dumps(report)) == report
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(bench_table(report))
    assert "REDDIT_BACKEND=onnx" in console.export_text()


def test_a_backend_that_cannot_run_is_named_in_the_report(tmp_path: Path) -> None:
    try:
        spec = find_model("all-MiniLM-L6-v2", tmp_path)
    except ModelNotFoundError as error:
        pytest.skip(str(error))
    report = run_bench(spec, backend="onnx", device="cpu", precision="bf16", threads=1, texts=["a"])
    assert "fp32 or int8" in report["results"][0]["error"]
    assert report["best"] is None
    Console(file=io.StringIO()).print(bench_table(report))
