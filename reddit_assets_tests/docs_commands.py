"""The command lines that the pages name: found, and told apart into runs and readings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NOT_RUN", "PAGES", "TOP", "Line", "is_slow", "lines_of", "reason_not_to_run"]

TOP = Path(__file__).parent.parent
PAGES = sorted(
    {TOP / "README.md", *TOP.glob("docs/**/*.md"), *TOP.glob("deploy/**/*.md")}
    | {TOP / "models" / "README.md"}
)

# What stands for something of the reader's.
PLACEHOLDERS = {
    "SUBREDDIT": "AskHistorians",
    "NAME": "AskHistorians",
    "DIR": "data",
    "KEY": "as/AskHistorians/chains_chunk_0",
    "COMMAND": "scan",
}

# Commands that take seconds: they are run on the first page that names them, and parsed on others.
SLOW = ("model set", "nightly", "reconcile", "report --sink instance")

# Commands that are only parsed, and why. The words must begin the command, or be among its flags.
NOT_RUN = {
    "up": "runs until it is stopped, or for minutes: test_local_up.py",
    "worker": "runs until it is stopped: test_worker_life.py",
    "report": "runs until it is stopped; `report --sink instance` is run until all is reported",
    "maps": "serves until it is stopped: test_local_maps.py",
    "bench": "measures for minutes: test_embedding_bench.py",
    "verify": "loads the model for seconds: test_cli_verify.py",
    "export-onnx": "loads the model for seconds: test_embedding_model.py",
    "ingest": "needs dumps, and seconds: test_ingest.py",
    "prune": "needs Dagster on Postgres: test_platform_postgres.py",
    "doctor": "loads the model for seconds, and fails on a host that lacks something: "
    "test_cli_doctor.py",
    "queue clear": "asks first: test_cli_commands.py",
    "--open": "opens a browser",
    "--watch": "goes on until it is stopped: test_cli_doctor.py",
}


@dataclass(frozen=True)
class Line:
    """A command of ours in a page.

    Attributes:
        program: `reddit-assets` or `make`.
        words: what follows it.
        text: as the page has it.
    """

    program: str
    words: tuple[str, ...]
    text: str


def lines_of(text: str) -> list[Line]:
    """The commands of a page, in its order, each once."""
    found: dict[tuple[str, ...], Line] = {}
    for piece in _code(text):
        for line in _parsed(piece):
            found.setdefault((line.program, *line.words), line)
    return list(found.values())


def _code(text: str) -> Iterator[str]:
    """Lines of blocks of commands, and pieces of code within sentences."""
    for part in re.split(r"^( *```.*?^ *```)$", text, flags=re.MULTILINE | re.DOTALL):
        if part.lstrip().startswith("```"):
            language = part.lstrip().split("\n", 1)[0].strip("` ")
            if language in ("", "sh"):
                yield from part.splitlines()[1:-1]
        else:
            yield from (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", part))


def _parsed(piece: str) -> Iterator[Line]:
    # Behind two or more spaces, a block has a remark.
    command = re.split(r"\s{2,}(?=[^-])|\s#\s", piece.strip())[0]
    if not re.search(r"(^|\s|/)(reddit-assets|make)(\s|$)", command):
        return
    for words in _parts(shlex.split(command)):
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words[:3] == ["watch", "-n", "2"]:
            words = words[3:]
        if words[:1] == ["make"] or (len(words) > 1 and words[0] == "reddit-assets"):
            yield Line(words[0], tuple(PLACEHOLDERS.get(w, w) for w in words[1:]), piece.strip())


def _parts(words: list[str]) -> Iterator[list[str]]:
    """The commands that a line joins."""
    part: list[str] = []
    for word in [*words, ";"]:
        if word in ("|", "&&", ";"):
            yield part
            part = []
        else:
            part.append(word)


def reason_not_to_run(words: tuple[str, ...]) -> str | None:
    """Why a command is only parsed; ``None`` if it is run."""
    if is_slow(words):
        return None
    for prefix, reason in NOT_RUN.items():
        if prefix in words if prefix.startswith("--") else _begins(words, prefix):
            return reason
    return None


def is_slow(words: tuple[str, ...]) -> bool:
    """Whether a command is run on one page alone."""
    return any(_begins(words, prefix) for prefix in SLOW)


def _begins(words: tuple[str, ...], prefix: str) -> bool:
    return words[: len(prefix.split())] == tuple(prefix.split())
