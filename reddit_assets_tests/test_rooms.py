"""Imports go one way, and light hosts import no heavy packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "reddit_assets"

# Each room with those it may import; errors and settings are everybody's.
ROOMS: dict[str, set[str]] = {
    "corpus": set(),
    "engines.host": set(),
    "engines.vectors": set(),
    "engines.embedding": {"engines.host", "engines.vectors"},
    "engines.clustering": {"engines.host", "engines.vectors"},
    "ingest": {"corpus", "engines.host"},
    "workspace": {"corpus", "ledger", "engines.clustering.params"},
    "tasks": {"ingest", "workspace", "corpus", "engines", "ledger.job"},
    "ledger": {"corpus"},
    "figures": {"workspace", "corpus", "ledger"},
    "alerts": {"figures", "workspace", "ledger"},
    "metrics": {"figures", "workspace", "ledger"},
    "doctor": {"workspace", "corpus", "ledger", "engines"},
    "worker": {"metrics", "workspace", "corpus", "ledger", "tasks", "platform.reporting"},
    "platform": {
        "ingest",
        "alerts",
        "figures",
        "workspace",
        "corpus",
        "ledger",
        "engines.clustering.params",
        "engines.vectors",
        "tasks.corpus_map",
    },
    "local": {"ingest", "figures", "corpus", "ledger", "engines.host", "workspace"},
    "definitions": {"platform"},
    "settings": set(),
    "errors": set(),
}


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {
        name.removeprefix("reddit_assets.") for name in found if name.startswith("reddit_assets.")
    }


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    allowed = ROOMS[room] | {room, "errors", "settings"}
    place = PACKAGE / room.replace(".", "/")
    files = [place.with_suffix(".py")] if place.with_suffix(".py").exists() else None
    for path in files or sorted(place.rglob("*.py")):
        for name in imports_of(path):
            fine = any(name == one or name.startswith(f"{one}.") for one in allowed)
            assert fine, f"{path.relative_to(PACKAGE)} imports {name}"


def test_every_room_says_what_it_is_for() -> None:
    for folder in PACKAGE.iterdir():
        if folder.is_dir() and (folder / "__init__.py").exists():
            text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8")))
            assert text, f"{folder.name}/__init__.py has no docstring"


def test_the_errors_of_the_project_have_one_base() -> None:
    from reddit_assets import errors

    for name in errors.__all__:
        if name.endswith("Error"):
            assert issubclass(getattr(errors, name), errors.RedditAssetsError)


@pytest.mark.parametrize(
    ("modules", "forbidden"),
    [
        ("reddit_assets.worker.run, reddit_assets.worker.child", {"torch", "dagster", "numba"}),
        (
            "reddit_assets.tasks.embed, reddit_assets.engines.embedding.backends.onnx_backend",
            {"torch", "dagster", "sentence_transformers", "transformers"},
        ),
        ("reddit_assets.figures", {"torch", "dagster", "numba", "onnxruntime", "sklearn"}),
        (
            "reddit_assets.platform.reporting.rest, reddit_assets.platform.reporting.drain",
            {"dagster", "torch", "numba", "polars", "sqlalchemy"},
        ),
        ("reddit_assets.definitions", {"torch", "numba", "onnxruntime", "sklearn", "hdbscan"}),
        ("reddit_assets.cli", {"torch", "dagster", "numba", "onnxruntime", "pyarrow"}),
    ],
)
def test_light_hosts_import_no_heavy_packages(modules: str, forbidden: set[str]) -> None:
    script = f"import sys, {modules}; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert not forbidden & set(run.stdout.split())
