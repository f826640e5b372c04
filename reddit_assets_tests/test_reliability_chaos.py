"""The chaos experiment, short. ``make chaos`` runs the long one."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos import Plan, run_chaos


@pytest.mark.slow
def test_nothing_is_lost_whatever_dies(tmp_path: Path) -> None:
    said: list[str] = []
    plan = Plan(
        files=300,
        leased=4,
        plain=2,
        lease=3.0,
        lost=6.0,
        freezes=1,
        redis_kills=1,
        restarts=1,
        limit=120,
    )
    report = run_chaos(plan, tmp_path, said.append)
    assert report.faults() == {}, "\n".join([str(report), *said])
    assert report.kills >= 3
    assert report.redis_kills == 1
    assert 0 < report.by_plain_consumers < plan.files
