"""What the documents name is there."""

from __future__ import annotations

import re
from pathlib import Path

from reddit_assets import __version__

TOP = Path(__file__).parent.parent


def test_each_measure_against_a_threat_names_tests_that_exist() -> None:
    text = (TOP / "docs" / "security.md").read_text()
    named = re.findall(r"`(test_\w+\.py)`", text)
    assert len(named) > 20
    assert [name for name in named if not (TOP / "reddit_assets_tests" / name).exists()] == []


def test_the_changelog_names_this_version() -> None:
    assert f"## {__version__}" in (TOP / "CHANGELOG.md").read_text()
    assert f'version = "{__version__}"' in (TOP / "pyproject.toml").read_text()
