"""The map of a subreddit: a page that opens from disk without a network, and a small picture."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.host import keep_cache

__all__ = ["MAX_POINTS", "PNG_BYTES", "map_page", "map_png", "map_rows"]

#: Points on a page at most: what a browser draws smoothly, and a page of a few megabytes.
MAX_POINTS = 30_000
#: Characters of a point's text.
HOVER = 160
#: The picture in Dagster's metadata is never larger than this.
PNG_BYTES = 60_000

Rows = list[dict[str, Any]]


def map_rows(rows: int, labels: NDArray[np.int32], seed: int) -> NDArray[np.int64]:
    """Which rows are drawn, ascending: all, or a sample that keeps some of every cluster."""
    if rows <= MAX_POINTS:
        return np.arange(rows, dtype=np.int64)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(rows)
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    ordered = labels[order]
    starts = np.searchsorted(ordered, ordered)
    rank = np.arange(rows) - starts
    # The first few of each cluster, then a share of all.
    few = max(1, MAX_POINTS // 4 // max(1, int(labels.max(initial=0)) + 2))
    first = order[rank < few]
    rest = shuffled[~np.isin(shuffled, first)]
    return np.sort(np.concatenate([first, rest[: MAX_POINTS - len(first)]])).astype(np.int64)


def _scaled(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    # Far outliers would squeeze everything else: the outermost tenths of a percent sit on the rim.
    low, high = np.quantile(values, [0.001, 0.999]) if len(values) else (0.0, 1.0)
    span = max(float(high - low), 1e-9)
    return np.rint(np.clip((values - low) / span, 0, 1) * 65_535).astype(np.uint16)


def _coded(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def map_page(
    name: str,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    cluster_ids: NDArray[np.int32],
    texts: Sequence[str],
    clusters: Rows,
    themes: dict[int, str],
    total: int,
) -> str:
    """A self-contained page with zoom, hover texts, search and cluster names.

    Args:
        name: of the subreddit.
        x, y: float32 (points,), y pointing up.
        cluster_ids: int32 (points,), persistent ids, −1 noise.
        texts: hover text of each point.
        clusters: rows of ``clusters.table``.
        themes: their names by ``theme_id``.
        total: rows of the subreddit, of which the points may be a sample.
    """
    ordered = sorted(clusters, key=lambda row: -row["size"])
    place = {row["cluster_id"]: at for at, row in enumerate(ordered)}
    index = np.array([place.get(int(number), -1) for number in cluster_ids], dtype="<i4")
    sx, sy = _scaled(x), _scaled(-y)
    ranks: dict[int, int] = {}
    shown = []
    for at, row in enumerate(ordered):
        inside = index == at
        ranks[row["theme_id"]] = ranks.get(row["theme_id"], -1) + 1
        words = row["keywords"]
        shown.append(
            {
                "id": row["cluster_id"],
                "theme": row["theme_id"],
                "rank": ranks[row["theme_id"]],
                "name": row["name"],
                "short": ", ".join(words[:2]) or row["name"],
                "size": row["size"],
                "x": int(np.median(sx[inside])) if inside.any() else 0,
                "y": int(np.median(sy[inside])) if inside.any() else 0,
            }
        )
    clustered = sum(row["size"] for row in clusters)
    noise = 1 - clustered / total if total else 0.0
    facts = f"{total:,} posts, {len(clusters)} clusters, {noise:.0%} in none"
    if len(index) < total:
        facts += f"; {len(index):,} posts drawn"
    data = {
        "name": name,
        "facts": facts,
        "x": _coded(sx.astype("<u2")),
        "y": _coded(sy.astype("<u2")),
        "cluster": _coded(index),
        "texts": [text[:HOVER] for text in texts],
        "clusters": shown,
        "themes": [{"id": number, "name": words} for number, words in sorted(themes.items())],
    }
    # Inside a script element only "</" and "<!--" could end the text early.
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    page = (files(__package__) / "map_page.html").read_text(encoding="utf-8")
    return page.replace("__TITLE__", html.escape(f"Map of {name}"), 1).replace("__DATA__", text, 1)


def map_png(
    name: str,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    themes: NDArray[np.int32],
    clusters: Rows,
    *,
    limit: int = PNG_BYTES,
) -> bytes:
    """A small picture of the map, at most ``limit`` bytes.

    Args:
        x, y: float32 (points,).
        themes: int32 (points,), −1 noise.
        clusters: rows of ``clusters.table``; the largest are named.
    """
    keep_cache("MPLCONFIGDIR", "matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import hsv_to_rgb
    from matplotlib.figure import Figure
    from PIL import Image

    sx, sy = _scaled(x).astype(np.float32), _scaled(y).astype(np.float32)
    colours = np.full((len(sx), 3), 0.78)
    inside = themes >= 0
    hues = (themes[inside] * 0.38197 + 0.58) % 1.0
    colours[inside] = hsv_to_rgb(np.stack([hues, np.full_like(hues, 0.65), hues * 0 + 0.75], 1))
    figure = Figure(figsize=(6.4, 4.8), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 0.94))
    axes.set_axis_off()
    size = float(np.clip(60_000 / max(len(sx), 1) / 4, 1.5, 14))
    draw = np.argsort(inside, kind="stable")
    axes.scatter(sx[draw], sy[draw], s=size, c=colours[draw], linewidths=0)
    figure.suptitle(_drawable(name), fontsize=12, y=0.985)
    low_x, low_y = (float(np.quantile(v, 0.001)) if len(v) else 0.0 for v in (x, y))
    span_x, span_y = (
        max(float(np.quantile(v, 0.999)) - low, 1e-9) if len(v) else 1.0
        for v, low in ((x, low_x), (y, low_y))
    )
    for row in sorted(clusters, key=lambda row: -row["size"])[:12]:
        at = ((row["x"] - low_x) / span_x * 65_535, (row["y"] - low_y) / span_y * 65_535)
        label = row["keywords"][0] if row["keywords"] else row["name"]
        box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1}
        axes.annotate(_drawable(label), at, ha="center", va="center", fontsize=7.5, bbox=box)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    for shrink, colour_count in ((1.0, 64), (1.0, 16), (0.6, 16), (0.35, 8), (0.15, 4)):
        extent = (int(picture.width * shrink), int(picture.height * shrink))
        small = picture.resize(extent).quantize(colour_count)
        buffer = io.BytesIO()
        small.save(buffer, "PNG", optimize=True)
        if buffer.tell() <= limit:
            break
    return buffer.getvalue()


def _drawable(text: str) -> str:
    """Text as matplotlib can set it: no mathematics, no glyphs that its font lacks."""
    return "".join(character if character < "\u0530" else "·" for character in text).replace(
        "$", r"\$"
    )
