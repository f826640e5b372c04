"""The fast reading of provenance: what pyarrow finds, once per change, in little memory."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import MODEL, write_chain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reddit_assets.corpus import facts
from reddit_assets.corpus.chainfile import ChainFile
from reddit_assets.corpus.facts import (
    AdoptedFacts,
    EmbeddingFacts,
    facts_of,
    provenance_text,
    read_facts,
)
from reddit_assets.corpus.fingerprints import Stamp
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.output import EmbeddingWriter
from reddit_assets.corpus.provenance import (
    PROVENANCE_KEY,
    ClusterProvenance,
    EmbeddingProvenance,
    SourceIdentity,
    read_output,
)
from reddit_assets.corpus.vectors import embedding_names
from reddit_assets.errors import BadFileError, RedditAssetsError

KEY = "as/A/c"
NAME = PROVENANCE_KEY
SOURCE = SourceIdentity(fingerprint="ab" * 16, size=7, mtime_ns=9, rows=2)


def provenance(key: str = KEY, **writer: str) -> EmbeddingProvenance:
    return EmbeddingProvenance(
        key=key, data_version="cd" * 16, source=SOURCE, model=MODEL, writer=writer
    )


def table(dimension: int = 4, metadata: dict[bytes, bytes] | None = None) -> pa.Table:
    columns = {"body": ["a", "b"]}
    vectors = {name: pa.array([0.0, 1.0], pa.float32()) for name in embedding_names(dimension)}
    return pa.table({**columns, **vectors}).replace_schema_metadata(metadata)


def answer(path: Path, read: object) -> object:
    """What a reading says; of an error, its class."""
    try:
        return read()  # type: ignore[operator]
    except RedditAssetsError as error:
        return type(error)


def same_as_pyarrow(path: Path, key: str = KEY) -> object:
    quick = answer(path, lambda: read_facts(str(path), key))
    assert quick == answer(path, lambda: facts_of(read_output(path), key))
    return quick


def read_by_pyarrow(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files for which the quick look has had to ask pyarrow."""
    asked: list[Path] = []

    def read(path: Path) -> object:
        asked.append(path)
        return read_output(path)

    monkeypatch.setattr(facts, "read_output", read)
    return asked


# --- the same as pyarrow says ------------------------------------------------------------
@pytest.mark.parametrize("rows", [5, 2000])
def test_our_own_files_need_no_pyarrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    # Given an embedding file of 384 columns as a worker writes it, small or compressed
    layout = Layout.of(tmp_path)
    write_chain(layout, KEY, ["text"] * rows)
    path = layout.embedding_path(KEY)
    with (
        ChainFile(layout.chain_path(KEY)) as chain,
        EmbeddingWriter(path, chain.schema, 384, rows=rows) as writer,
    ):
        for batch in chain.batches(1000):
            writer.write(batch, np.ones((batch.num_rows, 384), np.float32))
        writer.finish(provenance(backend="onnx"))
    # Then the quick look finds what pyarrow finds, without it
    asked = read_by_pyarrow(monkeypatch)
    found = read_facts(str(path), KEY)
    assert asked == []
    assert found == facts_of(read_output(path), KEY)
    assert isinstance(found, EmbeddingFacts)
    assert (found.source, found.model, found.made_for) == (SOURCE.stamp, MODEL.fingerprint, "")


def test_a_clustered_file_with_many_inputs_needs_no_pyarrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ClusterProvenance(
        key="as/A",
        data_version="ef" * 16,
        inputs={f"as/A/c_{number}": "cd" * 16 for number in range(5000)},
        inputs_hash="1",
        inputs_stamp="2",
        settings_fingerprint="3",
    )
    path = tmp_path / "clustered.parquet"
    pq.write_table(table(384, {NAME: made.model_dump_json().encode()}), path)
    asked = read_by_pyarrow(monkeypatch)
    found = read_facts(str(path), "as/A")
    assert asked == []
    assert found == facts_of(read_output(path), "as/A")


@pytest.mark.parametrize("dimension", [1, 4, 384, 1100])
@pytest.mark.parametrize("writer", ["pyarrow", "pandas", "polars"])
def test_files_of_others_are_adopted_with_their_dimension(
    tmp_path: Path, dimension: int, writer: str
) -> None:
    path = tmp_path / "c.parquet"
    if writer == "pyarrow":
        pq.write_table(table(dimension), path, row_group_size=1)
    elif writer == "pandas":
        table(dimension).to_pandas().to_parquet(path)
    else:
        frame = pl.from_arrow(table(dimension))
        assert isinstance(frame, pl.DataFrame)
        frame.write_parquet(path)
    found = same_as_pyarrow(path)
    assert isinstance(found, AdoptedFacts)
    assert found.dimension == dimension


def test_a_file_of_polars_with_our_provenance_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    frame = pl.from_arrow(table())
    assert isinstance(frame, pl.DataFrame)
    frame.write_parquet(path, metadata={NAME.decode(): provenance().model_dump_json()})
    assert isinstance(same_as_pyarrow(path), EmbeddingFacts)


_ENTRY = b"\x18\x0d" + NAME + b"\x18"
_VALID = provenance().model_dump_json().encode()
_BITS = st.sampled_from(
    [NAME, _ENTRY, _ENTRY + b"\x02{}\x00", b"{", b"}", b"\x00", b"PAR1", b"emb_007", b"\x07emb_009"]
)
_VALUES = st.lists(_BITS | st.binary(max_size=40), max_size=4).map(b"".join)
_KEYS = st.sampled_from([b"ARROW:schema2", b"a" + NAME, NAME + b"z", b"pandas", b"zz"])


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    others=st.dictionaries(_KEYS, _VALUES, max_size=3),
    ours=st.none() | st.just(_VALID) | _VALUES | st.just(provenance(x=NAME.decode()).key.encode()),
    key=st.sampled_from([KEY, "as/reddit_assets/c"]),
    first=st.booleans(),
    store_schema=st.booleans(),
)
def test_whatever_else_is_in_the_metadata_the_answer_is_pyarrows(
    tmp_path: Path,
    others: dict[bytes, bytes],
    ours: bytes | None,
    key: str,
    first: bool,
    store_schema: bool,
) -> None:
    if ours == _VALID:
        ours = provenance(key, note="reddit_assets").model_dump_json().encode()
    own = {} if ours is None else {NAME: ours}
    metadata = {**own, **others} if first else {**others, **own}
    path = tmp_path / "c.parquet"
    pq.write_table(table(2, metadata), path, store_schema=store_schema)
    same_as_pyarrow(path, key)


def test_an_entry_that_is_there_twice_is_left_to_pyarrow() -> None:
    one = _ENTRY + bytes([2]) + b"{}" + b"\x00"
    assert provenance_text(b"..." + one + b"...") == b"{}"
    assert provenance_text(one + one) is None
    assert provenance_text(_ENTRY + bytes([9]) + b"{}\x00") is None
    assert provenance_text(_ENTRY) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: b"PAR1",
        lambda whole: b"x" * 99,
        lambda whole: whole[:-1],
        lambda whole: whole[:-50],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-8] + b"\xff\xff\xff\x7fPAR1",
        lambda whole: whole[:-8] + b"\0\0\0\0PAR1",
        lambda whole: b"\0" * len(whole),
    ],
)
def test_what_was_never_finished_is_not_whole(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "c.parquet"
    pq.write_table(table(4, {NAME: _VALID}), path)
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(BadFileError, match="not a whole parquet file"):
        read_facts(str(path), KEY)
    with pytest.raises(BadFileError, match="not a whole parquet file"):
        read_output(path)


def test_provenance_of_a_later_version_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    pq.write_table(table(4, {NAME: b'{"kind":"painting","key":"as/A/c"}'}), path)
    with pytest.raises(BadFileError, match="cannot be understood"):
        read_facts(str(path), KEY)


def test_a_device_that_fails_is_the_hosts_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.parquet"
    pq.write_table(table(), path)

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(BadFileError, match="the device reports an error") as caught:
        read_facts(str(path), KEY)
    assert caught.value.host_fault
    assert not caught.value.permanent


def test_a_stamp_is_written_as_in_old_files(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    path.write_bytes(b"12345")
    os.utime(path, ns=(0, 1_790_000_000_123_456_789))
    stamp = Stamp.of(path.stat())
    assert (str(stamp), f"{stamp}") == ("5-1790000000123456789",) * 2
    assert stamp.changed_at == pytest.approx(1_790_000_000.123456789)
