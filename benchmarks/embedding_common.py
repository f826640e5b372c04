"""What the embedding benchmarks share: data, facts about the host, matrix-product rates, CSV."""

from __future__ import annotations

import contextlib
import csv
import datetime
import os
import platform
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reddit_assets.engines.host import available_cores, cpu_name

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
REAL_DATA = REPOSITORY.parent / "shared" / "data" / "chains"
SAMPLE = REPOSITORY / "demo" / "chains"
PACKAGES = (
    "torch",
    "sentence-transformers",
    "onnxruntime",
    "openvino",
    "tokenizers",
    "nanotoken",
    "pyarrow",
    "numpy",
)
MODEL = "all-MiniLM-L6-v2"


def chain_files(folder: Path | None = None) -> list[Path]:
    """Chain files of ``folder``, else of the real data, else of the sample."""
    for candidate in [folder] if folder else [REAL_DATA, SAMPLE]:
        files = sorted(candidate.glob("*/*/*.parquet")) if candidate else []
        if files:
            return files
    raise SystemExit(
        "No chain files. Make the sample (`reddit-assets sample --root demo`) or pass --data."
    )


def posts(folder: Path | None = None, count: int | None = None, seed: int = 0) -> pa.Array:
    """Texts of the chain files; ``count`` of them at random, in random order."""
    tables = [pq.read_table(file, columns=["body"]) for file in chain_files(folder)]
    texts = pa.concat_tables(tables)["body"].combine_chunks()
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.chunk(0)
    if count is None:
        return texts
    order = np.random.default_rng(seed).permutation(len(texts))[:count]
    return texts.take(pa.array(order))


def data_name(folder: Path | None = None) -> str:
    """What the posts are, without a path of this machine."""
    files = chain_files(folder)
    if REAL_DATA in files[0].parents:
        return "public-domain posts of 24 subreddits (14,400 rows)"
    return "generated sample" if SAMPLE in files[0].parents else "own data"


def host_facts() -> dict[str, str]:
    """Processor, cores, system and versions: columns of every row."""
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.date.today().isoformat(),
        "processor": cpu_name(),
        "cores": str(available_cores()),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": "; ".join(versions),
        "load_before": f"{os.getloadavg()[0]:.2f}",
    }


def write_csv(name: str, rows: Sequence[dict[str, Any]], facts: dict[str, str]) -> Path:
    """Write ``benchmarks/results/<name>.csv``; every row carries the facts."""
    path = RESULTS / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, [*columns, *facts])
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, **facts})
    return path


def show(rows: Sequence[dict[str, Any]], title: str) -> None:
    """Print rows as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in columns))
    Console(width=200).print(table)


def quiet(limit: float = 1.5, patience: float = 300.0) -> float:
    """Wait until the host is idle, at most ``patience`` seconds; the load then."""
    until = time.monotonic() + patience
    while os.getloadavg()[0] > limit and time.monotonic() < until:
        time.sleep(5)
    return os.getloadavg()[0]


def prefer(priority: int, pid: int = 0) -> None:
    """Raise a process before others: its own priority, and its session's where Linux groups.

    Args:
        priority: as ``nice`` counts, below 0 as root only.
        pid: of the process; 0 is this one, whose later threads and children inherit the priority.
    """
    os.setpriority(os.PRIO_PROCESS, pid, priority)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid or 'self'}/autogroup").write_text(str(priority))
