"""Holds results against ``gates.toml``: each metric, as a ratio to its peer, has a limit.

    python benchmarks/check.py [--results FOLDER]

Looks at the committed results, or at those of a folder (a fresh run writes over the committed
ones). The exit status is 1 if a ratio is beyond its limit, or a row that a gate names is missing.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
GATES = HERE / "gates.toml"
RESULTS = HERE / "results"


@dataclass(frozen=True)
class Gate:
    """A limit of a metric.

    Attributes:
        result: ``results/<result>.csv``.
        metric: the column.
        unit: of the metric.
        of: the rows that count, by the values of columns: their median with ``to``, else the worst.
        to: the peer's rows in the same file; their median counts.
        to_metric: the peer's column, if it is another one; of the same row without ``to``.
        least, most: limits of the ratio; of the metric itself where there is no peer.
        optional: whether a result without such rows is fine, since not every host can make them.
    """

    result: str
    metric: str
    unit: str
    of: Mapping[str, str] = field(default_factory=dict)
    to: Mapping[str, str] = field(default_factory=dict)
    to_metric: str = ""
    least: float | None = None
    most: float | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        if self.least is None and self.most is None:
            raise ValueError(f"The gate of {self.name} has neither `least` nor `most`.")

    @property
    def name(self) -> str:
        """The metric and whose it is."""
        whose = ", ".join(self.of.values())
        return f"{self.result}: {self.metric}" + (f" of {whose}" if whose else "")

    @property
    def peer(self) -> str:
        """What it is a ratio to."""
        return ", ".join(self.to.values()) or self.to_metric

    def value(self, rows: Sequence[Mapping[str, str]]) -> float | None:
        """The ratio in a result; ``None`` where rows are missing."""
        own = [row for row in rows if _is(row, self.of) and row.get(self.metric)]
        column = self.to_metric or self.metric
        peers = [float(row[column]) for row in rows if _is(row, self.to) and row.get(column)]
        if not own or (self.to and not peers):
            return None
        if self.to:
            return statistics.median(float(row[self.metric]) for row in own) / statistics.median(
                peers
            )
        ratios = [
            float(row[self.metric]) / (float(row[self.to_metric]) if self.to_metric else 1.0)
            for row in own
        ]
        return max(ratios) if self.least is None else min(ratios)

    def holds(self, value: float) -> bool:
        """Whether a ratio is within the limits."""
        above = self.least is None or value >= self.least
        return above and (self.most is None or value <= self.most)


def _is(row: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(row.get(name) == text for name, text in wanted.items())


def read_gates(path: Path = GATES) -> list[Gate]:
    """All gates of the file."""
    return [Gate(**entry) for entry in tomllib.loads(path.read_text())["gate"]]


def check(gates: Sequence[Gate], results: Path) -> list[tuple[str, str]]:
    """A line for each gate: ``holds``, ``FAILS``, or ``absent``; and for results without one."""
    lines = []
    for gate in gates:
        path = results / f"{gate.result}.csv"
        rows: list[dict[str, str]] = []
        if path.exists():
            with open(path, newline="") as file:
                rows = list(csv.DictReader(file))
        value = gate.value(rows)
        if value is None:
            verdict = "absent" if gate.optional else "FAILS"
            lines.append((verdict, f"{gate.name}: no such row in {path.name}"))
            continue
        limits = [
            f"{word} {limit:g}"
            for word, limit in (("at least", gate.least), ("at most", gate.most))
            if limit is not None
        ]
        what = f"times {gate.peer} ({gate.unit})" if gate.peer else gate.unit
        verdict = "holds" if gate.holds(value) else "FAILS"
        lines.append((verdict, f"{gate.name}: {value:.4g} {what}, {' and '.join(limits)}"))
    gated = {gate.result for gate in gates}
    for path in sorted(results.glob("*.csv")):
        if path.stem not in gated:
            lines.append(("no gate", f"{path.name} has none in {GATES.name}"))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    lines = check(read_gates(), parser.parse_args().results)
    for verdict, line in lines:
        print(f"{verdict:8} {line}")
    failed = sum(verdict == "FAILS" for verdict, _ in lines)
    print(f"{len(lines) - failed} of {len(lines)} hold." if failed else "All gates hold.")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
