"""What a scan calls missing, stale and fresh."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from factories import MODEL, write_chain, write_embedding

from reddit_assets.corpus import facts, provenance, scan, walk
from reddit_assets.corpus.fingerprints import cluster_version, set_hash
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.provenance import (
    PROVENANCE_KEY,
    ClusterProvenance,
    cluster_inputs,
    read_output,
)
from reddit_assets.corpus.scan import FileStatus, Reason, Scanner, ScanOptions, Verdict
from reddit_assets.corpus.snapshot import Snapshot
from reddit_assets.corpus.subreddits import SubredditFilter
from reddit_assets.corpus.wanted import set_wanted_model
from reddit_assets.errors import SettingsError

KEY = "as/AskReddit/c_0"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.of(tmp_path)


def scanner(layout: Layout, *, dead: tuple[str, ...] = (), **options: object) -> Scanner:
    return Scanner(layout, ScanOptions(**options), dead=dead)  # type: ignore[arg-type]


def verdicts(layout: Layout, **options: object) -> dict[str, Verdict]:
    return {
        file.key: file.verdict
        for status in scanner(layout, **options).scan()
        for file in status.files
    }


def write_cluster(layout: Layout, cluster_key: str, keys: list[str], settings: str = "s") -> Path:
    files = cluster_inputs(layout, keys)
    versions = {key: file.data_version for key, file in zip(sorted(keys), files, strict=True)}
    stamps = {key: file.stamp for key, file in zip(sorted(keys), files, strict=True)}
    made = ClusterProvenance(
        key=cluster_key,
        data_version=cluster_version(set_hash(versions), settings),
        inputs=versions,
        inputs_hash=set_hash(versions),
        inputs_stamp=set_hash(stamps),
        settings_fingerprint=settings,
    )
    table = pq.read_table(layout.embedding_path(keys[0]))
    path = layout.cluster_path(cluster_key)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        table.replace_schema_metadata({PROVENANCE_KEY: made.model_dump_json().encode()}), path
    )
    return path


def test_a_tree_without_outputs_is_missing_them_in_path_order(layout: Layout) -> None:
    keys = ["as/b/c_1", "as/a/c_0", "Flat/c_0", "é/日本語 names/c 0"]
    for key in keys:
        write_chain(layout, key)
    assert list(verdicts(layout).items()) == [
        (key, Verdict.MISSING) for key in sorted(keys, key=lambda key: key.split("/"))
    ]


@pytest.mark.parametrize("deep", [False, True])
def test_a_file_is_fresh_until_its_chain_file_changes(layout: Layout, deep: bool) -> None:
    write_chain(layout, KEY)
    write_embedding(layout, KEY)
    assert verdicts(layout, deep=deep) == {KEY: Verdict.FRESH}
    write_chain(layout, KEY, ["something else"], age=-1)
    assert verdicts(layout, deep=deep, settle_seconds=0) == {KEY: Verdict.STALE}


def test_touching_a_chain_file_makes_no_work(layout: Layout) -> None:
    path = write_chain(layout, KEY)
    write_embedding(layout, KEY)
    os.utime(path, (time.time() + 10, time.time() + 10))
    assert verdicts(layout) == {KEY: Verdict.FRESH}


@pytest.mark.parametrize("deep", [False, True])
def test_a_chain_file_replaced_by_an_older_one_is_noticed(layout: Layout, deep: bool) -> None:
    write_chain(layout, KEY)
    write_embedding(layout, KEY)
    write_chain(layout, KEY, ["older"], age=9999)
    assert verdicts(layout, deep=deep) == {KEY: Verdict.STALE}


def test_a_young_chain_file_waits_until_it_has_settled(layout: Layout) -> None:
    write_chain(layout, KEY, age=0)
    assert verdicts(layout, settle_seconds=60) == {KEY: Verdict.SETTLING}
    assert verdicts(layout, settle_seconds=60, now=time.time() + 61) == {KEY: Verdict.MISSING}


def test_a_file_from_the_future_does_not_wait_for_ever(layout: Layout) -> None:
    write_chain(layout, KEY, age=-9999)
    assert verdicts(layout, settle_seconds=60) == {KEY: Verdict.MISSING}


@pytest.mark.parametrize("damage", ["empty", "truncated", "rubbish"])
def test_damaged_outputs_are_stale(layout: Layout, damage: str) -> None:
    write_chain(layout, KEY)
    path = write_embedding(layout, KEY)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "truncated": whole[:-50], "rubbish": b"x" * 99}[damage])
    assert verdicts(layout, deep=True) == {KEY: Verdict.STALE}


def rewrite(layout: Layout, **changes: object) -> Path:
    """The embedding file with other provenance, and newer than everything else."""
    path = layout.embedding_path(KEY)
    made = read_output(path).provenance
    assert made is not None
    text = made.model_copy(update=changes).model_dump_json()
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({PROVENANCE_KEY: text.encode()}), path)
    os.utime(path, (time.time() + 99, time.time() + 99))
    return path


def only(layout: Layout, **options: object) -> FileStatus:
    """The one file's status, which a quick and a deep scan agree on."""
    (quick,) = (file for status in scanner(layout, **options).scan() for file in status.files)
    (deep,) = (
        file for status in scanner(layout, deep=True, **options).scan() for file in status.files
    )
    assert (quick.verdict, quick.reason) == (deep.verdict, deep.reason)
    return quick


# --- provenance counts, times do not -----------------------------------------------------
def test_a_file_of_another_model_is_stale_whatever_its_times(layout: Layout) -> None:
    # Given a worker that goes on with the previous model after `model set`
    write_chain(layout, KEY)
    set_wanted_model(layout, MODEL)
    other = MODEL.model_copy(update={"fingerprint": "other", "name": "unwanted"})
    path = write_embedding(layout, KEY, model=other)
    os.utime(path, (time.time() + 99, time.time() + 99))
    # Then its file is newer than the chain file and the wish, and stale
    found = only(layout)
    assert (found.verdict, found.reason) == (Verdict.STALE, Reason.OTHER_MODEL)
    assert found.sentence == "was made with another model: unwanted"


def test_a_nonconformant_file_is_stale_unless_a_setting_allows_it(layout: Layout) -> None:
    write_chain(layout, KEY)
    write_embedding(layout, KEY)
    rewrite(layout, conformant=False)
    assert only(layout).reason is Reason.NONCONFORMANT
    assert only(layout).verdict is Verdict.STALE
    assert only(layout, nonconformant=True).verdict is Verdict.FRESH


def test_a_file_made_for_another_key_is_stale(layout: Layout) -> None:
    write_chain(layout, KEY)
    write_embedding(layout, KEY)
    rewrite(layout, key="as/AskReddit/c_1")
    assert only(layout).sentence == "was made for another file: as/AskReddit/c_1"


def test_a_clustered_file_in_an_embedding_files_place_is_stale(layout: Layout) -> None:
    write_chain(layout, KEY)
    write_embedding(layout, KEY)
    write_cluster(layout, "as/AskReddit", [KEY]).rename(layout.embedding_path(KEY))
    assert only(layout).reason is Reason.OTHER_KIND


def test_adopted_files_have_the_wanted_dimension_and_are_not_older(layout: Layout) -> None:
    chain = write_chain(layout, KEY)
    path = write_embedding(layout, KEY)
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    assert only(layout).verdict is Verdict.ADOPTED
    assert only(layout, adopt=False).reason is Reason.NOT_ADOPTED
    set_wanted_model(layout, MODEL)
    assert only(layout).verdict is Verdict.ADOPTED
    set_wanted_model(layout, MODEL.model_copy(update={"dimension": 384}))
    assert only(layout).sentence == "was made with another model: 4 dimensions"
    os.utime(chain, (time.time() + 9, time.time() + 9))
    assert only(layout).reason is Reason.OLDER


def test_a_copied_tree_is_fresh_and_its_chain_files_are_read_once(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a tree whose files all have times of today, as after a copy
    chain = write_chain(layout, KEY)
    write_embedding(layout, KEY)
    os.utime(chain, (time.time() - 7, time.time() - 7))
    read: list[int] = []
    real = scan.content_fingerprint

    def fingerprint(descriptor: int) -> str:
        read.append(descriptor)
        return real(descriptor)

    monkeypatch.setattr(scan, "content_fingerprint", fingerprint)
    # If it is scanned again and again, Then the content is compared once
    kept = Snapshot(None)
    for _ in range(3):
        (status,) = Scanner(layout, ScanOptions(), snapshot=lambda: kept).scan()
        assert status.files[0].verdict is Verdict.FRESH
    assert len(read) == 1
    # and again when the file has changed
    write_chain(layout, KEY, ["two", "one"], age=60)
    (status,) = Scanner(layout, ScanOptions(), snapshot=lambda: kept).scan()
    assert status.files[0].reason is Reason.SOURCE_CHANGED


def test_a_deep_scan_sees_missing_rows_and_columns(layout: Layout) -> None:
    write_chain(layout, KEY)
    path = write_embedding(layout, KEY)
    whole = pq.read_table(path)
    pq.write_table(whole.slice(0, 1), path)
    (file,) = next(scanner(layout, deep=True).scan()).files
    assert file.sentence == "is not complete: 1 of 2 rows"
    pq.write_table(whole.drop_columns(["emb_003"]), path)
    (file,) = next(scanner(layout, deep=True).scan()).files
    assert file.sentence == "is not complete: 3 of 4 dimensions"


@pytest.mark.parametrize("damage", ["empty", "truncated", "rubbish"])
def test_a_quick_scan_sees_damage_at_the_end(layout: Layout, damage: str) -> None:
    write_chain(layout, KEY)
    path = write_embedding(layout, KEY)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "truncated": whole[:-50], "rubbish": b"x" * 99}[damage])
    found = only(layout)
    assert found.verdict is Verdict.STALE
    assert found.reason is (Reason.EMPTY if damage == "empty" else Reason.DAMAGED)


@pytest.mark.parametrize("deep", [False, True])
def test_storage_that_fails_makes_no_work(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, deep: bool
) -> None:
    # Given an output that is there, on a share that has gone away
    write_chain(layout, KEY)
    write_embedding(layout, KEY)

    def stale(*_: object, **__: object) -> int:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(facts.os, "open", stale)
    monkeypatch.setattr(provenance, "open", stale, raising=False)
    # Then nothing is made again because of it
    (status,) = scanner(layout, deep=deep).scan()
    assert status.files[0].verdict is Verdict.WAITING
    assert status.files[0].reason is Reason.UNREADABLE
    assert status.cluster is not None
    assert status.cluster.verdict is Verdict.WAITING


def test_a_folder_that_cannot_be_listed_makes_no_orphans(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_chain(layout, KEY)
    write_embedding(layout, KEY)
    real = os.scandir

    def refuse(path: Path) -> object:
        if Path(path) == layout.chains / "as/AskReddit":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path)

    monkeypatch.setattr(walk.os, "scandir", refuse)
    # Then the scan says so and goes on, and nothing is concluded from what it did not see
    other = "as/Other/c_0"
    write_chain(layout, other)
    unread, read = scanner(layout).scan()
    assert [str(layout.chains / "as/AskReddit") in str(error) for error in unread.problems] == [
        True
    ]
    assert "permission is denied" in str(unread.problems[0])
    assert (unread.files, unread.orphans, unread.cluster, unread.gone) == ([], [], None, False)
    assert [file.key for file in read.files] == [other]


def test_another_wanted_model_makes_every_file_of_the_former_stale(layout: Layout) -> None:
    write_chain(layout, KEY)
    write_embedding(layout, KEY)
    set_wanted_model(layout, MODEL)
    assert verdicts(layout) == {KEY: Verdict.FRESH}
    set_wanted_model(layout, MODEL.model_copy(update={"fingerprint": "other"}))
    assert verdicts(layout) == {KEY: Verdict.STALE}


def test_files_of_the_original_are_adopted_unless_a_setting_says_otherwise(
    layout: Layout,
) -> None:
    write_chain(layout, KEY)
    path = write_embedding(layout, KEY)
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    assert verdicts(layout, deep=True) == {KEY: Verdict.ADOPTED}
    assert verdicts(layout, deep=True, adopt=False) == {KEY: Verdict.STALE}


def test_names_that_cannot_be_keys_are_named_and_do_not_stop_the_scan(layout: Layout) -> None:
    write_chain(layout, KEY)
    for bad in ("as/AskReddit/a...b.parquet", "as/a|b/c.parquet", "loose.parquet"):
        path = layout.chains / bad
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    one = scanner(layout)
    statuses = list(one.scan())
    assert [file.key for status in statuses for file in status.files] == [KEY]
    problems = one.problems + [p for status in statuses for p in status.problems]
    text = "\n".join(str(problem) for problem in problems)
    for name in ("a...b.parquet", "a|b", "loose.parquet"):
        assert name in text


TOKEN = "0123456789abcdef"
OURS = [f"c_0.parquet.{TOKEN}.tmp", "c_0.parquet.tmp", f"c.with.dots.parquet.{TOKEN}.tmp"]
NOT_OURS = [
    "x.tmp",
    "notes.txt.tmp",
    f"c_0.parquet.{TOKEN.upper()}.tmp",
    f"c_0.parquet.{TOKEN[1:]}.tmp",
    f"c_0.parquet.{TOKEN}.tmp.bak",
    f"c_0.csv.{TOKEN}.tmp",
]


def test_temporary_files_are_those_of_our_names_below_embeddings_and_clusters(
    layout: Layout,
) -> None:
    # Given files of all such names in all three trees
    write_chain(layout, KEY)
    cluster_names = [f"clustered.parquet.{TOKEN}.tmp", f"map.html.{TOKEN}.tmp"]
    for root in (layout.chains, layout.embeddings, layout.clusters):
        folder = root / "as/AskReddit"
        folder.mkdir(parents=True, exist_ok=True)
        for name in [*OURS, *cluster_names, *NOT_OURS]:
            (folder / name).write_bytes(b"")
    statement = layout.embeddings / f".model.json.{TOKEN}.tmp"
    statement.write_bytes(b"")
    # Then only ours are temporary, and none of the tree that is only read
    one = scanner(layout)
    (status,) = one.scan()
    expected = {
        root / "as/AskReddit" / name
        for root in (layout.embeddings, layout.clusters)
        for name in [*OURS, *cluster_names]
    }
    assert set(status.temporary) == expected
    assert one.temporary() == [statement]
    # and none is a chain file.
    assert [file.key for file in status.files] == [KEY]
    assert status.problems == []


def test_orphans_and_temporary_files_are_found(layout: Layout) -> None:
    chain = write_chain(layout, KEY)
    write_embedding(layout, KEY)
    chain.unlink()
    leftover = layout.embeddings / "as/AskReddit/c_0.parquet.0123456789abcdef.tmp"
    leftover.write_bytes(b"")
    (status,) = scanner(layout).scan()
    assert status.orphans == [KEY]
    assert status.temporary == [leftover]


def test_a_cluster_waits_for_all_its_files_and_then_for_changes(layout: Layout) -> None:
    keys = ["as/AskReddit/c_0", "as/AskReddit/c_1"]
    for key in keys:
        write_chain(layout, key)
    write_embedding(layout, keys[0])

    def cluster(**options: object):
        (status,) = scanner(layout, **options).scan()
        assert status.cluster is not None
        return status.cluster

    assert cluster().verdict is Verdict.WAITING
    assert cluster(dead=(keys[1],)).verdict is Verdict.MISSING
    assert cluster(dead=(keys[1],)).excluded == (keys[1],)
    write_embedding(layout, keys[1])
    first = cluster()
    assert first.verdict is Verdict.MISSING
    write_cluster(layout, "as/AskReddit", keys)
    assert cluster().verdict is Verdict.FRESH
    assert cluster(settings_fingerprint="s").verdict is Verdict.FRESH
    assert cluster(settings_fingerprint="t").verdict is Verdict.STALE
    assert cluster(settings_fingerprint="t").reason is Reason.OTHER_SETTINGS
    write_chain(layout, "as/AskReddit/c_2")
    write_embedding(layout, "as/AskReddit/c_2")
    late = cluster()
    assert late.verdict is Verdict.STALE
    assert late.sentence == "has other inputs now: 1 files are new, 0 changed, 0 gone"
    assert late.stamp != first.stamp


def test_an_embedding_made_again_while_the_cluster_was_made_is_noticed(layout: Layout) -> None:
    write_chain(layout, KEY)
    write_embedding(layout, KEY)
    path = write_cluster(layout, "as/AskReddit", [KEY])
    write_chain(layout, KEY, ["changed"])
    write_embedding(layout, KEY)
    os.utime(path, (time.time() + 99, time.time() + 99))
    (status,) = scanner(layout).scan()
    assert status.cluster is not None
    assert status.cluster.verdict is Verdict.STALE


def test_filters_and_resuming(layout: Layout) -> None:
    for key in ("as/AskReddit/c", "as/AskHistorians/c", "bo/books/c"):
        write_chain(layout, key)
    only = scanner(layout, filter=SubredditFilter.parse("Ask*,!AskReddit"))
    assert only.subreddits() == ["as/AskHistorians"]
    rest = [status.cluster_key for status in scanner(layout).scan("as/AskHistorians")]
    assert rest == ["as/AskReddit", "bo/books"]


def test_without_chains_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="REDDIT_ROOT"):
        scanner(Layout.of(tmp_path / "nowhere"))
