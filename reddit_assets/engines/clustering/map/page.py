"""The page of a map: points, posts, names and the script that shows them, in one file or two."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.words import STOP_WORDS

__all__ = [
    "BLOCK_ROWS",
    "FULL",
    "MAX_POINTS",
    "PALETTE",
    "POSTS",
    "MapPage",
    "MapPosts",
    "Rows",
    "Wording",
    "frame",
    "map_page",
    "map_rows",
    "post_chars",
    "scaled",
]

#: Points of a map, at most: what a browser draws smoothly with a graphics processor.
MAX_POINTS = 1_000_000
#: Characters of a post that are kept, at most.
POST_CHARS = 10_000
#: Characters of all posts: up to this many lie in the page, more lie in a file beside it, and
#: posts are cut so that these are not too many either.
PAGE_CHARS, BESIDE_CHARS = 10_000_000, 200_000_000
#: What a hover shows: posts are not cut to fewer characters.
HOVER = 160
#: Posts that are compressed, and read by the page, together.
BLOCK_ROWS = 1_000
#: Colours that people who see no red or no green can tell apart (Okabe and Ito, 2008, without the
#: yellow and the black, which a light and a dark page swallow). A theme beyond them gets the same
#: colour and another shape.
PALETTE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"]
FULL = 65_535
#: Stands for a value that is not known.
NONE = np.iinfo(np.int32).min
#: The page's script, in this order.
SCRIPTS = ("data.js", "points.js", "view.js", "panel.js", "selection.js", "main.js")

Rows = list[dict[str, Any]]


def map_rows(
    rows: int, labels: NDArray[np.int32], seed: int, most: int = MAX_POINTS
) -> NDArray[np.int64]:
    """Which rows are drawn, ascending: all, or a sample that keeps some of every cluster."""
    if rows <= most:
        return np.arange(rows, dtype=np.int64)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(rows)
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    ordered = labels[order]
    starts = np.searchsorted(ordered, ordered)
    rank = np.arange(rows) - starts
    # The first few of each cluster, then a share of all.
    few = max(1, most // 4 // max(1, int(labels.max(initial=0)) + 2))
    first = order[rank < few]
    rest = shuffled[~np.isin(shuffled, first)]
    return np.sort(np.concatenate([first, rest[: most - len(first)]])).astype(np.int64)


@dataclass(frozen=True, slots=True)
class MapPosts:
    """What a click on a point shows; one entry per point each.

    Attributes:
        texts: title and text, whole.
        scores: ``None`` where there is none.
        dates: seconds since 1970, likewise.
        links: addresses, empty where there is none.
    """

    texts: Sequence[str]
    scores: Sequence[float | None]
    dates: Sequence[float | None]
    links: Sequence[str]


@dataclass(frozen=True, slots=True)
class Wording:
    """What the page calls a point and its number."""

    noun: str = "posts"
    title: str = "Post"
    score: str = "score"
    open: str = "open the post"


POSTS = Wording()


@dataclass(frozen=True, slots=True)
class MapPage:
    """A map as files.

    Attributes:
        page: HTML; all of the map, unless there are posts beside it.
        posts: a script of the page's posts, where there are too many for the page.
    """

    page: str
    posts: str | None


def post_chars(points: int) -> int:
    """Characters of a post that are worth reading, for a map of so many points."""
    return min(POST_CHARS, max(HOVER, 4 * BESIDE_CHARS // max(points, 1)))


def frame(values: NDArray[np.float32], index: NDArray[np.int32]) -> tuple[float, float]:
    """Where the clusters lie on an axis, without the rows far from all others."""
    inside = index >= 0
    seen = values[inside] if inside.any() else values
    if not len(seen):
        return 0.0, 1.0
    low, high = (float(one) for one in np.quantile(seen, [0.005, 0.995]))
    # A small cluster may lie outside of nearly all rows.
    middles = _medians(values, index)
    low, high = min([low, *middles]), max([high, *middles])
    room = 0.02 * (high - low)
    return low - room, high + room


def _medians(values: NDArray[Any], index: NDArray[np.int32]) -> list[float]:
    """The median of each group of rows, in the order of their numbers; −1 is no group."""
    order = np.argsort(index, kind="stable")
    starts = np.unique(index[order], return_index=True)[1]
    parts = np.split(values[order], starts[1:])
    has_none = len(order) > 0 and index[order[0]] < 0
    return [float(np.median(part)) for part in parts[int(has_none) :] if len(part)]


def scaled(values: NDArray[np.float32], span: tuple[float, float]) -> NDArray[np.int32]:
    """To 0 … 65,535 inside the span; what lies outside keeps its place."""
    low, high = span
    found = (values.astype(np.float64) - low) / max(high - low, 1e-9) * FULL
    return np.rint(np.clip(found, -1e4 * FULL, 1e4 * FULL)).astype(np.int32)


def _limit(texts: Sequence[str]) -> int:
    """Characters of a post, so that all of them together are not too many."""
    limit = POST_CHARS
    while limit > HOVER and sum(min(len(text), limit) for text in texts) > BESIDE_CHARS:
        limit //= 2
    return max(limit, HOVER)


def _deflated(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 6)).decode("ascii")


def _column(values: NDArray[np.int32]) -> str:
    """As four planes, one for each byte: the upper ones of small numbers take no room."""
    return _deflated(values.astype("<i4").view(np.uint8).reshape(-1, 4).T.tobytes())


def _known(values: Sequence[float | None], unit: float = 1.0) -> NDArray[np.int32]:
    """Whole numbers; :data:`NONE` where there is none."""
    found = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    whole = np.floor(found / unit) if unit != 1.0 else np.rint(found)
    whole = np.where(np.isfinite(whole), np.clip(whole, NONE + 1, -(NONE + 1)), NONE)
    return whole.astype(np.int32)


def _blocks(posts: MapPosts) -> Iterator[str]:
    """Texts and links, compressed in blocks of :data:`BLOCK_ROWS`."""
    limit = _limit(posts.texts)
    for start in range(0, len(posts.texts), BLOCK_ROWS):
        said = zip(
            posts.texts[start : start + BLOCK_ROWS],
            posts.links[start : start + BLOCK_ROWS],
            strict=True,
        )
        held = [[t if len(t) <= limit else f"{t[:limit]}…", link] for t, link in said]
        text = json.dumps(held, ensure_ascii=False, separators=(",", ":"))
        yield _deflated(text.encode("utf-8", "replace"))


def _shown(
    ordered: Rows,
    index: NDArray[np.int32],
    sx: NDArray[np.int32],
    sy: NDArray[np.int32],
    born: Collection[int],
) -> Rows:
    """What the page says of each cluster."""
    there = np.unique(index[index >= 0])
    middles = zip(_medians(sx, index), _medians(sy, index), strict=True)
    places = dict(zip(there.tolist(), middles, strict=True))
    ranks: dict[int, int] = {}
    shown = []
    for at, row in enumerate(ordered):
        ranks[row["theme_id"]] = ranks.get(row["theme_id"], -1) + 1
        x, y = places.get(at, (0, 0))
        shown.append(
            {
                "id": row["cluster_id"],
                "theme": row["theme_id"],
                "topic": row.get("topic_id"),
                "rank": ranks[row["theme_id"]],
                "name": row["name"],
                "short": ", ".join(row["name"].split(", ")[:2]),
                "size": row["size"],
                "born": row["cluster_id"] in born,
                "x": int(x),
                "y": int(y),
            }
        )
    return shown


def map_page(
    name: str,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    cluster_ids: NDArray[np.int32],
    posts: MapPosts,
    clusters: Rows,
    themes: Mapping[int, str],
    total: int,
    *,
    topics: Mapping[int, str] | None = None,
    born: Collection[int] = (),
    beside: str = "map.posts.js",
    wording: Wording = POSTS,
    facts: str | None = None,
) -> MapPage:
    """A page with zoom, filters, selection, search, and the names of clusters and themes.

    It loads nothing from a network, and nothing at all unless its posts are many: those lie in a
    file beside it.

    Args:
        name: of the subreddit.
        x, y: float32 (points,), y pointing up.
        cluster_ids: int32 (points,), persistent ids, −1 noise.
        posts: what a click shows.
        clusters: rows of ``clusters.table``.
        themes: their names by ``theme_id``.
        total: rows of the subreddit, of which the points may be a sample.
        topics: names by ``topic_id``, where the clusters have topics.
        born: ids of clusters that are new tonight.
        beside: name of the file that the posts get where there are many.
        wording: what points are called.
        facts: the line below the name.
    """
    ordered = sorted(clusters, key=lambda row: -row["size"])
    place = {row["cluster_id"]: at for at, row in enumerate(ordered)}
    index = _index(cluster_ids, place)
    sx, sy = scaled(x, frame(x, index)), scaled(-y, frame(-y, index))
    blocks = list(_blocks(posts))
    many = sum(map(len, posts.texts)) > PAGE_CHARS
    stamp = hashlib.sha256("".join(blocks).encode()).hexdigest()[:16]
    data = {
        "name": name,
        "facts": facts or _facts(clusters, total, len(index)),
        **asdict(wording),
        "count": len(index),
        "x": _column(sx),
        "y": _column(sy),
        "cluster": _column(index),
        "scores": _column(_known(posts.scores)),
        "days": _column(_known(posts.dates, 86_400.0)),
        "block_rows": BLOCK_ROWS,
        "blocks": None if many else blocks,
        "beside": {"file": beside, "stamp": stamp} if many else None,
        "clusters": _shown(ordered, index, sx, sy, born),
        "themes": [{"id": number, "name": words} for number, words in sorted(themes.items())],
        "topics": [{"id": key, "name": words} for key, words in sorted((topics or {}).items())],
        "palette": PALETTE,
        "stop_words": sorted(STOP_WORDS),
    }
    script = f"mapPosts({json.dumps(stamp)},{json.dumps(blocks)});" if many else None
    return MapPage(_page(f"Map of {name}", data), script)


def _index(cluster_ids: NDArray[np.int32], place: Mapping[int, int]) -> NDArray[np.int32]:
    """The place of each row's cluster in the page's list, −1 for none."""
    ids, at = np.unique(cluster_ids, return_inverse=True)
    places = np.array([place.get(int(number), -1) for number in ids], dtype=np.int32)
    return places[at.reshape(-1)] if len(ids) else np.zeros(0, dtype=np.int32)


def _facts(clusters: Rows, total: int, points: int) -> str:
    clustered = sum(row["size"] for row in clusters)
    noise = 1 - clustered / total if total else 0.0
    said = f"{total:,} posts, {len(clusters)} clusters, {noise:.0%} in none"
    return f"{said}; {points:,} posts drawn" if points < total else said


def _page(title: str, data: Mapping[str, Any]) -> str:
    place = files(__package__)
    read = {
        name: (place / name).read_text("utf-8") for name in ("page.html", "style.css", *SCRIPTS)
    }
    # Inside a script element only "</" and "<!--" could end the text early.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    page = read["page.html"].replace("__TITLE__", html.escape(title), 1)
    page = page.replace("__STYLE__", read["style.css"], 1)
    page = page.replace("__SCRIPT__", "".join(read[name] for name in SCRIPTS), 1)
    return page.replace("__DATA__", text, 1)
