"""What is new in clusters: recorded each night, summed over nights, shown by the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("hdbscan")
pytest.importorskip("evoc")

from reddit_assets.cli.app import run as command
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.news import news_of, read_news
from reddit_assets.corpus.nights import LETTERS, ClusterBefore, Night, kept_nights
from reddit_assets_tests.test_clustering_subreddit import THEMES, embed, run, table

CLUSTER = "co/Cooking"


def of_themes(rows: int, themes: set[int], *, first: int, seed: int = 0) -> pa.Table:
    """Rows of some themes alone."""
    found = table(rows * len(THEMES) * 2, first=first, seed=seed)
    return found.filter(pc.is_in(found["kind"], pa.array(list(themes))))[:rows].combine_chunks()


def test_what_is_new_is_recorded_night_by_night(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given nights: four topics, one of them in a file of its own; then an ordinary night; a fifth
    # topic of 60 posts; 60 posts more of the first topic; and the file of its own vanishes.
    layout = Layout.of(tmp_path)
    keys = {name: f"{CLUSTER}/{name}" for name in "abcdef"}
    embed(layout, keys["a"], of_themes(600, {0, 1, 2}, first=0))
    embed(layout, keys["b"], of_themes(100, {3}, first=1_000))
    seen = []
    for name, rows in (
        ("b", None),
        ("c", of_themes(14, {0, 1, 2, 3}, first=2_000, seed=2)),
        ("d", of_themes(60, {4}, first=3_000, seed=3)),
        ("e", of_themes(60, {0}, first=4_000, seed=4)),
    ):
        if rows is not None:
            embed(layout, keys[name], rows)
        run(layout, [keys[each] for each in "abcdef" if each <= name], recluster_share=0.9)
        seen.append([event.what for event in read_news(layout, CLUSTER, nights=1).events])
    left = [keys[each] for each in "acde"]
    shown = run(layout, left, recluster_share=0.9).metadata["news"]
    # Then each night has its news and no other,
    assert seen == [[], [], ["born"], ["growing"]]
    last = read_news(layout, CLUSTER, nights=1)
    assert "gone" in [event.what for event in last.events]
    assert last.nights[-1].lost == 100
    # with the posts that came, and one of them as an example,
    born = next(event for event in read_news(layout, CLUSTER).events if event.what == "born")
    assert (born.before, born.new, born.posts) == (0, 60, 60)
    assert "chocolate" in born.example
    # and a table in Dagster, and a command, say the same.
    assert [(row["what"], row["cluster"]) for row in shown] == [
        (event.what, event.name) for event in last.events
    ]
    arguments = ["news", "Cooking", "--root", str(tmp_path)]
    assert command([*arguments, "--since", "1d", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["subreddits"]
    assert [night["new"] for night in one["nights"]] == [0, 14, 60, 60, 0]
    assert {"born", "gone"} <= {event["what"] for event in one["events"]}
    assert command(arguments) == 0
    assert "0 came, 100 went" in capsys.readouterr().out
    assert command(["news", "--root", str(tmp_path)]) == 0
    assert "1 subreddits clustered since" in capsys.readouterr().out
    for odd in ("yesterday", "99999999w", "9999-12-31T23:59:59-14:00"):
        assert command(["news", "--since", odd, "--root", str(tmp_path)]) == 2
        assert "neither a span" in capsys.readouterr().err


SIZES = st.dictionaries(st.integers(0, 50), st.integers(20, 10_000), min_size=5)


@settings(deadline=None)
@given(SIZES, st.integers(1, 5))
def test_where_all_grow_alike_there_is_no_news(sizes: dict[int, int], times: int) -> None:
    # Given nights on which every cluster wins its share, If they are summed, Then nothing is said
    nights, now = [], dict(sizes)
    for at in range(times):
        rows = sum(now.values())
        # Rounded from the beginning: what is lost in rounding must not add up.
        after = {number: round(size * 1.02 ** (at + 1)) for number, size in sizes.items()}
        came = {number: after[number] - now[number] for number in now}
        counts = {n: (now[n], after[n], came[n], 0) for n in now if came[n]}
        new = sum(came.values())
        nights.append(Night(at, rows + new, new=new, moved_share=0.0, counts=counts))
        now = after
    clusters = {number: ClusterBefore("", size) for number, size in now.items()}
    assert news_of(nights, clusters) == ()
    # and a small cluster that wins a lot besides is the only one that is named.
    lucky = min(now, key=lambda number: now[number])
    rows, more = sum(now.values()), 20 * round(np.sqrt(now[lucky]) + 1)
    counts = {lucky: (now[lucky], now[lucky] + more, more, 0)}
    night = Night(times, rows + more, new=more, moved_share=0.0, counts=counts)
    found = news_of([*nights, night], {**clusters, lucky: ClusterBefore("x", now[lucky] + more)})
    growing = [event.cluster_id for event in found if event.what == "growing"]
    assert growing == [lucky]
    # A record is the same after it was written and read.
    assert Night.from_json(json.loads(json.dumps(night.to_json()))) == night


def test_a_merger_without_a_new_post_says_what_it_had() -> None:
    before = {3: ClusterBefore("a", 200), 7: ClusterBefore("b", 300)}
    night = Night(1.0, 500, moved_share=0.4, fates={7: ("merged", (7, 3))}, before=before)
    (event,) = news_of([night], {7: ClusterBefore("b", 500)})
    assert (event.before, event.posts, event.rate) == (300, 500, 0.0)


def test_records_are_bounded() -> None:
    # Given records of very many clusters, If they are kept, Then the latest are, and one at least
    counts = dict.fromkeys(range(15000), (1000, 1001, 1, 0))
    nights = [Night(at, 10**7, moved_share=0.0, counts=counts) for at in range(40)]
    kept = kept_nights(nights)
    assert [night["at"] for night in kept] == [39]
    assert kept_nights([Night(at, 1) for at in range(40)])[0]["at"] == 10
    assert len(json.dumps(kept)) < 2 * LETTERS
