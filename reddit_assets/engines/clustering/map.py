"""The map of a subreddit: a page that opens from disk without a network, and a small picture."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.host import keep_cache

__all__ = ["MAX_POINTS", "PNG_BYTES", "MapPosts", "map_page", "map_png", "map_rows"]

#: Points on a page at most: what a browser draws smoothly, and a page of a few megabytes.
MAX_POINTS = 30_000
#: Characters of a post that are kept, at most, and of all posts of a page.
POST_CHARS, PAGE_CHARS, HOVER = 10_000, 10_000_000, 160
#: Colours that people who see no red or no green can tell apart (Okabe and Ito, 2008, without the
#: yellow and the black, which a light and a dark page swallow). A theme beyond them gets the same
#: colour and another shape.
PALETTE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"]
FULL = 65_535
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


@dataclass(frozen=True, slots=True)
class MapPosts:
    """What a click on a point shows; one entry per point each.

    Attributes:
        texts: title and text, whole.
        scores: ``None`` where there is none.
        dates: seconds since 1970, likewise.
        links: http addresses, empty where there is none.
    """

    texts: Sequence[str]
    scores: Sequence[float | None]
    dates: Sequence[float | None]
    links: Sequence[str]


def _frame(values: NDArray[np.float32], index: NDArray[np.int32]) -> tuple[float, float]:
    """Where the clusters lie on an axis, without the rows far from all others."""
    inside = index >= 0
    seen = values[inside] if inside.any() else values
    if not len(seen):
        return 0.0, 1.0
    low, high = (float(one) for one in np.quantile(seen, [0.005, 0.995]))
    # A small cluster may lie outside of nearly all rows.
    middles = [float(np.median(seen[index[inside] == k])) for k in np.unique(index[inside])]
    low, high = min([low, *middles]), max([high, *middles])
    room = 0.02 * (high - low)
    return low - room, high + room


def _scaled(values: NDArray[np.float32], frame: tuple[float, float]) -> NDArray[np.int32]:
    """To 0 … 65,535 inside the frame; what lies outside keeps its place."""
    low, high = frame
    scaled = (values.astype(np.float64) - low) / max(high - low, 1e-9) * FULL
    return np.rint(np.clip(scaled, -1e4 * FULL, 1e4 * FULL)).astype(np.int32)


def _cut(texts: Sequence[str]) -> list[str]:
    """Whole texts, as far as a page of some megabytes allows."""
    limit = POST_CHARS
    while limit > HOVER and sum(min(len(text), limit) for text in texts) > PAGE_CHARS:
        limit //= 2
    return [text if len(text) <= limit else f"{text[:limit]}…" for text in texts]


def _coded(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def map_page(
    name: str,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    cluster_ids: NDArray[np.int32],
    posts: MapPosts,
    clusters: Rows,
    themes: dict[int, str],
    total: int,
) -> str:
    """A self-contained page with zoom, the posts, search, and the names of clusters and themes.

    Args:
        name: of the subreddit.
        x, y: float32 (points,), y pointing up.
        cluster_ids: int32 (points,), persistent ids, −1 noise.
        posts: what a click shows.
        clusters: rows of ``clusters.table``.
        themes: their names by ``theme_id``.
        total: rows of the subreddit, of which the points may be a sample.
    """
    ordered = sorted(clusters, key=lambda row: -row["size"])
    place = {row["cluster_id"]: at for at, row in enumerate(ordered)}
    index = np.array([place.get(int(number), -1) for number in cluster_ids], dtype="<i4")
    sx, sy = _scaled(x, _frame(x, index)), _scaled(-y, _frame(-y, index))
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
        "x": _coded(sx.astype("<i4")),
        "y": _coded(sy.astype("<i4")),
        "cluster": _coded(index),
        "texts": _cut(posts.texts),
        "scores": [None if score is None else round(score) for score in posts.scores],
        "days": [None if date is None else int(date // 86_400) for date in posts.dates],
        "links": list(posts.links) if any(posts.links) else [],
        "clusters": shown,
        "themes": [{"id": number, "name": words} for number, words in sorted(themes.items())],
        "palette": PALETTE,
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
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from PIL import Image

    frames = [_frame(values, themes) for values in (x, y)]
    sx, sy = (_scaled(values, frame) for values, frame in zip((x, y), frames, strict=True))
    colours = np.full((len(sx), 3), 0.78)
    inside = themes >= 0
    palette = np.array([to_rgb(colour) for colour in PALETTE])
    colours[inside] = palette[themes[inside] % len(PALETTE)]
    figure = Figure(figsize=(6.4, 4.8), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 0.94))
    axes.set_axis_off()
    axes.set_xlim(-0.03 * FULL, 1.03 * FULL)
    axes.set_ylim(-0.03 * FULL, 1.03 * FULL)
    size = float(np.clip(60_000 / max(len(sx), 1) / 4, 1.5, 14))
    draw = np.argsort(inside, kind="stable")
    axes.scatter(sx[draw], sy[draw], s=size, c=colours[draw], linewidths=0)
    figure.suptitle(_drawable(name), fontsize=12, y=0.985)
    for row in sorted(clusters, key=lambda row: -row["size"])[:12]:
        at = [
            (row[name] - low) / max(high - low, 1e-9) * FULL
            for name, (low, high) in zip("xy", frames, strict=True)
        ]
        label = row["keywords"][0] if row["keywords"] else row["name"]
        box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1}
        axes.annotate(
            _drawable(label), (at[0], at[1]), ha="center", va="center", fontsize=7.5, bbox=box
        )
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
