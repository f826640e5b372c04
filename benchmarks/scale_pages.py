"""Dagster's pages in a real Chromium, each in a fresh browser, twice.

Part of ``scale_site.py``. The first visit may rebuild Dagster's cache of partitions. Peer: the
lineage of two unpartitioned assets, in the same run.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Error, Page, sync_playwright

from reddit_assets.corpus.buckets import Buckets
from reddit_assets.platform.names import AssetSet
from reddit_assets.platform.reporting.assets import page_path
from reddit_assets_tests.browser import FLAGS

__all__ = ["visit"]

Row = tuple[str, float, str]


def seconds_to(page: Page, url: str, text: str | re.Pattern[str]) -> float:
    """From the request until ``text`` is on the page."""
    started = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.get_by_text(text).first.wait_for(state="visible", timeout=120_000)
    return time.perf_counter() - started


def pages_of(buckets: Buckets, key: str) -> dict[str, tuple[str, str | re.Pattern[str]]]:
    """The pages: path, and a text that is there when the page is filled."""
    assets = AssetSet(buckets.of(key.rpartition("/")[0]))
    names = [each.to_user_string() for each in (assets.chains, assets.embeddings, assets.clusters)]
    wanted = quote(" or ".join(f'key:"{name}"' for name in names), safe="")
    path = "/".join(quote(part) for part in assets.embeddings.path)
    found: dict[str, tuple[str, str | re.Pattern[str]]] = {
        "peer: lineage of two assets": (
            f"/asset-groups~{quote('key:model or key:cluster_settings')}/",
            "cluster_settings",
        ),
        "lineage": (f"/asset-groups~{wanted}/", "% filled"),
        "partitions": (f"/assets/{path}?view=partitions", re.compile(r"Materialized \([1-9]")),
        "one partition": (page_path("embeddings", key, buckets), "rows"),
    }
    if buckets.names:
        found["all buckets"] = ("/assets/buckets?view=partitions", buckets.names[0])
        found["lineage of everything"] = ("/asset-groups/", "bucket_")
    return found


def visit(url: str, buckets: Buckets, key: str, pictures: Path | None) -> Iterator[Row]:
    """Seconds of every page, twice; a page that does not come in two minutes is not a number."""
    layout = "sharded" if buckets.names else "flat"
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        for name, (path, text) in pages_of(buckets, key).items():
            for time_ in ("first", "second"):
                browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                try:
                    seconds = seconds_to(page, url + path, text)
                except Error as error:
                    print(f"{name}: {str(error).splitlines()[0]}")
                    seconds = float("nan")
                if pictures is not None:
                    page.wait_for_timeout(500)
                    page.screenshot(path=pictures / f"{layout}-{name.replace(':', '')}-{time_}.png")
                browser.close()
                yield f"page: {name}, {time_} visit", seconds, "s"
