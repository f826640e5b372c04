"""Logs: JSON lines that name their job, and files that do not grow without end."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reddit_assets.cli.logs import JsonFormatter
from reddit_assets.errors import Failure
from reddit_assets.ledger.job import Kind, Result
from reddit_assets.local.logs import KEPT, rotate
from reddit_assets.tasks.messages import Finished
from reddit_assets.worker.display import Display


def test_a_json_line_names_kind_key_and_job(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    display = Display()
    event = Finished("t", Result("7f", "embeddings", "as/Tee\u2028/c"), rows=5, seconds=0.5)
    display.finished(Kind.EMBED, "as/Tee\u2028/c", event)
    display.failed(Kind.EMBED, "as/Tea/d", Failure("no", type="BadFileError"), "dead", "8a")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        logging.getLogger("x").exception("went wrong")
    lines = [JsonFormatter().format(record) for record in caplog.records]
    assert all(len(line.splitlines()) == 1 for line in lines)
    done, failed, wrong = (json.loads(line) for line in lines)
    assert (done["kind"], done["key"], done["job"]) == ("embed", "as/Tee\u2028/c", "7f")
    assert (failed["key"], failed["job"], failed["outcome"]) == ("as/Tea/d", "8a", "dead")
    assert failed["reason"] == "BadFileError"
    assert failed["level"] == "error"
    assert "ZeroDivisionError" in wrong["traceback"]


def test_a_log_is_emptied_under_its_writer(tmp_path: Path) -> None:
    # Given a process that appends to its log all the time
    log = tmp_path / "worker.log"
    script = "import time\nfor n in range(10**6): print(n, flush=True); time.sleep(0.001)"
    with (
        log.open("ab") as file,
        subprocess.Popen([sys.executable, "-c", script], stdout=file) as it,
    ):
        try:
            for _ in range(KEPT + 2):
                deadline = time.monotonic() + 30
                while log.stat().st_size < 300 and time.monotonic() < deadline:
                    time.sleep(0.01)
                # If it is rotated
                assert rotate([log, tmp_path / "none.log"], 200) == [log]
        finally:
            it.kill()
    # Then so many parts are there, and the log has gone on from its beginning, without a hole
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["worker.log", *(f"worker.log.{number}" for number in range(1, KEPT + 1))]
    assert b"\0" not in log.read_bytes()
    assert (tmp_path / "worker.log.1").stat().st_mode & 0o077 == 0
    first, last = (tmp_path / f"worker.log.{n}" for n in (KEPT, 1))
    assert int(first.read_text().split()[0]) < int(last.read_text().split()[0])
    assert rotate([log], 10**9) == []
