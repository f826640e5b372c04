"""The small picture of a map that Dagster shows."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.map.page import FULL, PALETTE, Rows, frame, scaled
from reddit_assets.engines.host import keep_cache

__all__ = ["PICTURE_POINTS", "PNG_BYTES", "map_png"]

#: Points in the picture, at most.
PICTURE_POINTS = 30_000
#: The picture in Dagster's metadata is never larger than this.
PNG_BYTES = 60_000


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

    frames = [frame(values, themes) for values in (x, y)]
    sx, sy = (scaled(values, span) for values, span in zip((x, y), frames, strict=True))
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
