"""``make bench-check``: the committed results keep their limits, and a worse number is seen."""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import check  # noqa: E402 - of benchmarks/


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BENCHMARKS / "results", tmp_path / "results"))


def change(path: Path, gate: check.Gate, factor: float) -> bool:
    """Write the gate's metric, in the rows that count, as ``factor`` times what it was.

    Returns whether there are such rows.
    """
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    there = gate.value(rows) is not None
    for row in rows:
        if all(row[name] == text for name, text in gate.of.items()) and row[gate.metric]:
            row[gate.metric] = str((float(row[gate.metric]) or 1.0) * factor)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return there


def test_committed_results_keep_every_limit(results: Path) -> None:
    failing = [
        line for verdict, line in check.check(check.read_gates(), results) if verdict == "FAILS"
    ]
    assert not failing


def test_a_changed_number_is_seen_by_every_gate(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["check.py", "--results", str(results)])
    for gate in check.read_gates():
        path = results / f"{gate.result}.csv"
        before = path.read_bytes()
        # Given a result beyond the limit of one gate
        if not change(path, gate, 0.1 if gate.most is None else 10.0):
            assert gate.optional
            continue
        # If all are checked, Then that gate fails, by name
        with pytest.raises(SystemExit) as ended:
            check.main()
        assert ended.value.code == 1
        assert f"FAILS    {gate.name}: " in capsys.readouterr().out
        path.write_bytes(before)
    with pytest.raises(SystemExit) as ended:
        check.main()
    assert ended.value.code == 0


def test_a_missing_row_fails_and_a_result_without_a_gate_is_named(results: Path) -> None:
    gate = check.Gate("jobqueue", "per_second", "jobs/s", {"step": "no such step"}, least=1)
    lines = dict(check.check([gate], results))
    assert lines["FAILS"] == "jobqueue: per_second of no such step: no such row in jobqueue.csv"
    assert lines["no gate"].endswith(".csv has none in gates.toml")
    with pytest.raises(ValueError, match="neither `least` nor `most`"):
        check.Gate("jobqueue", "per_second", "jobs/s")
