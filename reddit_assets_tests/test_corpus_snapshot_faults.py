"""A snapshot through kills, damage, full disks, waits and races; looks go on."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from factories import write_chain, write_embedding
from snapshot_world import World, scanner, told

from reddit_assets.corpus import examine, snapshot_file
from reddit_assets.corpus import listing as listings
from reddit_assets.corpus import look as looks
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.listing import Listing
from reddit_assets.corpus.look import LookPlan
from reddit_assets.corpus.snapshot import Snapshot
from reddit_assets.errors import UnreadableFileError, WriteError


def _look_and_die(root: str, path: str, after: int) -> None:
    kept = Snapshot(Path(path))
    real, calls = kept.write, [0]

    def write(*arguments: object) -> int:
        calls[0] += 1
        if calls[0] > after:
            kept._connection.execute("BEGIN IMMEDIATE")
            kept._connection.execute("UPDATE subreddits SET trusted = 1, files = 99")
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)  # type: ignore[arg-type]

    kept.write = write  # type: ignore[method-assign]
    examine.CHUNK = 3
    list(scanner(Layout.of(Path(root)), kept).scan())


@pytest.mark.parametrize("after", [0, 2])
def test_a_look_that_is_killed_leaves_what_it_saw(tmp_path: Path, after: int) -> None:
    # Given a tree, and a look that is killed within a transaction
    layout = Layout.of(tmp_path / "tree")
    for number in range(12):
        write_chain(layout, f"as/sub{number:02}/c_0")
        write_embedding(layout, f"as/sub{number:02}/c_0")
    path = tmp_path / "kept.sqlite"
    child = multiprocessing.get_context("spawn").Process(
        target=_look_and_die, args=(str(layout.chains.parent), str(path), after)
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    # Then the next one goes on from there and says what a look at everything says
    kept = Snapshot(path)
    assert len(kept.known()) == 3 * after
    assert told(list(scanner(layout, kept).scan())) == told(list(scanner(layout, None).scan()))


@pytest.mark.parametrize("damage", ["rubbish", "version", "page", "listing"])
def test_a_damaged_or_older_snapshot_is_made_again(tmp_path: Path, damage: str) -> None:
    world, path = World(tmp_path, 1), tmp_path / "kept.sqlite"
    for number in range(40):
        write_chain(world.layout, f"as/many{number}/c_0")
    kept = Snapshot(path)
    expected = told(list(scanner(world.layout, kept).scan()))
    kept._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if damage == "version":
        kept._connection.execute("PRAGMA user_version = 99")
    elif damage == "listing":
        kept._connection.execute("UPDATE listings SET packed = x'00'")
    kept._connection.close()
    if damage == "rubbish":
        path.write_bytes(b"no database at all" * 1000)
    elif damage == "page":
        with open(path, "r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (path.stat().st_size - 4096))
    again = Snapshot(path)
    assert told(list(scanner(world.layout, again).scan())) == expected
    assert str(path) in again.notice
    assert "is made again from the disk" in again.notice


def test_where_nothing_can_be_kept_it_is_said_and_scans_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, 1)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        kept = Snapshot(tmp_path / "no" / "kept.sqlite")
    assert "Read-only file system" in kept.notice
    assert "REDDIT_SNAPSHOT_DIR" in kept.notice
    monkeypatch.setattr(snapshot_file, "_file_system", lambda _: "nfs4")
    shared = Snapshot(tmp_path / "kept.sqlite")
    assert "network file system (nfs4)" in shared.notice
    assert not (tmp_path / "kept.sqlite").exists()
    for one in (kept, shared):
        assert len(list(scanner(world.layout, one).scan())) == 1


def test_a_file_that_comes_during_a_listing_and_a_refused_one_are_no_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, kept = World(tmp_path, 1), Snapshot(tmp_path / "kept.sqlite")
    clock = [time.time() + 60]
    monkeypatch.setattr(looks.time, "time", lambda: clock[0])
    plan = LookPlan(whole=True, processes=1)
    scanner(world.layout, kept, plan).look()
    real = listings.read_listing

    def comes_late(layout: Layout, key: str, *args: object, **more: object) -> Listing:
        write_chain(layout, "as/A/c_late")
        return real(layout, key, *args, **more)  # type: ignore[arg-type]

    def refused(layout: Layout, key: str, *args: object, **more: object) -> Listing:
        found = Listing(key)
        found.unreadable = UnreadableFileError("Input/output error")
        found.problems.append(found.unreadable)
        return found

    for read in (refused, comes_late):
        with monkeypatch.context() as patch:
            patch.setattr(examine, "read_listing", read)
            scanner(world.layout, kept, plan).look()
        clock[0] += 10
        scanner(world.layout, kept, plan).look()
        clock[0] += 10
        assert not kept.times_lie
    # and a lie is forgiven after a day without another one
    kept.put(lied_at=clock[0])
    assert kept.times_lie
    clock[0] += 86_401
    assert not kept.times_lie


@pytest.mark.parametrize("refused", ["full", "unlink"])
def test_a_snapshot_that_can_no_longer_be_kept_is_not_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    # Given a snapshot on a disk that gets full, or in a folder that refuses
    world, path = World(tmp_path, 1), tmp_path / "kept.sqlite"
    kept = Snapshot(path)
    scanner(world.layout, kept).look()
    for number in range(300):
        write_chain(world.layout, f"as/many{number}/c_0")
    if refused == "full":
        (pages,) = kept._connection.execute("PRAGMA page_count").fetchone()
        kept._connection.execute(f"PRAGMA max_page_count = {pages}")
    else:
        kept._connection.execute("UPDATE listings SET packed = x'00'")

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(Path, "unlink", refuse)
    # Then this process goes on for itself and says so, and what others share stays
    found = told(list(scanner(world.layout, kept, LookPlan(whole=True)).scan()))
    assert found == told(list(scanner(world.layout, None).scan()))
    assert {"full": "full", "unlink": "Permission denied"}[refused] in kept.notice
    assert "REDDIT_SNAPSHOT_DIR" in kept.notice
    assert "as/A" in Snapshot(path).known()
    # and where not even that is possible, a sentence says what to do
    kept._connection.execute("PRAGMA max_page_count = 1")
    for number in range(300):
        write_chain(world.layout, f"as/more{number}/c_0")
    with pytest.raises(WriteError, match="cannot be kept") as told_:
        scanner(world.layout, kept, LookPlan(whole=True)).look()
    assert "TMPDIR" in told_.value.hint


def test_nobody_waits_for_a_look_longer_than_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given another process that looks
    world, path = World(tmp_path, 1), tmp_path / "kept.sqlite"
    other, mine = Snapshot(path), Snapshot(path)
    scanner(world.layout, other).look()
    with other.writing():
        assert mine.busy
        for plan in (
            LookPlan(budget_seconds=0.1),
            LookPlan(patience_seconds=0.1),
            LookPlan(max_age=60),
        ):
            # Then a tick goes by what is known
            one = scanner(world.layout, mine, plan)
            assert len(list(one.scan())) == 1
            assert one.looked is not None
            assert (one.looked.reused, one.looked.busy) == (True, not plan.max_age)
    assert not mine.busy
    # While a night reads outputs, others look
    write_embedding(world.layout, "as/A/c_0")
    real, free = examine._examine, []

    def examining(*args: object) -> object:
        free.append(not mine.busy)
        return real(*args)  # type: ignore[arg-type]

    scanner(world.layout, other).look()
    monkeypatch.setattr(examine, "_examine", examining)
    one = scanner(world.layout, other, LookPlan(whole=False, processes=1, max_age=60))
    assert one.read_in_full(1) == 1
    assert free == [True]


@pytest.mark.parametrize("damage", ["listing", "pages"])
def test_damage_met_while_reading_is_mended(tmp_path: Path, damage: str) -> None:
    world, path = World(tmp_path, 1), tmp_path / "kept.sqlite"
    for number in range(500):
        write_chain(world.layout, f"as/many{number:03}/c_0")
    expected = told(list(scanner(world.layout, None).scan()))
    for read in ("scan", "unfinished", "changed", "finished"):
        kept = Snapshot(path)
        one = scanner(world.layout, kept)
        one.look()
        if damage == "listing":
            kept._connection.execute(
                "UPDATE listings SET packed = x'00', verdicts = x'00' WHERE name > 'many450'"
            )
        else:
            kept._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with open(path, "r+b") as file:
                file.seek(4096)
                file.write(b"\xff" * (path.stat().st_size - 4096))
            kept._connection.execute("PRAGMA cache_size = 0")
            kept._connection.execute("PRAGMA shrink_memory")
        if read == "finished":
            assert one.finished().subreddits == 0
        else:
            found = getattr(one, read)(*([0] if read == "changed" else []))
            assert told(list(found)) == expected
        assert "finished listing" in f"{read} {damage}" or "is made again" in kept.notice


def test_without_a_home_and_without_processes_looks_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, 1)
    world.add()
    monkeypatch.setattr(examine, "_MANY", 1)
    monkeypatch.setattr(examine, "CHUNK", 1)

    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    with monkeypatch.context() as patch:
        patch.delenv("XDG_CACHE_HOME", raising=False)
        patch.setattr(Path, "home", homeless)
        kept = Snapshot.of(world.layout, None)
    assert "no home folder" in kept.notice
    for broken in ("submit", "__init__"):
        with monkeypatch.context() as patch:
            patch.setattr(examine.ProcessPoolExecutor, broken, refuse)
            found = list(scanner(world.layout, kept, LookPlan(whole=True)).scan())
        assert told(found) == told(list(scanner(world.layout, None).scan()))
