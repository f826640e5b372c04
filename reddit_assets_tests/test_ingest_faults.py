"""Ingesting where something is broken: no row is lost, and the sentence says what to do."""

from __future__ import annotations

import bz2
import errno
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import (
    BadFileError,
    SettingsError,
    StartupError,
    UnreadableFileError,
    WriteError,
)
from reddit_assets.ingest import source, store
from reddit_assets.ingest.chains import _Pool
from reddit_assets.ingest.filters import Filters
from reddit_assets.ingest.groups import find_groups
from reddit_assets.ingest.journal import Journal
from reddit_assets.ingest.parse import Parser
from reddit_assets.ingest.run import Ingest, Summary
from reddit_assets.ingest.source import blocks
from reddit_assets.ingest.store import STDIN, find_dumps
from reddit_assets.local.sample_dumps import compressed
from reddit_assets.settings import Settings
from reddit_assets_tests.dump_files import contents, months, write, zst_block


def made(root: Path) -> Ingest:
    settings = Settings(root=root, threads=1)
    return Ingest(settings, Layout.from_settings(settings))


def ingest(root: Path) -> Summary:
    work = made(root)
    dumps = find_dumps([work.store.dumps], work.store.dumps)
    return work.all(dumps, lambda key, seen: None, lambda done, total: None)


def packed(folder: Path, name: str, rows: list[dict]) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compressed("".join(json.dumps(row) + "\n" for row in rows).encode(), 3))
    return path


# --- nothing is lost -------------------------------------------------------------------------
def test_a_dump_that_is_fetched_again_and_cut_keeps_its_rows(tmp_path):
    for name, rows in months(400).items():
        last = packed(tmp_path / "dumps", name.replace("jsonl", "zst"), rows)
    ingest(tmp_path)
    before, whole = contents(tmp_path / "chains"), last.read_bytes()
    last.write_bytes(whole[:-30])
    summary = ingest(tmp_path)
    assert list(summary.failed) == [last.name]
    assert contents(tmp_path / "chains") == before
    record = made(tmp_path).store.record(last.name)
    assert record is not None
    assert (record.rows > 0, "middle of a frame" in record.error) == (True, True)
    last.write_bytes(whole)
    assert not ingest(tmp_path).failed
    assert contents(tmp_path / "chains") == before


def test_a_torn_record_stops_it_instead_of_taking_rows_out(tmp_path):
    write(tmp_path / "dumps", months(200))
    ingest(tmp_path)
    before = contents(tmp_path / "chains")
    path = tmp_path / "ingested" / "RC_2023-04.jsonl" / "record.json"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(BadFileError, match=r"--forget RC_2023-04\.jsonl"):
        ingest(tmp_path)
    assert contents(tmp_path / "chains") == before


def test_months_from_standard_input_have_names(tmp_path, monkeypatch):
    work = made(tmp_path)
    with pytest.raises(SettingsError, match="--name"):
        find_dumps([STDIN], work.store.dumps)
    with pytest.raises(SettingsError, match="cannot be the name"):
        find_dumps([STDIN], work.store.dumps, name="../x.jsonl")
    rows = 0
    for name, month in months(200).items():
        text = "".join(json.dumps(row) + "\n" for row in month).encode()
        (tmp_path / "in").write_bytes(text)
        with open(tmp_path / "in") as monkeypatch_in:
            monkeypatch.setattr(sys, "stdin", monkeypatch_in)
            dumps = find_dumps([STDIN], work.store.dumps, name=name)
            summary = work.all(dumps, lambda key, seen: None, lambda done, total: None)
        rows += summary.records[0].written
    assert sum(record.written for record in work.store.records()) == rows
    assert {record.section for record in work.store.records()} == {"2023-04", "2023-05"}


def test_storage_that_fails_leaves_no_record(tmp_path, monkeypatch):
    write(tmp_path / "dumps", {"RC_2023-04.jsonl": months(100)["RC_2023-04.jsonl"]})

    def fail(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(source, "open_file", fail)
    with pytest.raises(UnreadableFileError, match="device reports an error") as caught:
        ingest(tmp_path)
    assert caught.value.host_fault
    assert made(tmp_path).store.record("RC_2023-04.jsonl") is None


def test_chain_files_that_were_deleted_are_made_again(tmp_path):
    write(tmp_path / "dumps", months(300))
    ingest(tmp_path)
    before = contents(tmp_path / "chains")
    for name in list(before)[::3]:
        (tmp_path / "chains" / name).unlink()
    assert ingest(tmp_path).built.files_new == len(list(before)[::3])
    assert contents(tmp_path / "chains") == before


def test_messages_that_were_replaced_stay_until_chain_files_are_made(tmp_path):
    dumps = {"RC_2023-04.jsonl": months(200)["RC_2023-04.jsonl"]}
    write(tmp_path / "dumps", dumps)
    ingest(tmp_path)
    write(tmp_path / "dumps", {name: rows[:50] for name, rows in dumps.items()})
    work = made(tmp_path)
    folder = tmp_path / "ingested" / "RC_2023-04.jsonl"
    work.dump("RC_2023-04.jsonl", tmp_path / "dumps" / "RC_2023-04.jsonl")
    assert len(list(folder.glob("messages-*"))) == 4
    with work.store.lock(), pytest.raises(StartupError, match="makes chain files"):
        work.store.forget("RC_2023-04.jsonl")
    work.chains()
    assert len(list(folder.glob("messages-*"))) == 2


def test_waiting_for_the_lock_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_LOCK_SECONDS", 0.001)
    place, said = made(tmp_path).store, []
    with place.lock() as held:

        def alive() -> None:
            said.append(held)
            if len(said) == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), place.lock(wait=alive):
            pass
    with place.lock(wait=alive):
        assert len(said) == 3


# --- damaged dumps ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "cut", "said"),
    [
        ("RC_2023-04.zst_blocks", 3, "middle of a block"),
        ("RC_2023-04.zst_blocks", 60, "middle of a block"),
        ("RC_2023-04.jsonl.gz", 30, "middle of a frame"),
        ("RC_2023-04.zst", 10**9, "is empty"),
        ("RC_2023-04.bz2", 0, "a bzip2 file"),
    ],
)
def test_a_part_that_is_missing_is_said(tmp_path, name, cut, said):
    rows = [json.dumps(row).encode() + b"\n" for row in months(300)["RC_2023-04.jsonl"]]
    blocked = [compressed(zst_block(rows[at::2]), 1) for at in (0, 1)]
    data = {
        ".zst_blocks": b"".join(len(b).to_bytes(4, "little") + b for b in blocked),
        ".gz": gzip.compress(b"".join(rows[::2])) + gzip.compress(b"".join(rows[1::2])),
        ".zst": b"x",
        ".bz2": bz2.compress(b"".join(rows)),
    }[Path(name).suffix]
    path = tmp_path / name
    path.write_bytes(data[: max(0, len(data) - cut)])
    with pytest.raises(BadFileError, match=said):
        list(blocks(path))
    if said.startswith("middle"):
        found = list(blocks(path, skip_corrupt=True))
        assert sum(block.data.count(b"\n") for block in found) >= len(rows) // 2 - 1
        assert said in found[-1].damage[0].reason


def test_a_message_does_not_depend_on_its_neighbours():
    odd = b'{"id":"a","title":"\\ud83d","subreddit":"s","created_utc":1}\n'
    good = b'{"id":"b","title":"t","subreddit":"s","created_utc":1}\n'
    parser = Parser()
    alone, beside = parser.parse(odd), parser.parse(good + odd + good)
    parser.close()
    assert alone.rows["title"].to_pylist() == ["?"]
    assert beside.rows["title"].to_pylist() == ["t", "?", "t"]
    assert not alone.reasons
    assert not beside.reasons


# --- groups, and what is said ------------------------------------------------------------------
def test_a_new_month_makes_few_groups(tmp_path):
    rows: list[dict[str, Any]] = [
        {"id": f"{n}a", "title": "t", "subreddit": f"s{n % 50}", "created_utc": n}
        for n in range(300)
    ]
    write(tmp_path / "dumps", {"RS_2023-04.jsonl": rows})
    ingest(tmp_path)
    some = [row | {"id": f"{row['id']}b"} for row in rows if int(row["subreddit"][1:]) % 2]
    write(tmp_path / "dumps", {"RS_2023-05.jsonl": some})
    work = made(tmp_path)
    work.dump("RS_2023-05.jsonl", tmp_path / "dumps" / "RS_2023-05.jsonl")
    journal = Journal(work.store.root / "built.jsonl", work.options.fingerprint)
    groups, places = find_groups(work.store, work.store.records(), journal, work.layout.chains)
    assert (len(groups), len(places), len(groups[0].places)) == (1, 50, 25)
    before = contents(tmp_path / "chains")
    built = work.chains()
    assert (built.subreddits, built.unchanged, built.files_changed) == (25, 25, 25)
    after = contents(tmp_path / "chains")
    assert sum(after[name] != before[name] for name in before) == 25


@pytest.mark.parametrize("suffix", ["index", "parquet"])
def test_damaged_messages_name_their_dump(tmp_path, suffix):
    write(tmp_path / "dumps", {"RC_2023-04.jsonl": months(100)["RC_2023-04.jsonl"]})
    work = made(tmp_path)
    work.dump("RC_2023-04.jsonl", tmp_path / "dumps" / "RC_2023-04.jsonl")
    (path,) = (tmp_path / "ingested" / "RC_2023-04.jsonl").glob(f"messages-*.{suffix}")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadFileError, match=r"--forget RC_2023-04\.jsonl"):
        work.chains()


def test_a_process_that_was_killed_is_said():
    with _Pool(2) as pool, pytest.raises(StartupError, match="was killed") as caught:
        list(pool.run(os._exit, [1], ()))  # type: ignore[arg-type,list-item]
    assert caught.value.host_fault


def test_a_missing_extra_is_said():
    code = (
        "import sys; sys.modules['duckdb'] = None; from reddit_assets.cli.app import run; "
        "sys.exit(run(['ingest', '--root', '/nowhere']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'reddit-assets[ingest]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_journal_that_is_no_text_makes_everything_again(tmp_path):
    write(tmp_path / "dumps", months(100))
    ingest(tmp_path)
    before = contents(tmp_path / "chains")
    (tmp_path / "ingested" / "built.jsonl").write_bytes(b"\xff\xfe[1]\n")
    built = ingest(tmp_path).built
    assert (built.files_same, contents(tmp_path / "chains")) == (len(before), before)


def test_a_number_in_another_notation_is_read_by_the_column():
    from reddit_assets.ingest.clean import _integers

    values, valid = _integers(pa.array(["1700000000", "1700000000.0", None, "x", "1e3", "nan"]))
    assert values.tolist() == [1700000000, 1700000000, 0, 0, 1000, 0]
    assert valid.tolist() == [True, True, False, False, True, False]


def test_a_file_that_cannot_grow_is_said_and_nothing_is_lost(tmp_path):
    resource = pytest.importorskip("resource")
    dumps = {"RC_2023-04.jsonl": months(2_000)["RC_2023-04.jsonl"]}
    for root in (tmp_path, tmp_path / "whole"):
        write(root / "dumps", dumps)
    ingest(tmp_path / "whole")
    work = made(tmp_path)
    work.dump("RC_2023-04.jsonl", tmp_path / "dumps" / "RC_2023-04.jsonl")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, hard))
    try:
        with pytest.raises(WriteError, match="larger than allowed"):
            work.chains()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    ingest(tmp_path)
    assert contents(tmp_path / "chains") == contents(tmp_path / "whole" / "chains")


def test_bots_are_names_or_patterns():
    filters = Filters(bots=("automoderator", "*_bot", "a[0-9]"))
    authors = pa.array(["AutoModerator", "my_bot", "bot", None, "A7", "automoderator2"])
    assert filters.by_bots(authors).tolist() == [True, True, False, False, True, False]
