"""A page in a real Chromium.

``REDDIT_SCREENSHOTS=docs/images`` keeps the pictures.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

__all__ = ["FLAGS", "browser_page", "keep"]

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    # WebGL2 in software, where there is no graphics processor.
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def browser_page(*flags: str) -> Iterator[Page]:
    """A page; the test is skipped where there is no Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*FLAGS, *flags])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(30_000)
        expect.set_options(timeout=60_000)
        yield page
        browser.close()


def keep(page: Page, name: str, tmp_path: Path) -> None:
    """A picture, in REDDIT_SCREENSHOTS if that is set."""
    folder = Path(os.environ.get("REDDIT_SCREENSHOTS") or tmp_path)
    page.wait_for_timeout(1500)
    page.screenshot(path=folder / f"{name}.png")
