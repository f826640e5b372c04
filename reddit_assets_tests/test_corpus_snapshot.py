"""What is kept of looks at the trees says what a look at everything says, whatever happened."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
import pytest
from factories import write_chain, write_embedding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scale_tree import Shape, add_chains, make_tree
from snapshot_world import CHANGES, SUBREDDITS, World, scanner, told

from reddit_assets.corpus import examine, shards
from reddit_assets.corpus import listing as listings
from reddit_assets.corpus import look as looks
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.listing import Listing, read_listing
from reddit_assets.corpus.look import LookPlan
from reddit_assets.corpus.provenance import PROVENANCE_KEY, read_output
from reddit_assets.corpus.scan import Reason, Verdict
from reddit_assets.corpus.snapshot import Snapshot
from reddit_assets.corpus.subreddits import SubredditFilter
from reddit_assets.ledger.planner import queue_wanted


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 2**32),
    st.lists(st.lists(st.sampled_from(CHANGES), max_size=4), min_size=1, max_size=6),
    st.sampled_from([0.0, 3.0, -3000.0, 3000.0]),
)
def test_quick_looks_say_what_a_look_at_everything_says(
    seed: int, rounds: list[list[str]], skew: float
) -> None:
    # Given a snapshot kept over any changes of a tree, with the host's clock before or behind
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        world = World(Path(folder), seed)
        kept = Snapshot(Path(folder) / "kept.sqlite")
        clock = [time.time() + skew]
        patch.setattr(looks.time, "time", lambda: clock[0])
        counts: list[object] = []
        for changes in rounds:
            for change in changes:
                getattr(world, change)()
            clock[0] += world.random.choice([0.0, 5.0])
            time.sleep(0.01)  # the kernel's own times are up to 4 ms apart
            found = told(list(scanner(world.layout, kept).scan()))
            # Then each look, quick as it is, says what one that looks at everything says,
            assert found == told(list(scanner(world.layout, None).scan()))
            # and so do counts that pass by what is done
            counts = [
                (report.files, report.clusters, report.jobs, report.problems, report.orphans)
                for report in (
                    queue_wanted(scanner(world.layout, source), {}, dry_run=True)
                    for source in (kept, None)
                )
            ]
            assert counts[0] == counts[1]


def test_a_listing_is_the_same_after_packing(tmp_path: Path) -> None:
    world = World(tmp_path, 1)
    for change in ("add", "embed_all", "odd", "leftover", "damage", "remove"):
        getattr(world, change)()
    for cluster_key in SUBREDDITS:
        found = read_listing(world.layout, cluster_key)
        again = Listing.unpack(cluster_key, found.pack())
        assert again.pack() == found.pack()
        assert (again.outputs, again.made, again.chains) == (
            found.outputs,
            found.made,
            found.chains,
        )


def test_nothing_is_listed_or_opened_where_nothing_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a tree that was looked at when its folders' times were old enough to be trusted
    world, kept = World(tmp_path, 1), Snapshot(tmp_path / "kept.sqlite")
    world.add()
    world.embed_all()
    opened: list[str] = []
    real = listings.read_facts
    monkeypatch.setattr(
        listings, "read_facts", lambda path, key: opened.append(path) or real(path, key)
    )
    walked: list[str] = []
    below = shards.keys_below
    monkeypatch.setattr(
        shards,
        "keys_below",
        lambda root, entry, *more: walked.append(entry.name) or below(root, entry, *more),
    )
    later = time.time() + 60
    monkeypatch.setattr(looks.time, "time", lambda: later)
    first = scanner(world.layout, kept)
    assert len(list(first.scan())) == 2
    assert first.looked is not None
    assert (first.looked.listed, len(opened)) == (2, 2)
    once = len(walked)
    # If another process looks, Then no folder is listed and no output opened
    second = scanner(world.layout, Snapshot(tmp_path / "kept.sqlite"))
    assert told(list(second.scan())) == told(list(first.scan()))
    assert second.looked is not None
    assert (second.looked.listed, len(opened), len(walked)) == (0, 2, once)
    # and where all folders are listed, still none is opened
    list(scanner(world.layout, kept, LookPlan(whole=True)).scan())
    assert len(opened) == 2
    # Other options judge what is known, without a look
    other = scanner(world.layout, kept, text_columns="title")
    assert {f.verdict for s in other.scan() for f in s.files} == {Verdict.STALE}
    assert len(opened) == 2


def test_a_file_overwritten_in_place_is_found_within_the_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, kept = World(tmp_path, 1), Snapshot(tmp_path / "kept.sqlite")
    world.add()
    world.embed_all()
    clock = [time.time() + 60]
    monkeypatch.setattr(looks.time, "time", lambda: clock[0])
    plan = LookPlan(whole=False, relist_seconds=600)
    assert not [s for s in scanner(world.layout, kept, plan).scan() if s.orphans]
    # Given a chain file that is overwritten in place: its folder's time stays
    path = world.layout.chain_path("as/A/c_0")
    before = path.parent.stat().st_ctime_ns
    with open(path, "r+b") as file:
        file.write(b"PAR1 and more")
        file.truncate(5)
    assert path.parent.stat().st_ctime_ns == before
    # If looks go on in rotation, Then within the interval it is stale
    for _ in range(10):
        clock[0] += 60
        stale = [
            file.key
            for status in scanner(world.layout, kept, plan).unfinished()
            for file in status.files
            if file.verdict is Verdict.STALE
        ]
        if stale:
            break
    assert stale == ["as/A/c_0"]


@pytest.mark.parametrize("late", ["as/A/c_1", "as/B/c_1"])
def test_a_share_whose_folders_times_lie_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    # Given a file system that does not change a folder's time when a file comes
    world, kept = World(tmp_path, 1), Snapshot(tmp_path / "kept.sqlite")
    clock = [time.time() + 60]
    monkeypatch.setattr(looks.time, "time", lambda: clock[0])
    for module in (examine, looks):
        monkeypatch.setattr(module, "times_of", lambda layout, key: b"\0" * 48)
    monkeypatch.setattr(shards, "folder_times", lambda path: (0, 0))
    plan = LookPlan(whole_files=0, relist_seconds=600)

    def keys() -> list[str]:
        return [f.key for s in scanner(world.layout, kept, plan).scan() for f in s.files]

    assert keys() == ["as/A/c_0"]
    write_chain(world.layout, late)
    clock[0] += 1
    kept.put(looked_at=clock[0])
    assert keys() == ["as/A/c_0"]
    # Then the rotation finds it, and from then on every look is at everything
    clock[0] += 601
    assert keys() == ["as/A/c_0", late]
    assert kept.times_lie
    write_chain(world.layout, "as/C/c_2")
    assert keys() == ["as/A/c_0", late, "as/C/c_2"]


def test_a_look_within_a_budget_goes_on_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout.of(tmp_path / "tree")
    for number in range(9):
        write_chain(layout, f"as/sub{number}/c_0")
    monkeypatch.setattr(examine, "CHUNK", 4)
    kept = Snapshot(tmp_path / "kept.sqlite")
    plan = LookPlan(whole=False, budget_seconds=0, relist_seconds=1e9)
    later = time.time() + 60
    monkeypatch.setattr(looks.time, "time", lambda: later)
    left = []
    for _ in range(3):
        one = scanner(layout, kept, plan)
        one.look()
        assert one.looked is not None
        left.append(one.looked.left)
    assert left == [5, 1, 0]
    assert len(list(scanner(layout, kept, plan).scan())) == 9


def test_changes_are_found_by_generation_and_other_filters_see_their_own(tmp_path: Path) -> None:
    world, kept = World(tmp_path, 1), Snapshot(tmp_path / "kept.sqlite")
    write_chain(world.layout, "th/C/c_0")
    one = scanner(world.layout, kept)
    assert [s.cluster_key for s in one.changed(0)] == ["as/A", "th/C"]
    seen = kept.generation
    write_embedding(world.layout, "th/C/c_0")
    two = scanner(world.layout, kept)
    assert [s.cluster_key for s in two.changed(seen)] == ["th/C"]
    only = scanner(world.layout, kept, filter=SubredditFilter.parse("A"))
    assert [s.cluster_key for s in only.scan()] == ["as/A"]
    assert [s.cluster_key for s in scanner(world.layout, kept).scan()] == ["as/A", "th/C"]
    # and a subreddit that has vanished wholly is nowhere any more
    for root in (world.layout.chains, world.layout.embeddings):
        shutil.rmtree(root / "th")
    assert [s.cluster_key for s in scanner(world.layout, kept).scan()] == ["as/A"]


def test_what_is_done_is_counted_and_not_looked_at_one_by_one(tmp_path: Path) -> None:
    # Given a tree nine tenths of which are done
    shape = Shape(300, per_subreddit=5)
    layout = make_tree(tmp_path / "tree", shape, processes=1)
    kept = Snapshot(tmp_path / "kept.sqlite")
    one = scanner(layout, kept)
    done, rest = one.finished(), list(one.unfinished())
    # Then counts and single looks together are all of it
    assert done.subreddits > 30
    assert done.clustered == done.subreddits
    assert done.files + sum(len(status.files) for status in rest) == 300
    assert done.subreddits + len(rest) == 60
    assert done.bytes == sum(file.stamp.size for s in one.scan() for file in s.files) - sum(
        file.stamp.size for s in rest for file in s.files
    )
    # If one more file comes to a subreddit that was done, Then it is looked at
    (key,) = add_chains(layout, shape, [next(s.cluster_key for s in one.scan() if s not in rest)])
    two = scanner(layout, kept)
    assert two.finished().subreddits == done.subreddits - 1
    assert [f.key for s in two.unfinished() for f in s.files if f.key == key] == [key]


def test_the_night_reads_a_share_and_what_changed_and_remembers_what_is_wrong(
    tmp_path: Path,
) -> None:
    # Given a tree that was looked at, and then an output that lacks rows, whole at both ends
    shape = Shape(40, per_subreddit=2)
    layout = make_tree(tmp_path / "tree", shape, processes=1)
    kept = Snapshot(tmp_path / "kept.sqlite")
    whole = LookPlan(whole=True, processes=1)
    scanner(layout, kept, whole).look()
    keys = [f.key for s in scanner(layout, kept).scan() for f in s.files if f.verdict.done]
    path = layout.embedding_path(keys[0])
    made = read_output(path).provenance
    assert made is not None
    short = pq.read_table(path).slice(0, 1)
    path.unlink()
    text = made.model_dump_json().encode()
    pq.write_table(short.replace_schema_metadata({PROVENANCE_KEY: text}), path)

    def wrong() -> list[str]:
        return [
            file.key
            for status in scanner(layout, kept).scan()
            for file in status.files
            if file.reason is Reason.INCOMPLETE
        ]

    # Then a quick look does not see it, the next night does, and looks by day know it then
    scanner(layout, kept, whole).look()
    assert wrong() == []
    assert scanner(layout, kept, whole).read_in_full(1 / 10) == 4
    assert wrong() == [keys[0]]
    # and within the nights every output is read
    for _ in range(10):
        scanner(layout, kept, whole).read_in_full(1 / 10)
    rows = kept._connection.execute("SELECT count(*) FROM subreddits WHERE deep_at <= 0")
    assert rows.fetchone() == (0,)


def test_a_narrowed_filter_has_its_share_of_nights_and_a_widened_one_its_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a tree of which the wanted part was read in full later than the rest
    layout, kept = Layout.of(tmp_path / "tree"), Snapshot(tmp_path / "kept.sqlite")
    for number in range(20):
        write_chain(layout, f"as/{'ab'[number > 16]}{number}/c_0")
    later = time.time() + 60
    monkeypatch.setattr(looks.time, "time", lambda: later)
    scanner(layout, kept).look()
    kept._connection.execute("UPDATE subreddits SET deep_at = name LIKE 'b%'")
    only = {"filter": SubredditFilter.parse("b*")}
    night = LookPlan(whole=True, processes=1)
    assert scanner(layout, kept, night, **only).read_in_full(1 / 2) == 2
    # Then it is read all the same, and is listed again within the interval,
    later += 500
    rows = {key: row._replace(listed_at=later - 900) for key, row in kept.known().items()}
    rows |= {key: rows[key]._replace(listed_at=later - 1) for key in rows if "/b" in key}
    with monkeypatch.context() as patch:
        patch.setattr(kept, "known", lambda: rows)
        one = scanner(layout, kept, LookPlan(whole=False, relist_seconds=1000), **only)
        one.look()
    assert one.looked is not None
    assert one.looked.listed == 2
    # and who wants more does not go by a look at less
    more = scanner(layout, kept, LookPlan(max_age=60))
    assert len(list(more.scan())) == 20
    assert more.looked is not None
    assert not more.looked.reused


def test_what_a_night_finds_wrong_with_a_cluster_stays(tmp_path: Path) -> None:
    layout = make_tree(tmp_path / "tree", Shape(20, per_subreddit=2), processes=1)
    kept = Snapshot(tmp_path / "kept.sqlite")
    whole = LookPlan(whole=True, processes=1)
    done = [s for s in scanner(layout, kept, whole).scan() if s.cluster and s.cluster.verdict.done]
    key = done[0].cluster_key
    # Given a clustered file that is damaged where only pyarrow looks
    path = layout.cluster_path(key)
    content = bytearray(path.read_bytes())
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    content[start : start + 8] = b"\xff" * 8
    path.unlink()
    path.write_bytes(content)

    def reason() -> Reason | None:
        found = next(s for s in scanner(layout, kept, whole).scan() if s.cluster_key == key)
        assert found.cluster is not None
        return found.cluster.reason

    assert reason() is None
    scanner(layout, kept, whole).read_in_full(1)
    # Then looks by day know it, until it changes
    assert reason() is Reason.DAMAGED
    assert reason() is Reason.DAMAGED
    path.unlink()
    assert reason() is None
