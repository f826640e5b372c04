"""Chain files good and bad, and embedding files written whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import MODEL, write_chain

from reddit_assets.corpus import wanted
from reddit_assets.corpus.chainfile import ChainFile
from reddit_assets.corpus.fingerprints import embedding_version
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.output import EmbeddingWriter, publish, temporary_path, writing
from reddit_assets.corpus.provenance import EmbeddingProvenance, read_output
from reddit_assets.corpus.texts import texts_of
from reddit_assets.corpus.wanted import claim_wanted_model, set_wanted_model
from reddit_assets.errors import (
    BadFileError,
    ModelMismatchError,
    SourceChangedError,
    UnreadableFileError,
    WriteError,
)

KEY = "as/A/c"
HOST_FAULTS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ESTALE,
    errno.ENOTCONN,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENOLINK,
    errno.EREMOTEIO,
    errno.ENODEV,
    errno.ENXIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.of(tmp_path)


def put(layout: Layout, table: pa.Table, **options: object) -> Path:
    path = layout.chain_path(KEY)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def embed(layout: Layout, rows: int = 1000) -> Path:
    """Copy a chain file with made-up vectors, as a worker would."""
    output = layout.embedding_path(KEY)
    temporary = temporary_path(output, "token")
    with (
        ChainFile(layout.chain_path(KEY)) as chain,
        EmbeddingWriter(temporary, chain.schema, MODEL.dimension) as writer,
    ):
        for batch in chain.batches(rows):
            texts = texts_of(batch, chain.text_column)
            assert texts.null_count == 0
            assert len(texts) == batch.num_rows
            writer.write(batch, np.ones((batch.num_rows, MODEL.dimension), np.float32))
        chain.verify_unchanged()
        writer.finish(
            EmbeddingProvenance(
                key=KEY,
                data_version=embedding_version(chain.source.fingerprint, MODEL.fingerprint),
                source=chain.source,
                model=MODEL,
            )
        )
    publish(temporary, output)
    return output


def texts(*values: str | None, kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"body": pa.array(values, kind or pa.string()), "n": range(len(values))})


# --- files that are refused ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not a whole parquet file"),
        (b"rubbish, not parquet at all", "not a whole parquet file"),
        (b"PAR1" + b"\0" * 50 + b"PAR1", "not a whole parquet file"),
    ],
)
def test_what_is_not_parquet_is_refused_by_name(layout: Layout, content: bytes, why: str) -> None:
    path = write_chain(layout, KEY)
    path.write_bytes(content)
    with pytest.raises(BadFileError, match=why) as caught:
        ChainFile(path)
    assert str(path) in str(caught.value)


def test_a_truncated_file_is_refused(layout: Layout) -> None:
    path = put(layout, texts(*(f"text {number}" for number in range(1000))))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadFileError, match="not a whole parquet file"):
        ChainFile(path)


def test_damage_inside_a_file_leaves_no_partial_output(layout: Layout) -> None:
    path = put(layout, texts(*(f"text {number}" for number in range(5000))), compression="zstd")
    content = bytearray(path.read_bytes())
    for position in range(4, len(content) // 2):
        content[position] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(BadFileError) as caught:
        embed(layout)
    assert str(path) in str(caught.value)
    assert list(layout.embeddings.glob("**/*.parquet*")) == []


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (pa.table({"headline": ["a"]}), "no text column"),
        (pa.table({"body": [1, 2]}), "of type int64"),
        (pa.table({"body": [{"x": 1}]}), "of type struct"),
        (pa.table({"body": [["x"]]}), "of type list"),
        (pa.table({"body": ["a"], "emb_000": [0.5]}), "looks like an embedding file"),
    ],
)
def test_files_with_the_wrong_columns_are_refused_by_name(
    layout: Layout, table: pa.Table, why: str
) -> None:
    path = put(layout, table)
    with pytest.raises(BadFileError, match=why) as caught:
        ChainFile(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_a_sentence(layout: Layout) -> None:
    with pytest.raises(BadFileError, match="There is no chain file"):
        ChainFile(layout.chain_path(KEY))


def test_a_folder_in_a_files_place_is_a_sentence(layout: Layout) -> None:
    layout.chain_path(KEY).mkdir(parents=True)
    with pytest.raises(BadFileError, match=r"c\.parquet"):
        ChainFile(layout.chain_path(KEY))


# --- files that are fine ---------------------------------------------------------------------
@pytest.mark.parametrize(
    "table",
    [
        texts(),
        texts(None, "", "a"),
        texts("\0", "\x07\x1b[0m", "a\r\nb", "\u202eright to left", "👩‍👩‍👧 é"),
        texts("x" * 10_000_000),
        texts("a", "b", None, "a", kind=pa.dictionary(pa.int32(), pa.string())),
        texts("a", None, kind=pa.large_string()),
        texts("a", None, kind=pa.string_view()),
        pa.table({"body": pa.nulls(3)}),
        pa.table({"text": ["a"], "message": [7]}),
        pa.table({"body": ["a"], **{f"column {number}": [number] for number in range(400)}}),
        pa.table({"body": ["a"], "nested": [{"a": [1, None], "b": {"c": "d"}}], "view": ["x"]}),
    ],
    ids=lambda table: f"{table.num_columns}x{table.num_rows}-{table.column(0).type}",
)
def test_unusual_files_keep_every_column_and_row(layout: Layout, table: pa.Table) -> None:
    put(layout, table)
    source = pq.read_table(layout.chain_path(KEY))
    output = pq.read_table(embed(layout))
    assert output.column_names == [*table.column_names, "emb_000", "emb_001", "emb_002", "emb_003"]
    assert output.schema.field("emb_000").type == pa.float32()
    assert output.num_rows == table.num_rows
    for name in table.column_names:
        assert output.column(name).to_pylist() == source.column(name).to_pylist()
    read = read_output(layout.embedding_path(KEY))
    assert (read.rows, read.dimension) == (table.num_rows, 4)


def test_lone_surrogates_are_no_error(layout: Layout) -> None:
    body = pa.array([b"\xed\xa0\x80 lone", b"fine"], pa.binary()).view(pa.string())
    put(layout, pa.table({"body": body}))
    assert pq.read_metadata(embed(layout)).num_rows == 2


def test_the_first_text_column_of_the_list_counts(layout: Layout) -> None:
    put(layout, pa.table({"message": ["m"], "selftext": ["s"], "title": ["t"]}))
    with ChainFile(layout.chain_path(KEY)) as chain:
        assert chain.text_column == "selftext,message,title"


def test_hundreds_of_row_groups_are_streamed_in_order(layout: Layout) -> None:
    put(layout, texts(*(str(number) for number in range(900))), row_group_size=3)
    with ChainFile(layout.chain_path(KEY)) as chain:
        sizes = [batch.num_rows for batch in chain.batches(100)]
    assert max(sizes) <= 100
    assert pq.read_table(embed(layout, 100)).column("n").to_pylist() == list(range(900))


@pytest.mark.parametrize("nested", [False, True])
def test_dictionaries_that_differ_between_row_groups_are_read(layout: Layout, nested: bool) -> None:
    column = pa.array(["a", "b", "c", None]).dictionary_encode()
    if nested:
        column = pa.StructArray.from_arrays([column], ["flair"])
    put(layout, pa.table({"body": ["v", "w", "x", "y"], "odd": column}), row_group_size=1)
    made = pq.read_table(embed(layout))
    assert made.column("odd").to_pylist() == column.to_pylist()


# --- sources that change, targets that refuse ------------------------------------------------
def test_a_source_that_changes_while_it_is_read_is_noticed(layout: Layout) -> None:
    path = write_chain(layout, KEY)
    stat = path.stat()
    with ChainFile(path) as chain:
        content = bytearray(path.read_bytes())
        content[10] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        with pytest.raises(SourceChangedError, match="changed while it was read"):
            chain.verify_unchanged()


def test_a_source_that_vanishes_while_it_is_read_is_noticed(layout: Layout) -> None:
    path = write_chain(layout, KEY)
    with ChainFile(path) as chain:
        path.unlink()
        with pytest.raises(SourceChangedError):
            chain.verify_unchanged()


def test_an_error_while_writing_leaves_nothing(layout: Layout) -> None:
    write_chain(layout, KEY)
    temporary = temporary_path(layout.embedding_path(KEY), "token")
    with ChainFile(layout.chain_path(KEY)) as chain, pytest.raises(RuntimeError):  # noqa: PT012, SIM117
        with EmbeddingWriter(temporary, chain.schema, 4) as writer:
            for batch in chain.batches(10):
                writer.write(batch, np.ones((batch.num_rows, 4), np.float32))
            raise RuntimeError
    assert list(layout.embeddings.glob("**/*")) == [temporary.parent, temporary.parent.parent] or (
        not temporary.exists()
    )


def test_a_full_disk_is_a_sentence_and_leaves_nothing(layout: Layout, tmp_path: Path) -> None:
    small = tmp_path / "embeddings"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small tmpfs cannot be mounted here (needs root)")
    try:
        rng = np.random.default_rng(0)
        noise = [rng.bytes(600).hex() for _ in range(2000)]
        put(layout, texts(*noise))
        with pytest.raises(WriteError, match="the disk is full") as caught:
            embed(layout, 200)
        assert str(small) in str(caught.value)
        assert [path for path in small.glob("**/*") if path.is_file()] == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission is denied"),
        (errno.EDQUOT, "quota"),
    ],
)
def test_other_refusals_are_sentences(number: int, why: str) -> None:
    # Root may write anywhere, so these refusals cannot be made here.
    with pytest.raises(WriteError, match=why), writing(Path("/data/x.parquet")):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "host_fault"),
    [
        *((number, True) for number in sorted(HOST_FAULTS)),
        (errno.ENOENT, True),
        (errno.EACCES, False),
        (errno.EPERM, False),
        (errno.ENOTDIR, False),
        (errno.EISDIR, False),
        (errno.EFBIG, False),
        (errno.ENAMETOOLONG, False),
        (errno.EINVAL, False),
        (errno.ELOOP, False),
        (None, False),
    ],
)
def test_every_refusal_says_whether_the_host_is_at_fault(
    number: int | None, host_fault: bool, tmp_path: Path
) -> None:
    path = tmp_path / "x.parquet"
    error = OSError("no number") if number is None else OSError(number, os.strerror(number))
    with pytest.raises(WriteError, match="cannot be written") as caught, writing(path):
        raise error
    assert caught.value.host_fault is host_fault
    assert str(path) in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT])
def test_a_chain_file_on_storage_that_fails_is_the_hosts_fault(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = write_chain(layout, KEY)

    def fail(*_: object) -> bytes:
        raise OSError(number, os.strerror(number))

    with ChainFile(path) as chain:
        monkeypatch.setattr(os, "pread", fail)
        for read in (lambda: ChainFile(path), chain.verify_unchanged):
            with pytest.raises(UnreadableFileError, match="cannot be read") as caught:
                read()
            assert caught.value.host_fault
            assert not caught.value.permanent


def test_a_chain_file_that_is_gone_or_forbidden_is_the_files_fault(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_chain(layout, KEY)

    def forbid(*_: object, **__: object) -> object:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", forbid)
    with pytest.raises(UnreadableFileError, match="permission is denied") as caught:
        ChainFile(path)
    assert not caught.value.host_fault
    assert caught.value.permanent


def test_a_read_only_target_is_a_sentence(layout: Layout) -> None:
    write_chain(layout, KEY)
    layout.embeddings.write_text("a file where the folder should be")
    with pytest.raises(WriteError, match="cannot be written"):
        embed(layout)


# --- the wanted model ------------------------------------------------------------------------
@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_model_is_stated_once_where_there_are_no_hard_links(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    assert claim_wanted_model(layout, MODEL) == MODEL
    other = MODEL.model_copy(update={"fingerprint": "other"})
    with pytest.raises(ModelMismatchError, match="wants test-model"):
        claim_wanted_model(layout, other)
    assert [path.name for path in layout.embeddings.iterdir()] == [".model.json"]


def test_of_two_first_workers_one_states_the_model(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker that has seen no statement, and another one that states its model then
    other = MODEL.model_copy(update={"fingerprint": "other"})
    real = wanted.read_wanted_model

    def nothing_yet(layout: Layout) -> None:
        monkeypatch.setattr(wanted, "read_wanted_model", real)
        set_wanted_model(layout, MODEL)

    for link in (os.link, _no_links):
        monkeypatch.setattr(os, "link", link)
        monkeypatch.setattr(wanted, "read_wanted_model", nothing_yet)
        # Then the first one refuses, and the statement stands
        with pytest.raises(ModelMismatchError):
            claim_wanted_model(layout, other)
        assert real(layout) == MODEL


def _no_links(*_: object) -> None:
    raise OSError(errno.EOPNOTSUPP, "no links")


def test_a_model_statement_that_cannot_be_read_is_a_sentence(layout: Layout) -> None:
    layout.embeddings.mkdir()
    (layout.embeddings / ".model.json").mkdir()
    with pytest.raises(BadFileError, match="a folder has its name"):
        wanted.read_wanted_model(layout)
