"""Trees of chain files that the worker's benchmark embeds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from embedding_common import MODEL, REPOSITORY, chain_files, posts


def copy_tree(data: Path | None) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for file in chain_files(data):
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
