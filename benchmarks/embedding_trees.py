"""Texts and trees of chain files that the benchmarks of whole files embed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from embedding_common import MODEL, REPOSITORY, chain_files, posts


def copy_tree(data: Path | None, share: int = 1) -> Callable[[Path], None]:
    """The data's files, or each ``share``-th of them."""

    def make(root: Path) -> None:
        for file in chain_files(data)[::share]:
            target = root / "chains" / Path(*file.parts[-3:])
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)

    return make


def table_of(texts: pa.Array) -> pa.Table:
    """Texts with the columns of a chain file, as the data's files have them."""
    whole = pa.concat_tables([pq.read_table(file) for file in chain_files()])
    repeated = np.resize(np.arange(len(whole)), len(texts))
    table = whole.take(pa.array(repeated))
    return table.set_column(table.schema.get_field_index("body"), "body", texts)


def split_tree(table: pa.Table, rows_per_file: int) -> Callable[[Path], None]:
    """A tree of ten subreddits, ``rows_per_file`` rows in every file."""

    def make(root: Path) -> None:
        for index, start in enumerate(range(0, len(table), rows_per_file)):
            folder = root / "chains" / "be" / f"bench{index % 10}"
            folder.mkdir(parents=True, exist_ok=True)
            part = table.slice(start, rows_per_file)
            pq.write_table(part, folder / f"chunk_{index}.parquet", row_group_size=10_000)

    return make


def middling_posts(count: int, data: Path | None) -> pa.Array:
    """Posts of about 116 tokens on average: the longest of the shortest are left out."""
    from reddit_assets.engines.embedding.model import find_model
    from reddit_assets.engines.embedding.tokenizer import Tokenizer

    texts = posts(data)
    lengths = Tokenizer(find_model(MODEL, REPOSITORY / "models"))(texts).lengths
    order = np.argsort(-lengths, kind="stable")
    chosen = order[:count]
    for keep in range(count, len(order)):
        if lengths[chosen].mean() <= 116:
            break
        chosen = order[keep - count : keep]
    if lengths[chosen].mean() > 116 or len(order) < count:
        chosen = np.random.default_rng(0).choice(len(order), count, replace=len(order) < count)
    return texts.take(pa.array(np.random.default_rng(0).permutation(chosen)))


def short_posts(count: int) -> pa.Array:
    """Different texts of at most 8 tokens."""
    words = np.array(["cat", "dog", "tree", "river", "stone", "house", "war", "love", "king"])
    random = np.random.default_rng(0)
    chosen = words[random.integers(0, len(words), (count, 4))]
    sizes = random.integers(1, 5, count)
    texts = [" ".join(row[:size]) for row, size in zip(chosen, sizes, strict=True)]
    return pa.array([f"{t} {i % 997}" for i, t in enumerate(texts)], pa.large_string())


def comments(count: int, data: Path | None) -> pa.Table:
    """Different texts as long as comments are: parts of posts, numbered, 39 tokens on average."""
    bodies = [body for body in posts(data).to_pylist() if len(body) > 400]
    random = np.random.default_rng(0)
    sizes = np.clip(random.lognormal(4.7, 0.75, count), 10, 1_500).astype(int)
    starts = random.integers(0, 200, count)
    texts = [
        f"{i} {bodies[i % len(bodies)][start : start + size]}"
        for i, (start, size) in enumerate(zip(starts.tolist(), sizes.tolist(), strict=True))
    ]
    return pa.table(
        {
            "id": [f"t1_{i:x}" for i in range(count)],
            "parent_id": [f"t3_{i // 9:x}" for i in range(count)],
            "body": texts,
            "author": [f"author_{i % 4_001}" for i in range(count)],
            "created_utc": np.arange(count) + 1_600_000_000,
            "ups": random.integers(0, 500, count),
        }
    )


def equal_files(folder: Path, table: pa.Table, files: int) -> list[Path]:
    """The table as chain files of equal size in one folder."""
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(table) // files)
    paths = []
    for number in range(files):
        paths.append(folder / f"chunk_{number}.parquet")
        pq.write_table(table.slice(number * size, size), paths[-1], compression="zstd")
    return paths
