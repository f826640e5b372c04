"""The map in a real Chromium: size of its files, time to the first picture, frames while zooming.

Texts are real, places are made. Without a graphics processor Chromium draws WebGL in software, on
the same cores as everything else; the column ``renderer`` says so. Peers in the same run: all
points in every frame instead of as many as a frame has time for, and the plain canvas that draws
30,000.

Example:
    python benchmarks/map.py --points 10000 100000 1000000
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from clustering_common import RESULTS, arguments, surroundings, write
from embedding_common import posts, prefer
from playwright.sync_api import Page

from reddit_assets.engines.clustering.map import MapPosts, map_page
from reddit_assets_tests.browser import browser_page

SECONDS = 8
#: Zooms in and out in every frame, and counts the frames.
ZOOM = """async seconds => {
  const start = performance.now(); let frames = 0, drawn = 0;
  await new Promise(done => requestAnimationFrame(function next() {
    zoom(Math.floor(frames++ / 60) % 2 ? 1 / 1.02 : 1.02, 850, 450);
    drawn += points.gl ? points.share : Math.min(1, PLAIN_POINTS / N);
    if (performance.now() - start > seconds * 1000) done(); else requestAnimationFrame(next);
  }));
  return [frames / (performance.now() - start) * 1000, drawn / frames];
}"""
RENDERER = """() => { const gl = points.gl, named = gl?.getExtension("WEBGL_debug_renderer_info");
  return gl ? gl.getParameter(named ? named.UNMASKED_RENDERER_WEBGL : gl.RENDERER) : "canvas"; }"""
PLAIN = """const real = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
  return kind === "webgl2" ? null : real.call(this, kind, ...rest); };"""
DRAWINGS = {
    "as many points as a frame has time for": "() => {}",
    "all points in every frame": "() => { points.share = 1; points.pace = () => {}; }",
    "plain canvas, 30,000 points": "",
}


def make(folder: Path, count: int, texts: list[str]) -> dict[str, Any]:
    """Write a map of ``count`` points; its sizes, and how long it took."""
    rng = np.random.default_rng(0)
    clusters = max(10, count // 700)
    middles = rng.standard_normal((clusters, 2)) * 10
    share = rng.pareto(1.2, clusters) + 0.2
    ids = rng.choice(clusters, count, p=share / share.sum()).astype(np.int32)
    xy = (middles[ids] + rng.standard_normal((count, 2)) * 0.5).astype(np.float32)
    noise = rng.random(count) < 0.25
    xy[noise] += rng.standard_normal((int(noise.sum()), 2)).astype(np.float32) * 2
    sizes = np.bincount(ids[~noise], minlength=clusters)
    rows = [
        {"cluster_id": k, "theme_id": k % 20, "name": f"name {k}", "size": int(sizes[k])}
        for k in range(clusters)
    ]
    start = time.perf_counter()
    made = map_page(
        f"{count} points",
        xy[:, 0],
        xy[:, 1],
        np.where(noise, -1, ids).astype(np.int32),
        MapPosts(
            [texts[at % len(texts)] for at in range(count)],
            (rng.pareto(1, count) * 3).tolist(),
            (1.6e9 + rng.random(count) * 5e7).tolist(),
            [""] * count,
        ),
        rows,
        {theme: f"theme {theme}" for theme in range(20)},
        count,
    )
    seconds = time.perf_counter() - start
    (folder / "map.html").write_text(made.page, encoding="utf-8")
    (folder / "map.posts.js").write_text(made.posts or "", encoding="utf-8")
    return {
        "points": count,
        "clusters": clusters,
        "text_mb": round(sum(len(texts[at % len(texts)]) for at in range(count)) / 1e6, 1),
        "page_mb": round(len(made.page) / 1e6, 2),
        "beside_mb": round(len(made.posts or "") / 1e6, 2),
        "made_s": round(seconds, 2),
    }


def look(page: Page, address: str, change: str) -> dict[str, Any]:
    """What a browser measures of a map."""
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    ready = page.evaluate("Number(document.documentElement.dataset.ready)") / 1000
    page.wait_for_timeout(4000)
    renderer = page.evaluate(RENDERER)
    if change:
        page.evaluate(change)
    frames, share = page.evaluate(ZOOM, SECONDS)
    start = time.perf_counter()
    page.evaluate("search('zebra')")
    return {
        "first_picture_s": round(ready, 2),
        "frames_per_s": round(frames, 1),
        "points_per_frame": share,
        "search_s": round(time.perf_counter() - start, 2),
        "renderer": renderer,
    }


def main() -> None:
    """Measure, and write the CSV."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--points", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--priority", type=int, help="as nice counts; below 0 as root only")
    given = parser.parse_args()
    if given.priority is not None:
        prefer(given.priority)
    texts = [text[:200] for text in posts().to_pylist()]
    rows = []
    with tempfile.TemporaryDirectory() as folder, browser_page() as page:
        page.set_default_timeout(300_000)
        assert page.context.browser is not None
        plain = page.context.browser.new_page(viewport={"width": 1440, "height": 900})
        plain.add_init_script(PLAIN)
        plain.set_default_timeout(300_000)
        address = (Path(folder) / "map.html").as_uri()
        for count in given.points:
            made = make(Path(folder), count, texts)
            for drawing, change in DRAWINGS.items():
                facts = surroundings()
                found = look(page if change else plain, address, change)
                found["points_per_frame"] = round(found["points_per_frame"] * count)
                rows.append(
                    {**made, "drawing": drawing, **found, **facts, "priority": given.priority}
                )
                write(given.out or RESULTS / "map.csv", rows)


if __name__ == "__main__":
    main()
