"""Which ranges of a backfill become one run."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
from dagster import AssetKey, DagsterInstance, DynamicPartitionsDefinition
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    BACKFILL_ID_TAG,
)
from hypothesis import given
from hypothesis import strategies as st

from reddit_assets.errors import ReportingError
from reddit_assets.platform import backfills
from reddit_assets.platform.backfills import merge_ranges, partitions_of


def ranges(places: set[int], longest: int) -> list[tuple[int, int]]:
    """As Dagster makes them: contiguous, and cut where they get too long."""
    found: list[tuple[int, int]] = []
    for place in sorted(places):
        first, last = found[-1] if found else (0, -2)
        if place == last + 1 and place - first < longest:
            found[-1] = (first, place)
        else:
            found.append((place, place))
    return found


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)), st.integers(1, 20))
def test_runs_make_what_is_wanted_now_and_nothing_else(
    now: set[int], later: set[int], limit: int
) -> None:
    # Given what a backfill wants now, and what it wants later or has made already:
    target = now | later
    runs = list(merge_ranges(ranges(now, limit), sorted(target), limit))
    made = [
        [place for place in range(first, last + 1) if place in target] for first, last, _ in runs
    ]
    # Then each wanted one is made by one run, nothing else of the target is, and no run is too big.
    assert sorted(place for run in made for place in run) == sorted(now)
    assert [len(run) for run in made] == [size for _, _, size in runs]
    assert all(len(run) <= limit for run in made)
    # Two runs in a row could not have been one.
    for one, two in pairwise(runs):
        between = target & set(range(one[1] + 1, two[0]))
        following = min(b - a + 1 for a, b in ranges(now, limit) if a == two[0])
        assert between or one[2] + following > limit


def test_a_scattered_selection_is_one_run() -> None:
    places = list(range(0, 100_000, 50))
    found = list(merge_ranges([(p, p) for p in places], places, 10_000))
    assert found == [(0, 99_950, 2_000)]


def test_a_run_whose_range_lost_an_end_does_not_pass_for_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = DynamicPartitionsDefinition(name="chain_files")
    monkeypatch.setattr(backfills, "_target", lambda *_: {"b", "d"})

    def made(first: str, last: str, **tags: str) -> list[str]:
        ends = {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}
        graph = SimpleNamespace(asset_graph=None)
        run = SimpleNamespace(tags={**ends, **tags})
        context = SimpleNamespace(instance=instance, run=run, repository_def=graph)
        return partitions_of(context, AssetKey("embeddings"), files)  # type: ignore[arg-type]

    with DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("chain_files", ["a", "b", "c", "d"])
        backfill = {BACKFILL_ID_TAG: "x"}
        assert made("b", "c") == made("b", "c", **backfill) == ["b", "c"]
        # Of a backfill, what it targets on the side of the end that is there
        assert made("gone", "c", **backfill) == ["b"]
        assert made("c", "gone", **backfill) == ["d"]
        # and else a failed run
        for first, last, tags in (("gone", "c", {}), ("a", "gone", {}), ("gone", "too", backfill)):
            with pytest.raises(ReportingError, match="gone"):
                made(first, last, **tags)
