"""The Dagster page in a real Chromium: what people see and press.

``REDDIT_SCREENSHOTS=docs/images`` keeps the pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from reddit_assets.errors import Failure
from reddit_assets.ledger.job import Job, Kind
from reddit_assets.local.servers import PostgresServer
from reddit_assets_tests.browser import browser_page, keep
from reddit_assets_tests.factories import claim_jobs
from reddit_assets_tests.platform_stack import Live, running, wait_for

pytestmark = pytest.mark.browser

SUBREDDITS = ("as/AskScience", "bo/books", "ca/cars", "co/Cooking", "ga/gardening")


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer
) -> Iterator[Live]:
    keys = [f"{name}/chains_chunk_{i}" for name in SUBREDDITS for i in range(4)]
    folder = tmp_path_factory.mktemp("browser")
    with running(folder, postgres_server, [*keys, "zz/Tiny/only"]) as live:
        wait_for(lambda: live.stack.counts("clusters") == (6, 6), 90, "all is clustered")
        yield live


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser_page() as page:
        yield page


def lineage(*assets: str) -> str:
    """The lineage page's path for some assets."""
    return f"/asset-groups~{quote(' or '.join(f'key:{chr(34)}{a}{chr(34)}' for a in assets))}/"


def node(page: Page, asset: str) -> str:
    """The text of an asset's node in the graph, once it is filled."""
    found = page.locator("foreignObject").filter(has_text=asset).filter(has_text="partitions")
    expect(found.first).to_contain_text("filled")
    return found.first.text_content() or ""


def test_the_lineage_joins_the_assets_with_their_partitions(
    live: Live, page: Page, tmp_path: Path
) -> None:
    page.goto(live.stack.url + lineage("chains", "embeddings", "clusters"))
    # Then each node shows its partitions, all filled, and two edges join the three.
    for asset, partitions in (("chains", 21), ("embeddings", 21), ("clusters", 6)):
        text = node(page, asset)
        assert f"{partitions} partitions" in text
        assert "100% filled" in text
    keep(page, "lineage", tmp_path)


def test_twenty_files_and_their_clusters_are_materialized_from_the_page(
    live: Live, page: Page, tmp_path: Path
) -> None:
    stack = live.stack
    before = {name: len(stack.events("clusters", name)) for name in SUBREDDITS}
    # Given the two assets on the lineage page. If "Materialize all" is pressed,
    page.goto(stack.url + lineage("embeddings", "clusters"))
    node(page, "embeddings")
    page.get_by_role("button", name="Materialize all").click()
    # twenty partitions are chosen,
    page.get_by_text("Select a partition or create one").click()
    page.get_by_placeholder("Filter partitions").fill("chains_chunk")
    page.get_by_text("Select all (20)").click()
    keep(page, "materialize", tmp_path)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Launch backfill").click()
    # and the backfill is watched:
    backfill = wait_for(lambda: _newest_backfill(stack), 30, "the backfill begins")
    page.goto(f"{stack.url}/runs/b/{backfill}")
    ended = stack.wait_backfill(backfill, 150)
    page.reload()
    # Then it succeeds, on the page as well, with 20 files and 5 clusters.
    assert ended["status"] == "COMPLETED_SUCCESS"
    assert {
        (s["assetKey"]["path"][0], s["numPartitionsMaterialized"])
        for s in ended["assetBackfillData"]["assetBackfillStatuses"]
    } == {("embeddings", 20), ("clusters", 5)}
    expect(page.get_by_text("Succeeded").first).to_be_visible()
    keep(page, "backfill", tmp_path)
    for name in SUBREDDITS:
        assert len(stack.events("clusters", name)) > before[name]


def _newest_backfill(stack: object) -> str | None:
    found = stack.gql(  # type: ignore[attr-defined]
        "{ partitionBackfillsOrError(limit: 1) { ... on PartitionBackfills { results { id } } } }"
    )["partitionBackfillsOrError"]["results"]
    return found[0]["id"] if found else None


def test_a_partition_tells_how_it_was_made(live: Live, page: Page, tmp_path: Path) -> None:
    page.goto(f"{live.stack.url}/assets/clusters?view=partitions&partition={quote('ca/cars', '')}")
    expect(page.get_by_text("noise, %")).to_be_visible()
    expect(page.get_by_text("tea, kettle").first).to_be_visible()
    keep(page, "cluster", tmp_path)
    # The overview has a plot that people can read.
    assert live.stack.launch("nightly") == "SUCCESS"
    page.goto(f"{live.stack.url}/assets/corpus")
    for name in ("free disk, GB", "hours left", "rows/s"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    page.get_by_text("[Show Markdown]").first.click()
    picture = page.get_by_role("img", name="files per shard")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 300
    keep(page, "corpus", tmp_path)


def test_a_file_that_was_given_up_is_red_and_says_why(
    live: Live, page: Page, tmp_path: Path
) -> None:
    stack, key = live.stack, "bo/books/chains_chunk_1"
    queue = stack.queues[Kind.EMBED]
    # Given a file whose job was given up:
    live.worker.hold.set()
    queue.enqueue([Job(Kind.EMBED, key, "s", force=True)], stack.layout, urgent=True)
    for claim in claim_jobs(queue, "browser", 1, 60.0) or []:
        failure = Failure(
            "The file is torn.", "Write it again.", host="gpu-7", traceback="Traceback"
        )
        queue.fail(claim, failure, max_attempts=1, retry_seconds=0)
    # Then its partition is counted as failed, with the reason, the host and what to do.
    wait_for(lambda: stack.failed("embeddings") == 1, 60, "the partition is failed")
    page.goto(f"{stack.url}/assets/embeddings?view=partitions&partition={quote(key, '')}")
    expect(page.get_by_text("Failed (1)")).to_be_visible()
    for text in ("The file is torn.", "Write it again.", "gpu-7", "retry_dead_letters"):
        expect(page.get_by_text(text).first).to_be_visible()
    keep(page, "failed", tmp_path)
    # If it is tried again and done, then nothing is failed any more.
    queue.retry([key])
    live.worker.hold.clear()
    wait_for(lambda: stack.failed("embeddings") == 0, 60, "the partition is healed")
