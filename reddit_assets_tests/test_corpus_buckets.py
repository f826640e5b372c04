"""Buckets: which assets a subreddit belongs to, the same on every host and at every start."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reddit_assets.corpus.buckets import FLAT, LARGEST, Buckets, read_buckets, state_buckets
from reddit_assets.corpus.census import count_files
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.output import is_temporary
from reddit_assets.corpus.subreddits import SubredditFilter
from reddit_assets.errors import BadFileError

SIZES = st.dictionaries(
    st.text(min_size=1, max_size=8), st.integers(1, 2 * LARGEST), min_size=1, max_size=60
)


@given(SIZES)
def test_splitting_bounds_buckets_and_moves_only_what_it_must(files: dict[str, int]) -> None:
    before = Buckets.for_files(1)
    after = before.fitted(files)
    # Every old bucket is still there, and what left one lies in a new one.
    assert set(before.names) <= set(after.names)
    members: dict[str | None, list[str]] = {}
    for key in files:
        members.setdefault(after.of(key), []).append(key)
        assert after.of(key) in {before.of(key), *set(after.names) - set(before.names)}
    # A bucket is small, or filled by one subreddit; and all of that is stable and can be recorded.
    for keys in members.values():
        assert len(keys) == 1 or sum(files[key] for key in keys) <= LARGEST
    assert after.fitted(files) == after
    assert Buckets.parse(list(after.names)) == after


def test_sizes_are_even_whatever_the_names() -> None:
    # Given subreddits that all begin alike, as names do,
    buckets = Buckets.for_files(1_000_000)
    sizes = dict.fromkeys(buckets.names, 0)
    for number in range(100_000):
        sizes[buckets.of(f"th/the_{number}") or ""] += 10
    # then no bucket has much more than its share.
    assert len(sizes) == 128
    assert max(sizes.values()) < 1.2 * 1_000_000 / 128
    assert len(Buckets.for_files(10).names) == 16
    # The hash is part of the record: another one would move every file.
    assert (buckets.of("as/AskReddit"), FLAT.of("as/AskReddit")) == ("ca", None)


def test_what_is_stated_is_read_again_and_damage_is_named(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path)
    assert read_buckets(layout) == FLAT
    state_buckets(layout, Buckets.for_files(1))
    assert read_buckets(layout) == Buckets.for_files(1)
    path = layout.embeddings / ".buckets.json"
    assert is_temporary(f"{path.name}.{'0' * 16}.tmp")
    for text in ("", "[]", '{"buckets": 3}', '{"buckets": ["40"]}', '{"buckets": ["00", "zz"]}'):
        path.write_text(text)
        with pytest.raises(BadFileError, match="does not state the buckets"):
            read_buckets(layout)


def test_files_are_counted_or_projected(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path)
    for number in range(40):
        folder = layout.chains / f"{number % 4}" / f"sub{number}"
        folder.mkdir(parents=True)
        for name in ("a.parquet", "b.parquet", "notes.txt"):
            (folder / name).touch()
    everything = count_files(layout, SubredditFilter())
    assert (everything.total, everything.complete) == (80, True)
    assert count_files(layout, SubredditFilter.parse("sub1,sub2")).total == 4
    begun = count_files(layout, SubredditFilter(), seconds=0.0)
    assert (begun.total, begun.complete) == (80, False)
