"""Chain files and trees that would take all memory, wait without end, or tell lies."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import write_chain, write_embedding

from reddit_assets.corpus import chainfile
from reddit_assets.corpus.chainfile import ChainFile
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.output import is_temporary, publish, remove_temporary, temporary_path
from reddit_assets.corpus.provenance import cluster_inputs
from reddit_assets.corpus.rowsizes import bounded_rows, largest_pages
from reddit_assets.corpus.scan import Reason, Scanner, ScanOptions, SubredditStatus, Verdict
from reddit_assets.corpus.walk import Ignored
from reddit_assets.errors import BadFileError, BadJobError, UnreadableFileError
from reddit_assets.ledger.intake import key_of_job
from reddit_assets.ledger.job import Kind
from reddit_assets.platform.quality import check_embeddings
from reddit_assets.platform.reporting.events import readable
from reddit_assets.platform.reporting.metadata import fenced, plain
from reddit_assets.platform.services.leftovers import orphans
from reddit_assets.tasks.inputs import LONGEST_TEXT, open_inputs
from reddit_assets.tasks.posts import FilePosts

KEY = "as/A/c_0"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.of(tmp_path)


def put(layout: Layout, table: pa.Table, **options: object) -> Path:
    path = layout.chain_path(KEY)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def scan(layout: Layout) -> SubredditStatus:
    (status,) = Scanner(layout, ScanOptions(settle_seconds=0)).scan()
    return status


# --- files -----------------------------------------------------------------------------------
def test_twenty_thousand_columns_are_refused_at_once(layout: Layout) -> None:
    path = put(layout, pa.table({"body": ["a"], **{f"c{at}": [at] for at in range(20_000)}}))
    started = time.monotonic()
    with pytest.raises(BadFileError, match="has 20,001 columns; at most 2,000") as caught:
        ChainFile(path)
    assert time.monotonic() - started < 10
    assert caught.value.hint


def test_as_many_columns_as_are_taken_open_fast(layout: Layout) -> None:
    path = put(layout, pa.table({"body": ["a"], **{f"c{at}": [at] for at in range(1_999)}}))
    started = time.monotonic()
    with ChainFile(path) as chain:
        assert len(chain.schema) == 2_000
    assert time.monotonic() - started < 5


def bomb(layout: Layout, rows: int, length: int, **options: object) -> Path:
    """A file of a few hundred bytes: one long text stands in every row."""
    values = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["x" * length])
    return put(
        layout, pa.table({"body": values}), compression="zstd", store_schema=False, **options
    )


def test_a_long_value_in_every_row_is_read_in_small_batches(layout: Layout) -> None:
    path = bomb(layout, 1_000, 2_000_000)
    assert path.stat().st_size < 2_000
    with ChainFile(path) as chain:
        batches = chain.batches(2_048)
        assert next(batches).nbytes <= chainfile.DECODED_BYTES


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}])
def test_values_that_are_too_long_are_refused_before_they_are_read(
    layout: Layout, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chainfile, "LARGEST_VALUE", 1_000_000)
    path = bomb(layout, 3, 2_000_000, **options)
    with pytest.raises(BadFileError, match=r"values of up to [0-9,]+ bytes") as caught:
        ChainFile(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_the_sizes_of_first_pages_are_read(layout: Layout) -> None:
    path = put(layout, pa.table({"body": ["x" * 1_000, "y"]}), compression="zstd")
    with path.open("rb") as file:
        found = largest_pages(file.fileno(), pq.read_metadata(path))
        assert bounded_rows(file.fileno(), pq.read_metadata(path), 2_048) == 2_048
    assert 1_009 <= found.dictionary <= 1_100
    path = put(layout, pa.table({"body": ["x" * 1_000, "y"]}), use_dictionary=False)
    with path.open("rb") as file:
        found = largest_pages(file.fileno(), pq.read_metadata(path))
    assert (found.dictionary, found.page // 100) == (0, 10)


def test_gigabytes_in_a_few_bytes_do_not_take_the_memory(layout: Layout, tmp_path: Path) -> None:
    # Given 6.5 GB of text in a file of less than a kilobyte, and a process with 3 GB
    path = bomb(layout, 6_500, 1_000_000)
    assert path.stat().st_size < 1_000
    script = textwrap.dedent(
        f"""
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        from pathlib import Path
        from reddit_assets.corpus.chainfile import ChainFile
        from reddit_assets.corpus.texts import texts_of
        with ChainFile(Path({str(path)!r})) as chain:
            print(sum(len(texts_of(b, chain.text_column)) for b in chain.batches(2_048)))
        """
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout.strip() == "6500", run.stderr[-500:]


def test_summaries_look_at_the_beginning_of_very_long_texts(layout: Layout) -> None:
    # Given an embedding file of few bytes whose texts are long, one of them not UTF-8
    long = b"\xff" + b"x" * 300_000
    write_chain(layout, KEY)
    put(layout, pa.table({"body": pa.array([b"short", long], pa.binary()), "id": ["a", "b"]}))
    write_embedding(layout, KEY)
    inputs = open_inputs(cluster_inputs(layout, [KEY]), [KEY])
    # Then what is taken of them is short, and what is read is whole
    taken = inputs.take(["body", "id"], np.array([0, 1])).column("body").to_pylist()
    assert taken == [b"short", long[:LONGEST_TEXT]]
    (batch,) = inputs.read(["body"])
    assert batch.column(0).to_pylist() == [b"short", long]
    # and a map, which has many, takes no more than it shows.
    cut = inputs.take(["body", "id"], np.array([0, 1]), 1)
    assert [len(value) for value in cut.column("body").to_pylist()] == [4, 4]
    assert cut.column("id").to_pylist() == ["a", "b"]
    assert [title for title, _ in FilePosts(inputs).texts(np.array([0, 1]), 1)] == ["", ""]


def with_rows(path: Path, at: slice, rows: int) -> None:
    """Change the row counts in a footer: of the file, of its row group."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[-8:-4], "little")
    footer = bytearray(raw[-8 - length : -8])
    ten = bytes([0x16, 20])  # Thrift: an i64, ten as a zigzag varint
    places = [i for i in range(length - 1) if footer[i : i + 2] == ten]
    for place in [places[0], places[-1]][at]:
        footer[place + 1] = 2 * rows
    path.write_bytes(raw[: -8 - length] + bytes(footer) + raw[-8:])


@pytest.mark.parametrize(
    ("which", "why"),
    [
        (slice(0, 1), "says that it has 40 rows, but its parts have 10"),
        (slice(1, 2), "says that it has 10 rows, but its parts have 40"),
        (slice(0, 2), "says that it has 40 rows, but has 10"),
    ],
)
def test_a_false_number_of_rows_is_never_published(layout: Layout, which: slice, why: str) -> None:
    path = put(layout, pa.table({"body": ["a"] * 10}), store_schema=False)
    with_rows(path, which, 40)
    with pytest.raises(BadFileError, match=why), ChainFile(path) as chain:
        list(chain.batches(100))


def test_a_type_that_cannot_be_read_is_a_sentence(layout: Layout) -> None:
    polars = pytest.importorskip("polars")
    path = layout.chain_path(KEY)
    path.parent.mkdir(parents=True)
    wide = polars.Series([1, 2**100], dtype=polars.Int128)
    polars.DataFrame({"body": ["a", "b"], "big": wide}).write_parquet(path)
    with pytest.raises(BadFileError, match="a type that cannot be read") as caught:
        ChainFile(path)
    assert "64-bit numbers" in caught.value.hint


# --- entries ---------------------------------------------------------------------------------
def test_a_pipe_is_never_waited_for(layout: Layout) -> None:
    # Given pipes in the places of a chain file and of an embedding file
    write_chain(layout, KEY)
    write_chain(layout, "as/A/c_1")
    write_embedding(layout, "as/A/c_1")
    layout.chain_path(KEY).unlink()
    os.mkfifo(layout.chain_path(KEY))
    layout.embedding_path("as/A/c_1").unlink()
    os.mkfifo(layout.embedding_path("as/A/c_1"))
    # Then whoever opens them says what they are
    with pytest.raises(UnreadableFileError, match="a pipe, socket or device"):
        ChainFile(layout.chain_path(KEY))
    assert "a pipe" in check_embeddings(layout, ["as/A/c_1"]).problems["as/A/c_1"]
    status = scan(layout)
    assert [(file.verdict, file.reason) for file in status.files] == [
        (Verdict.WAITING, Reason.UNREADABLE)
    ]
    assert len(status.problems) == 2


def test_what_takes_the_place_of_a_chain_file_makes_no_orphan(layout: Layout) -> None:
    # Given embeddings whose chain files became a folder, a link to itself, to nothing, and out
    keys = [f"as/A/c_{number}" for number in range(4)]
    for key in keys:
        write_chain(layout, key)
        write_embedding(layout, key)
        layout.chain_path(key).unlink()
    folder, loop, nothing, out = map(layout.chain_path, keys)
    folder.mkdir()
    loop.symlink_to(loop.name)
    nothing.symlink_to("nowhere")
    out.symlink_to("/etc/hostname")
    # Then each is named or counted, and none of the outputs is an orphan
    status = scan(layout)
    assert (status.orphans, status.files, status.gone) == ([], [], False)
    assert orphans(layout, [status]) == []
    said = "\n".join(map(str, status.problems))
    for path, why in ((folder, "as Spark"), (loop, "in a circle"), (nothing, "to nothing")):
        assert f"{path} " in said
        assert why in said
    assert status.passed.counts == {Ignored.OUTSIDE: 1}


def test_what_takes_the_place_of_an_output_waits(layout: Layout) -> None:
    write_chain(layout, KEY)
    layout.embedding_path(KEY).mkdir(parents=True)
    (file,) = scan(layout).files
    assert (file.verdict, file.reason) == (Verdict.WAITING, Reason.UNREADABLE)
    assert "is a folder" in file.detail


def test_entries_beside_a_subreddit_stop_nothing(layout: Layout) -> None:
    write_chain(layout, KEY)
    (layout.chains / "selfdir").symlink_to("selfdir")
    (layout.chains / "as" / "selfdir").symlink_to("selfdir")
    one = Scanner(layout, ScanOptions(settle_seconds=0))
    assert [file.key for status in one.scan() for file in status.files] == [KEY]
    assert sum("in a circle" in str(problem) for problem in one.problems) == 2


def test_a_subreddits_folder_that_leads_out_makes_no_orphans(
    layout: Layout, tmp_path: Path
) -> None:
    write_chain(layout, KEY)
    write_embedding(layout, KEY)
    elsewhere = tmp_path / "elsewhere"
    (layout.chains / "as/A").rename(elsewhere)
    (layout.chains / "as/A").symlink_to(elsewhere)
    one = Scanner(layout, ScanOptions(settle_seconds=0))
    (status,) = one.scan()
    assert (status.files, status.orphans, status.gone) == ([], [], False)
    assert one.passed.counts == {Ignored.OUTSIDE: 1}


@pytest.mark.parametrize("tree", ["chains", "embeddings", "clusters"])
def test_a_cluster_job_never_leads_out_of_a_tree(layout: Layout, tmp_path: Path, tree: str) -> None:
    write_chain(layout, KEY)
    (tmp_path / "elsewhere").mkdir()
    folder = getattr(layout, tree) / "as" / "B"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(tmp_path / "elsewhere")
    if tree == "chains":
        with pytest.raises(BadJobError, match="leads outside"):
            key_of_job(layout, Kind.EMBED, {"key": "as/B/c_0"})
        return
    with pytest.raises(BadJobError, match="leads outside"):
        key_of_job(layout, Kind.CLUSTER, {"key": "as/B"})


def test_what_lies_where_nobody_looks_is_counted_with_a_reason(layout: Layout) -> None:
    write_chain(layout, KEY)
    lost = {
        Ignored.DEEPER: ["as/A/year=2020/p.parquet", "as/A/year=2020/month=1/p.parquet"],
        Ignored.SUFFIX: ["as/A/c.PARQUET", "as/B/c.pq", "as/C/c.parquet.gz", "notes.txt"],
        Ignored.UNFINISHED: ["as/A/_temporary/0/task_1/part-00000.parquet"],
        Ignored.HIDDEN: [".Trash/c.parquet", "as/A/.c_1.parquet"],
    }
    litter = ["as/A/._c_0.parquet", "as/.DS_Store", "as/A/_SUCCESS", "as/A/.c_0.parquet.crc"]
    for name in [*litter, *(name for names in lost.values() for name in names)]:
        path = layout.chains / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    one = Scanner(layout, ScanOptions(settle_seconds=0))
    statuses = list(one.scan())
    passed = one.passed
    for status in statuses:
        passed.update(status.passed)
    assert passed.counts == {why: len(names) for why, names in lost.items()}
    for why, names in lost.items():
        assert passed.examples[why] in {str(layout.chains / name) for name in [*names, ".Trash"]}
    assert passed.litter == len(litter)


def test_a_name_of_250_bytes_has_a_temporary_file(layout: Layout) -> None:
    key = f"as/A/{'é' * 121}"
    write_chain(layout, key)
    output = layout.embedding_path(key)
    token = "0123456789abcdef"
    temporary = temporary_path(output, token)
    output.parent.mkdir(parents=True)
    temporary.write_bytes(b"")
    assert is_temporary(temporary.name)
    assert scan(layout).temporary == [temporary]
    assert temporary != temporary_path(layout.embedding_path(f"as/A/{'e' * 242}"), token)
    publish(temporary, output)
    assert output.exists()
    temporary.write_bytes(b"")
    assert remove_temporary(output, [token]) == 1


# --- what Dagster shows ----------------------------------------------------------------------
def test_names_in_files_decide_no_markup() -> None:
    text = plain("column '![x](http://a/b.png)' of <img src=x>\n|a|`b`")
    assert text == r"column '\!\[x\](http://a/b.png)' of \<img src=x\> \|a\|\`b\`"
    block = fenced("a\n````\n![x](http://a/b.png)")
    assert block.startswith("`````\n")
    assert block.endswith("\n`````")
    assert "picture" not in readable({"map_png": "x) ![y](http://a/b.png"})
