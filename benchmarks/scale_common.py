"""What benchmarks of the scale share: the host's facts, and a CSV whose rows carry them."""

from __future__ import annotations

import csv
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from reddit_assets.engines.host import cpu_name

__all__ = ["host_facts", "write_rows"]


def host_facts(*packages: str) -> dict[str, str]:
    """Columns of every row: when, on what, how busy, with which versions."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": cpu_name(),
        "load": f"{psutil.getloadavg()[1]:.1f}",
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def write_rows(
    path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]], facts: dict[str, str]
) -> None:
    """Write rows, floats with two digits, each followed by the facts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, *facts])
        for row in rows:
            shown = (f"{value:.2f}" if isinstance(value, float) else value for value in row)
            writer.writerow([*shown, *facts.values()])
