"""The pages as a site: whole, without dead links, with a reference that the code gave."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from prometheus_client import REGISTRY, generate_latest

from reddit_assets.cli.app import app
from reddit_assets.settings import Settings, variable_of
from reddit_assets_tests.test_docs import TOP

# Variables that are no settings: of a test, and of an earlier version, which is refused by name.
OTHER_VARIABLES = {"REDDIT_SCREENSHOTS", "REDDIT_SHARDS"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made as `make docs` does it: any warning (a dead link, a page without a place) fails."""
    folder = tmp_path_factory.mktemp("site")
    (command,) = re.findall(r"-m sphinx (.+) site$", (TOP / "Makefile").read_text(), re.MULTILINE)
    made = subprocess.run(
        [sys.executable, "-m", "sphinx", *command.split(), str(folder)],
        cwd=TOP,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    return folder


def identifiers(page: Path) -> set[str]:
    return set(re.findall(r'id="([^"]+)"', page.read_text()))


def test_every_setting_and_every_command_is_in_the_reference(site: Path) -> None:
    settings = site / "docs" / "reference" / "settings.html"
    wanted = {variable_of(name) for name in Settings.model_fields}
    assert {name.lower().replace("_", "-") for name in wanted} <= identifiers(settings)
    for field in Settings.model_fields.values():
        assert field.description
    found = identifiers(site / "docs" / "reference" / "commands.html")
    command: Any = typer.main.get_command(app)
    wanted = {f"command-{name}" for name in command.commands} | {"command-dead-retry"}
    assert len(wanted) > 20
    assert wanted <= found


def test_every_metric_of_a_worker_is_in_the_reference(site: Path) -> None:
    import reddit_assets.worker.metrics  # noqa: F401

    text = (site / "docs" / "reference" / "metrics.html").read_text()
    exposed = re.findall(r"^# HELP (reddit_assets_\w+)", generate_latest(REGISTRY).decode(), re.M)
    assert len(exposed) >= 8
    assert [name for name in exposed if name not in text] == []


def test_a_named_setting_leads_to_its_entry(site: Path) -> None:
    text = (site / "docs" / "reliability.html").read_text()
    assert 'href="reference/settings.html#reddit-lease-seconds"' in text
    assert 'href="reference/commands.html#command-verify"' in (
        (site / "docs" / "embedding.html").read_text()
    )


def test_the_site_needs_no_network_and_no_server(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img)[^>]*?(?:src|href)=\"([^\"]+)\"", page.read_text()
        )
        assert [one for one in loaded if re.match(r"(https?:)?//", one)] == [], page
    assert 'url=README.html"' in (site / "index.html").read_text()
    assert (site / "searchindex.js").stat().st_size > 10_000


def test_every_setting_that_a_page_names_exists() -> None:
    known = {variable_of(name) for name in Settings.model_fields} | OTHER_VARIABLES
    known |= {
        str(choice)
        for field in Settings.model_fields.values()
        for choice in getattr(field.validation_alias, "choices", [])
    }
    pages = [TOP / "README.md", *TOP.glob("docs/**/*.md"), *TOP.glob("deploy/**/*.md")]
    named = {name for page in pages for name in re.findall(r"REDDIT_[A-Z_]+", page.read_text())}
    assert len(named) > 30
    assert named - known == set()
