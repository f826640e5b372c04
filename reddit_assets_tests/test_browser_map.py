"""The map in a real Chromium, from disk: what people see, draw, narrow and press."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from reddit_assets.engines.clustering.map import MapPosts, map_page
from reddit_assets.engines.clustering.map import page as page_module
from reddit_assets_tests.browser import browser_page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser_page() as page:
        yield page


def two_clusters(folder: Path, **options: Any) -> Path:
    """A map of 200 posts about tea at the left, 100 about trains at the right, 20 of neither."""
    rng = np.random.default_rng(0)
    ids = np.repeat(np.array([4, 9, -1], dtype=np.int32), (200, 100, 20))
    xy = rng.uniform(-2, 2, (2, 320)).astype(np.float32)
    xy[0] += np.select([ids == 4, ids == 9], [-20.0, 20.0], 0.0).astype(np.float32)
    words = {4: "a kettle of tea", 9: "=a train to the sea", -1: "neither"}
    posts = MapPosts(
        [f"{words[int(one)]}, {number}" for number, one in enumerate(ids)],
        [float(number) for number in range(320)],
        [86_400.0 * number for number in range(320)],
        [""] * 320,
    )
    clusters = [
        {"cluster_id": 4, "theme_id": 0, "name": "tea, kettle", "keywords": ["tea"], "size": 200},
        {"cluster_id": 9, "theme_id": 1, "name": "train, sea", "keywords": ["train"], "size": 100},
    ]
    made = map_page(
        "Both", *xy, ids, posts, clusters, {0: "tea", 1: "train"}, 320, born=[9], **options
    )
    (folder / "map.html").write_text(made.page, encoding="utf-8")
    if made.posts is not None:
        (folder / "map.posts.js").write_text(made.posts, encoding="utf-8")
    return folder / "map.html"


INK = """() => {
  const copy = new OffscreenCanvas(innerWidth, innerHeight).getContext("2d");
  copy.drawImage(document.getElementById("points"), 0, 0);
  const all = copy.getImageData(0, 0, innerWidth, innerHeight).data;
  let sum = 0;
  for (let at = 3; at < all.length; at += 4) sum += all[at];
  return sum;
}"""


def ink(page: Page, least: float, most: float = math.inf) -> float:
    """How much is on the canvas of the points, as soon as it lies between the limits."""
    found = 0.0
    for _ in range(100):
        found = page.evaluate(INK)
        if least <= found <= most:
            return found
        page.wait_for_timeout(100)
    raise AssertionError(f"{found} instead of {least} to {most}")


def test_points_are_drawn_narrowed_selected_and_exported(page: Page, tmp_path: Path) -> None:
    page.goto(two_clusters(tmp_path).as_uri())
    page.wait_for_selector("html[data-ready]")
    # Given a map whose points are really there, the new cluster marked,
    whole = ink(page, 100_000)
    expect(page.get_by_role("button", name="train, sea ✦ new")).to_be_visible()
    # if it is narrowed to what is new, then only that is counted, and less is drawn.
    page.get_by_text("Filters").click()
    page.get_by_label("only clusters that are new tonight").check()
    expect(page.locator("#found")).to_have_text("100 of 320 posts")
    ink(page, 0.1 * whole, 0.5 * whole)
    page.get_by_label("only clusters that are new tonight").uncheck()
    page.get_by_label("posts in no cluster").uncheck()
    expect(page.locator("#found")).to_have_text("300 of 320 posts")
    page.get_by_label("posts in no cluster").check()
    # Sliders narrow by date and score, and say to what in words.
    page.get_by_label("Date, from").fill("310")
    expect(page.locator("#found")).to_have_text("10 of 320 posts")
    expect(page.get_by_text("Date: 1970-11-07 to 1970-11-16")).to_be_visible()
    page.get_by_label("Date, from").fill("0")
    page.get_by_label("Score, to").fill("100")
    expect(page.locator("#found")).to_contain_text("1")
    page.get_by_label("Score, to").fill("200")
    # If somebody draws around the right half, then that is what is selected,
    page.get_by_role("button", name="Lasso").click()
    page.mouse.move(1050, 2)
    page.mouse.down()
    for x, y in ((1438, 2), (1438, 898), (1050, 898)):
        page.mouse.move(x, y, steps=3)
    page.mouse.up()
    expect(page.locator("#count")).to_have_text("100 posts selected")
    expect(page.locator("#gist")).to_contain_text("train")
    # and its file holds these posts, none as a formula of a spreadsheet.
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Export as CSV").click()
    rows = list(csv.DictReader(waiting.value.path().open(encoding="utf-8-sig", newline="")))
    assert len(rows) == 100
    assert {row["cluster_id"] for row in rows} == {"9"}
    assert rows[0]["text"] == "'=a train to the sea, 200"
    assert rows[0]["date"] == "1970-07-20"
    page.keyboard.press("Escape")
    expect(page.locator("#chosen")).to_be_hidden()


def test_keys_do_what_the_mouse_does(page: Page, tmp_path: Path) -> None:
    page.goto(two_clusters(tmp_path).as_uri() + "#cluster=4")
    page.wait_for_selector("html[data-ready]")
    # Given a link to a cluster, then it is the one that is shown.
    expect(page.get_by_role("button", name="tea, kettle 200")).to_have_attribute(
        "aria-pressed", "true"
    )
    page.locator("#map").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_contain_text("a kettle of tea")
    page.keyboard.press("Escape")
    expect(page.locator("#card")).to_be_hidden()
    page.keyboard.press("v")
    expect(page.locator("#count")).to_contain_text("posts selected")
    mode = page.locator("html").get_attribute("data-mode")
    page.keyboard.press("d")
    expect(page.locator("html")).not_to_have_attribute("data-mode", mode or "")
    page.keyboard.press("/")
    expect(page.get_by_label("Search posts")).to_be_focused()
    # Everything that can be pressed has a name.
    names = page.locator("button, input").evaluate_all(
        "all => all.map(e => [e.ariaLabel, e.textContent, e.labels?.[0]?.textContent].join(''))"
    )
    assert all(name.strip() for name in names)


def test_posts_beside_the_page_are_read_from_disk(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a map of which the posts lie beside it, in more than one block,
    monkeypatch.setattr(page_module, "PAGE_CHARS", 100)
    monkeypatch.setattr(page_module, "BLOCK_ROWS", 64)
    made = two_clusters(tmp_path)
    page.goto(made.as_uri())
    page.get_by_placeholder("Search posts").fill("train 299")
    expect(page.get_by_text("1 of 320 posts")).to_be_visible()
    expect(page.locator(".item")).to_contain_text("=a train to the sea, 299")
    # then posts of another night, or none, are not taken for these: the page says so.
    beside = tmp_path / "map.posts.js"
    said = beside.read_text(encoding="utf-8")
    beside.write_text(said.replace(said[10:26], "0" * 16), encoding="utf-8")
    page.reload()
    page.get_by_placeholder("Search posts").fill("train")
    expect(page.get_by_role("alert")).to_contain_text("another night")
    beside.unlink()
    page.reload()
    page.get_by_placeholder("Search posts").fill("train")
    expect(page.get_by_role("alert")).to_contain_text("is not beside this page")


def test_three_levels_are_listed_each_below_its_own(page: Page, tmp_path: Path) -> None:
    # Given a theme with a topic of two clusters and a cluster that is a topic of its own,
    xy = np.arange(60, dtype=np.float32)
    ids = np.repeat(np.arange(3, dtype=np.int32), 20)
    clusters = [
        {"cluster_id": k, "topic_id": topic, "theme_id": 5, "name": f"cluster {k}", "size": 20 - k}
        for k, topic in enumerate((7, 8, 7))
    ]
    posts = MapPosts([""] * 60, [None] * 60, [None] * 60, [""] * 60)
    made = map_page(
        "x", xy, xy, ids, posts, clusters, {5: "theme"}, 60, topics={7: "both", 8: "alone"}
    )
    (tmp_path / "map.html").write_text(made.page, encoding="utf-8")
    page.goto((tmp_path / "map.html").as_uri())
    page.wait_for_selector(".item")
    # then the list goes theme, the lone cluster, topic, its clusters.
    said = page.locator("#list > *").evaluate_all("all => all.map(e => e.textContent)")
    assert said == ["theme", "cluster 119", "both", "cluster 020", "cluster 218"]


def test_without_webgl_it_is_drawn_plainly_and_says_so(page: Page, tmp_path: Path) -> None:
    assert page.context.browser is not None
    other = page.context.browser.new_page(viewport={"width": 1440, "height": 900})
    other.add_init_script(
        """const real = HTMLCanvasElement.prototype.getContext;
        HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
          return kind === "webgl2" ? null : real.call(this, kind, ...rest); };"""
    )
    other.goto(two_clusters(tmp_path).as_uri())
    expect(other.get_by_role("alert")).to_contain_text("no WebGL2")
    ink(other, 50_000)
    other.close()


def test_it_is_searched_read_and_used_on_a_phone(page: Page, tmp_path: Path) -> None:
    # Given a map with one long post among others,
    number = 60
    rng = np.random.default_rng(0)
    xy = rng.standard_normal((2, number)).astype(np.float32)
    texts = [f"post {i} about tea" for i in range(number)]
    texts[7] = "A kettle of green tea\n\n" + "that is told at length. " * 40 + "The end of it."
    clusters = [
        {"cluster_id": 0, "theme_id": 0, "name": "tea, kettle", "keywords": ["tea"], "size": number}
    ]
    posts = MapPosts(
        texts,
        [float(i) for i in range(number)],
        [1.7e9] * number,
        ["https://example.org/p"] * number,
    )
    made = map_page(
        "Tea", xy[0], xy[1], np.zeros(number, np.int32), posts, clusters, {0: "tea"}, number
    )
    (tmp_path / "map.html").write_text(made.page, encoding="utf-8")
    page.goto((tmp_path / "map.html").as_uri())
    # if two words are searched that stand apart, then one hit is listed,
    page.get_by_placeholder("Search posts").fill("tea KETTLE")
    expect(page.get_by_text("1 of 60 posts")).to_be_visible()
    # and a click on it shows all of the post, with score, date and link.
    page.locator(".item").click()
    expect(page.locator("#text")).to_contain_text("The end of it.")
    expect(page.locator("#about")).to_contain_text("score 7")
    expect(page.locator("#about")).to_contain_text("2023-11-14")
    link = page.get_by_role("link", name="open the post")
    assert link.get_attribute("href") == "https://example.org/p"
    # On a phone the list is folded away until it is asked for.
    page.set_viewport_size({"width": 390, "height": 844})
    page.reload()
    expect(page.locator("#list")).to_be_hidden()
    page.get_by_role("button", name="Clusters").click()
    expect(page.get_by_text("tea, kettle")).to_be_visible()
    page.set_viewport_size({"width": 1440, "height": 900})
