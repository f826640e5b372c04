"""Every command in the pages is run, or at least parsed by the real parser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

from reddit_assets.cli.app import app, run
from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import Failure
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Job, Kind
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.settings import Settings, load_settings, variable_of
from reddit_assets_tests.docs_commands import (
    NOT_RUN,
    PAGES,
    TOP,
    Line,
    is_slow,
    lines_of,
    reason_not_to_run,
)
from reddit_assets_tests.factories import claim_jobs

KEYS = [
    f"{subreddit}/chains_chunk_{number}"
    for subreddit in ("as/AskHistorians", "as/AskReddit", "co/Cooking")
    for number in (0, 1)
]
FAILED = "as/AskHistorians/chains_chunk_1"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with three subreddits of three topics each, embedded and clustered."""
    root = tmp_path_factory.mktemp("pages") / "data"
    layout = Layout.of(root)
    dice = np.random.default_rng(7)
    topics = dice.normal(size=(3, 384))
    for key in KEYS:
        vectors = np.repeat(topics, 20, axis=0) + dice.normal(size=(60, 384)) / 4
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        texts = [f"rome oven boat {number % 7}" for number in range(60)]
        chain = pa.table({"id": [f"{key}{n}" for n in range(60)], "body": texts})
        columns = {f"emb_{n:03d}": vectors[:, n].astype(np.float32) for n in range(384)}
        embedding = pa.table(
            {**dict(zip(chain.column_names, chain.columns, strict=True)), **columns}
        )
        for path, table in (
            (layout.chain_path(key), chain),
            (layout.embedding_path(key), embedding),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, path)
    assert run(["cluster", "--root", str(root)]) == 0
    return root


@pytest.fixture
def queue(done: Path, tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> JobQueue:
    """The reader's folder: `data` in it is the root. The queue that belongs to it."""
    (tmp_path / "dagster_home").mkdir()
    (tmp_path / "dagster_home" / "dagster.yaml").touch()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster_home"))
    shutil.copytree(done, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDDIT_ROOT", str(tmp_path / "data"))
    monkeypatch.setenv("REDIS_URL", valkey_url)
    monkeypatch.setenv("REDDIT_SETTLE_SECONDS", "0")
    return JobQueue(connect(load_settings()), Kind.EMBED)


def fail_a_file(queue: JobQueue) -> None:
    """Makes the file that the pages name a dead letter, as far as it is none."""
    layout = Layout.from_settings(load_settings())
    queue.enqueue([Job(Kind.EMBED, FAILED, "1:1")], layout)
    for claim in claim_jobs(queue, "w", 10, 60.0) or []:
        queue.fail(claim, Failure("torn", permanent=True), max_attempts=1, retry_seconds=1.0)


@cache
def the_command() -> Any:
    """The real parser."""
    return typer.main.get_command(app)


def parse(words: tuple[str, ...]) -> None:
    """Reads a command with the real parser, and its settings with the real checks."""
    command = the_command()
    rest = list(words)
    assert rest[0] in command.commands, "no such command"
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    read = command.make_context("reddit-assets", rest).params
    settings = {variable_of(name): name for name in Settings.model_fields}
    given = {}
    for flag in command.params:
        told = re.search(r"\[([A-Z_]+)\]$", getattr(flag, "help", None) or "")
        if told and read[flag.name] is not None:
            given[settings[told[1]]] = read[flag.name]
    if given:
        load_settings(**given)


_ran: set[tuple[str, ...]] = set()


def run_slowly(words: tuple[str, ...]) -> int:
    """Runs a command once in all pages; its exit status.

    A report ends when nothing is left. The nightly has a process of its own, since definitions
    read the environment once. `--dry-run` is left out: its status says that there are differences.
    """
    words = tuple(word for word in words if word not in ("--dry-run", "data", "--root"))
    if words in _ran:
        parse(words)
        return 0
    _ran.add(words)
    if words[0] == "nightly":
        command = [sys.executable, "-m", "reddit_assets.cli", *words]
        return subprocess.run(command, stdout=subprocess.DEVNULL).returncode
    return run([*words, *(["--until-empty"] if words[0] == "report" else [])])


def ours(page: Path) -> list[Line]:
    return [line for line in lines_of(page.read_text()) if line.program == "reddit-assets"]


@pytest.mark.parametrize("page", [p for p in PAGES if ours(p)], ids=lambda p: p.stem)
def test_the_commands_of_a_page_work_one_after_the_other(
    page: Path, queue: JobQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in ours(page):
        if reason_not_to_run(line.words):
            try:
                parse(line.words)
            except Exception as error:
                pytest.fail(f"{page.name}: `{line.text}`: {error}")
            continue
        if line.words[0] == "dead":
            fail_a_file(queue)
        status = run_slowly(line.words) if is_slow(line.words) else run(line.words)
        assert status == 0, f"{page.name}: `{line.text}`\n{capsys.readouterr().err}"


def test_the_examples_of_each_command_are_read_by_its_own_parser() -> None:
    command = the_command()
    groups = [command, *command.commands.values()]
    lines = [line for each in groups for line in lines_of(f"```\n{each.epilog or ''}\n```")]
    assert len(lines) > 60
    for line in lines:
        parse(line.words)


def test_every_reason_not_to_run_a_command_is_needed_and_names_a_test_that_exists() -> None:
    words = [line.words for page in PAGES for line in ours(page)]
    used = {reason_not_to_run(each) for each in words}
    assert set(NOT_RUN.values()) - used <= {NOT_RUN["queue clear"]}
    named = [name for reason in NOT_RUN.values() for name in re.findall(r"test_\w+\.py", reason)]
    assert [name for name in named if not (TOP / "reddit_assets_tests" / name).exists()] == []


def test_every_target_of_make_exists() -> None:
    targets = {
        word
        for page in PAGES
        for line in lines_of(page.read_text())
        if line.program == "make"
        for word in line.words
    }
    assert len(targets) > 8
    environment = {**os.environ, "MAKEFLAGS": ""}
    made = subprocess.run(
        ["make", "--dry-run", *sorted(targets)],
        cwd=TOP,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr


def test_every_extra_and_every_program_exists() -> None:
    extras = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    text = "\n".join(page.read_text() for page in PAGES)
    named = {
        name
        for each in re.findall(r"(?:reddit-assets|'\.)\[([\w,]+)\]'", text)
        for name in each.split(",")
    }
    assert {"dagster", "onnx", "cluster", "torch"} <= named <= set(extras)
    programs = set(re.findall(r"benchmarks/(\w+\.py)", text))
    assert programs
    assert [name for name in programs if not (TOP / "benchmarks" / name).exists()] == []
