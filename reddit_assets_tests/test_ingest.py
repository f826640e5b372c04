"""Public dumps to chain files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import BadFileError, StartupError, WriteError
from reddit_assets.ingest import groups
from reddit_assets.ingest.clean import clean
from reddit_assets.ingest.filters import Filters
from reddit_assets.ingest.ids import numbers
from reddit_assets.ingest.parse import Parser
from reddit_assets.ingest.run import Ingest, Need, Summary
from reddit_assets.ingest.source import blocks
from reddit_assets.ingest.store import find_dumps, section_of
from reddit_assets.ingest.threads import Messages, build
from reddit_assets.local.sample_dumps import compressed, write_sample_dumps
from reddit_assets.settings import Settings
from reddit_assets_tests.dump_files import (
    chain_rows,
    contents,
    in_memory,
    months,
    write,
    zst_block,
)


def ingest(root: Path, **options: object) -> Summary:
    made = Settings(root=root, threads=1, **options)  # type: ignore[arg-type]
    work = Ingest(made, Layout.from_settings(made))
    dumps = find_dumps([root / "dumps"], work.store.dumps)
    return work.all(dumps, lambda key, seen: None, lambda done, total: None)


# --- lines ---------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def parser():
    made = Parser()
    yield made
    made.close()


_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.just("t3_abc")
)
_OBJECTS = st.dictionaries(
    st.sampled_from(["id", "name", "link_id", "parent_id", "body", "title", "subreddit",
                     "created_utc", "score", "_meta", "author", "retrieved_on", "permalink"]),
    _VALUES | st.lists(_VALUES, max_size=2) | st.dictionaries(st.text(max_size=3), _VALUES),
)  # fmt: skip
_GOOD = b'{"id":"abc","title":"t","subreddit":"s","created_utc":1}'
_LINES = st.one_of(
    st.binary(max_size=40),
    _OBJECTS.map(lambda value: json.dumps(value).encode()),
    _OBJECTS.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")),
    st.sampled_from([b"", b" \t", b"\xef\xbb\xbf{}", b'{"id":"\\ud800"}', b"[" * 3000, b"1e999"]),
    st.just(_GOOD),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_LINES, max_size=12), st.booleans())
def test_any_line_is_a_message_or_a_rejected_line(parser, lines, ended):
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    parsed = parser.parse(data)
    table, reasons = clean(parsed, 0, Filters(), Counter())
    said = [line for line in data.split(b"\n") if line.strip(b" \t\r\n\v\f")]
    assert table.num_rows + len(reasons) == len(said)
    assert [data[a:b].strip(b"\n") for a, b in zip(parsed.starts, parsed.ends, strict=True)] == said
    assert table.num_rows >= said.count(_GOOD)
    assert all(reasons.values())


def test_blocks_of_any_size_are_the_same_lines(tmp_path):
    text = "".join(f'{{"body": "Grüße {n} 日本"}}\n' for n in range(500)).encode()
    path = tmp_path / "RC_2020-01.zst"
    path.write_bytes(compressed(text, 7))
    for size in (1, 97, 10_000_000):
        found = list(blocks(path, size=size))
        assert b"".join(block.data for block in found) == text
        assert all(block.data.endswith(b"\n") for block in found)
        at = 0
        for block in found:
            assert block.offset == at
            at += len(block.data)


def test_every_kind_of_file_gives_the_same_chain_files(tmp_path):
    rows = months(300)["RC_2023-04.jsonl"]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    packed = [zstandard.compress(zst_block(text.splitlines(True)[at::2])) for at in (0, 1)]
    import gzip

    kinds = {
        "RC_2023-04.jsonl": text,
        "RC_2023-04.zst": compressed(text),
        "RC_2023-04.jsonl.gz": gzip.compress(text),
        "RC_2023-04.zst_blocks": b"".join(len(b).to_bytes(4, "little") + b for b in packed),
    }
    made = {}
    for name, data in kinds.items():
        root = tmp_path / name
        (root / "dumps").mkdir(parents=True)
        (root / "dumps" / name).write_bytes(data)
        assert ingest(root).records[0].rejected == 0
        made[name] = contents(root / "chains")
    root = tmp_path / "parquet"
    (root / "dumps").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), root / "dumps" / "RC_2023-04.parquet")
    ingest(root)
    made["parquet"] = contents(root / "chains")
    first = made.pop("RC_2023-04.jsonl")
    assert first
    assert all(other == first for other in made.values())


def test_ids_are_numbers_in_base_36():
    texts = pa.array(
        ["0", "z", "10", "abc123", "ABC", "01", "", None, "é", "a" * 13, "zzzzzzzzzzzz"]
    )
    found = numbers(texts).tolist()
    expected = [0, 35, 36, int("abc123", 36), -1, -1, -1, -1, -1, -1, int("z" * 12, 36)]
    assert found == expected
    assert numbers(pa.array(["t3_a", "t1_a", "t3_", None]), "t3_").tolist() == [10, -1, -1, -1]


# --- threads -------------------------------------------------------------------------------
def test_threads_are_those_of_a_program_in_memory(tmp_path, monkeypatch):
    dumps = months(6_000)
    write(tmp_path / "dumps", dumps)
    summary = ingest(tmp_path, chunk_rows=300)
    expected = in_memory(dumps)
    assert chain_rows(tmp_path / "chains") == expected
    assert summary.built.rows == sum(len(rows) for rows in expected.values())
    assert summary.built.orphans > 10
    assert summary.built.doubles > 10
    # A subreddit that does not fit into memory gives the same bytes.
    monkeypatch.setattr(groups, "GROUP_ROWS", 150)
    other = tmp_path / "pieces"
    write(other / "dumps", dumps)
    ingest(other, chunk_rows=300)
    assert contents(other / "chains") == contents(tmp_path / "chains")


def test_messages_that_answer_each_other_have_a_root():
    ones = np.ones(4, np.int64)
    made = build(
        Messages(
            thread=ones,
            kind=ones,
            section=ones * 0,
            created=np.array([5, 6, 7, 8]),
            num=np.array([1, 2, 3, 4]),
            parent=np.array([2, 3, 1, 3]),
            retrieved=ones,
        )
    )
    assert made.depth.tolist() == [0, 2, 1, 2]
    assert made.orphans.tolist() == [True, False, False, False]


def test_a_chain_of_answers_may_be_very_deep():
    rows = 30_000
    steps = np.arange(rows)
    same = np.ones(rows, np.int64)
    made = build(Messages(same, same, same * 0, steps, steps, steps - 1, same))
    assert made.depth.tolist() == steps.tolist()


# --- months, changes, kills ----------------------------------------------------------------
def test_a_month_changes_only_last_chunks_and_adds_new_ones(tmp_path):
    dumps = months(3_000, names=("2023-03", "2023-04", "2023-05"))
    write(tmp_path / "dumps", {k: v for k, v in dumps.items() if "2023-05" not in k})
    ingest(tmp_path, chunk_rows=100)
    before = contents(tmp_path / "chains")
    last = {}
    for name in before:
        folder, number = name.rsplit("_", 1)
        last[folder] = max(last.get(folder, 0), int(number.removesuffix(".parquet")))
    write(tmp_path / "dumps", {k: v for k, v in dumps.items() if "2023-05" in k})
    built = ingest(tmp_path, chunk_rows=100).built
    after = contents(tmp_path / "chains")
    changed = {name for name in before if after[name] != before[name]}
    assert changed
    assert changed <= {f"{folder}_{number}.parquet" for folder, number in last.items()}
    assert built.files_changed == len(changed)
    assert built.files_new == len(after) - len(before)
    # All at once gives the same.
    write(tmp_path / "once" / "dumps", dumps)
    ingest(tmp_path / "once", chunk_rows=100)
    assert contents(tmp_path / "once" / "chains") == after
    # And nothing to do does nothing.
    again = ingest(tmp_path, chunk_rows=100)
    assert (again.fresh, again.built.subreddits) == (6, 0)


def test_a_replaced_dump_replaces_exactly_its_rows(tmp_path):
    dumps = months(1_500)
    write(tmp_path / "dumps", dumps)
    ingest(tmp_path)
    short = dumps | {"RC_2023-05.jsonl": dumps["RC_2023-05.jsonl"][:200]}
    write(tmp_path / "dumps", short)
    ingest(tmp_path)
    assert chain_rows(tmp_path / "chains") == in_memory(short)
    made = Settings(root=tmp_path, threads=1)
    work = Ingest(made, Layout.from_settings(made))
    assert work.store.forget("RC_2023-05.jsonl")
    work.chains()
    assert chain_rows(tmp_path / "chains") == in_memory(short | {"RC_2023-05.jsonl": []})


_CHILD = (
    "import sys; from reddit_assets.cli.app import run; "
    "sys.exit(run(['ingest', '--root', sys.argv[1], '--chunk-rows', '50', '--threads', '1']))"
)


def _entries(folder: Path) -> int:
    return sum(len(below) + len(files) for _, below, files in os.walk(folder))


def test_killed_at_any_moment_it_makes_the_same_bytes(tmp_path):
    dumps = months(2_000)
    write(tmp_path / "whole" / "dumps", dumps)
    write(tmp_path / "killed" / "dumps", dumps)
    command = [sys.executable, "-c", _CHILD]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    files, killed = _entries(tmp_path / "whole"), 0
    for part in (0.1, 0.3, 0.6, 0.9):
        child = subprocess.Popen(
            [*command, str(tmp_path / "killed")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while child.poll() is None and _entries(tmp_path / "killed") < part * files:
            time.sleep(0.001)
        child.kill()
        killed += child.wait() == -signal.SIGKILL
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True)
    assert contents(tmp_path / "killed" / "chains") == contents(tmp_path / "whole" / "chains")
    assert killed
    assert not list((tmp_path / "killed" / "ingested").glob(".tmp-*"))


# --- damage --------------------------------------------------------------------------------
def test_one_corrupt_dump_among_five_fails_alone(tmp_path):
    folder = tmp_path / "dumps"
    for kind, names in {"RC": range(1, 6)}.items():
        for month in names:
            rows = months(1_200, seed=month, names=(f"2023-0{month}",))
            text = "".join(json.dumps(row) + "\n" for row in rows[f"{kind}_2023-0{month}.jsonl"])
            folder.mkdir(exist_ok=True)
            (folder / f"RC_2023-0{month}.zst").write_bytes(compressed(text.encode(), 5))
    path = folder / "RC_2023-03.zst"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    data[len(data) // 2 + 1] ^= 0xFF
    path.write_bytes(data)
    summary = ingest(tmp_path)
    assert list(summary.failed) == ["RC_2023-03.zst"]
    assert "is corrupt near byte" in summary.failed["RC_2023-03.zst"]
    assert len(summary.records) == 4
    assert summary.built.rows > 3_000
    # What can be read is read where that is wanted, and what cannot is told.
    summary = ingest(tmp_path, skip_corrupt=True)
    assert not summary.failed
    lines = (tmp_path / "rejected" / "RC_2023-03.zst.jsonl").read_text().splitlines()
    assert any("corrupt at byte" in json.loads(line)["reason"] for line in lines)
    record = next(record for record in summary.records if "03" in record.key)
    assert 100 < record.rows < 1_200


def test_a_truncated_dump_says_so(tmp_path):
    path = tmp_path / "RC_2023-01.zst"
    path.write_bytes(compressed(b'{"id": "a"}\n' * 5_000, 1)[:-20])
    with pytest.raises(BadFileError, match="ends in the middle of a frame"):
        list(blocks(path))


def test_files_of_others_are_not_replaced(tmp_path):
    write(tmp_path / "dumps", months(200))
    foreign = tmp_path / "chains" / "su" / "sub1" / "chains_chunk_0.parquet"
    foreign.parent.mkdir(parents=True)
    pq.write_table(pa.table({"body": ["mine"]}), foreign)
    with pytest.raises(StartupError, match="was not made from dumps"):
        ingest(tmp_path)
    assert pq.read_table(foreign).num_rows == 1


def test_too_little_room_is_said_before_it_starts():
    with pytest.raises(WriteError, match="are needed"):
        Need(10**12, 10**11, 10**9).check()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_standard_input_and_names(tmp_path):
    assert section_of("x/RC_2023-05.zst") == "2023-05"
    assert section_of("python_comments.zst") == ""
    data = "".join(json.dumps(row) + "\n" for row in months(100)["RS_2023-04.jsonl"])
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "reddit_assets.cli",
            "ingest",
            "-",
            "--name",
            "RS_2023-04.jsonl",
            "--root",
            str(tmp_path),
            "--json",
        ],
        input=data,
        text=True,
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["chains"]["rows"] == data.count("\n")


# --- filters and the sample ------------------------------------------------------------------
def test_the_sample_has_every_quirk_and_filters_are_counted(tmp_path):
    write_sample_dumps(tmp_path)
    summary = ingest(tmp_path, ingest_bots="automod*", ingest_min_score=2, ingest_min_length=90)
    filtered: Counter[str] = Counter()
    for record in summary.records:
        filtered.update(record.filtered)
    assert {why.split(",")[0] for why in filtered} == {
        "removed or deleted", "low score", "short", "bots"
    }  # fmt: skip
    rows = sum(record.rows for record in summary.records)
    written = sum(record.written for record in summary.records)
    assert rows - written == sum(filtered.values())
    assert all(record.rejected for record in summary.records)
    kept = ingest(tmp_path, ingest_removed="keep", subreddits="coffee,!space").built
    names = {path.name for path in (tmp_path / "chains").glob("*/*")}
    assert names <= {"coffee"}
    assert kept.structure == 0
    shutil.rmtree(tmp_path / "chains")


def test_a_chain_text_holds_the_nearest_ancestors(tmp_path):
    common = {"subreddit": "s", "author": "a", "retrieved_on": 0}
    rows = [{"id": "p", "title": "The question", "created_utc": 1, **common}]
    parent = "t3_p"
    for number in range(4):
        row = {"id": f"c{number}", "link_id": "t3_p", "parent_id": parent}
        rows.append(row | {"body": f"Answer number {number}", "created_utc": 2 + number, **common})
        parent = f"t1_c{number}"
    write(tmp_path / "dumps", {"RC_2023-01.jsonl": rows})
    ingest(tmp_path, ingest_text="chain", ingest_text_tokens=16)
    table = pq.ParquetFile(tmp_path / "chains" / "s" / "s" / "chains_chunk_0.parquet").read()
    texts = table["text"].to_pylist()
    assert texts[1] == "The question\n\nAnswer number 0"
    assert texts[4].endswith("Answer number 2\n\nAnswer number 3")
    assert "Answer number 0" not in texts[4]
