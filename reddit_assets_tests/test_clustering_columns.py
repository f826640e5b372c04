"""Columns of any type: decoration never fails a subreddit, and files with other columns unite."""

from __future__ import annotations

import datetime
import decimal
import math
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("hdbscan")
pytest.importorskip("evoc")

from reddit_assets.corpus.layout import Layout
from reddit_assets.tasks.columns import numbers, seconds, strings
from reddit_assets.tasks.report import clusters_report
from reddit_assets_tests.test_clustering_subreddit import embed, run, table

SECOND = 1_577_836_800
DAY = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.of(tmp_path)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([SECOND]),
        pa.array([SECOND], pa.uint32()),
        pa.array([float(SECOND)]),
        pa.array([SECOND * 1_000]),
        pa.array([SECOND * 1_000_000]),
        pa.array([SECOND * 1_000_000_000]),
        pa.array([decimal.Decimal(SECOND)]),
        pa.array([DAY.date()]),
        pa.array([DAY.date()], pa.date64()),
        *(pa.array([DAY], pa.timestamp(unit, "UTC")) for unit in ("s", "ms", "us", "ns")),
        pa.array([DAY.replace(tzinfo=None)], pa.timestamp("us")),
        pa.array([str(SECOND)]),
        pa.array(["2020-01-01T00:00:00Z"]),
        pa.array(["2020-01-01 01:00:00+01:00"], pa.string_view()),
        pa.array(["2020-01-01"], pa.large_string()).dictionary_encode(),
        pa.array([b"2020-01-01"]),
    ],
    ids=lambda column: str(column.type),
)
def test_dates_of_every_type_are_understood(column: pa.Array) -> None:
    found = seconds(pa.concat_arrays([column, pa.nulls(1, column.type)]))
    assert found is not None
    assert found[0] == SECOND
    assert math.isnan(found[1])


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**63 - 1, -(2**63)]),
        pa.array([math.inf, math.nan]),
        pa.array([2**63 - 1, -(2**63)], pa.timestamp("s")),
        pa.array(["yesterday", "9999999-01-01"]),
        pa.nulls(2),
    ],
    ids=lambda column: str(column.type),
)
def test_moments_that_no_date_can_hold_say_nothing(column: pa.Array) -> None:
    found = seconds(column)
    assert found is not None
    # A number of 19 digits is of nanoseconds; the others are of nothing.
    assert all(math.isnan(value) or abs(value) < 1e10 for value in found)


def test_what_is_no_number_and_no_date_is_said_so() -> None:
    for column in (
        pa.array([[1]]),
        pa.array([{"a": 1}]),
        pa.array([True]),
        pa.array([datetime.time(1)]),
        pa.array([datetime.timedelta(1)]),
        pa.array([uuid.UUID(int=1).bytes], pa.binary(16)),
    ):
        assert numbers(column) is None
        assert seconds(column) is None


def test_any_value_can_be_said() -> None:
    broken = pa.array([b"caf\xe9", None], pa.binary()).view(pa.string())
    assert strings(broken) == ["caf\ufffd", ""]
    assert strings(pa.array([b"caf\xe9"])) == ["caf\ufffd"]
    assert strings(pa.array([{"a": [1, None]}])) == ['{"a": [1, null]}']
    assert strings(pa.array([2**62], pa.timestamp("s"))) != [""]
    assert strings(pa.array([decimal.Decimal("1.50"), None])) == ["1.50", ""]


ROWS = 90
ODD: dict[str, pa.Array] = {
    "struct": pa.array([{"a": at} for at in range(ROWS)]),
    "list": pa.array([[at] for at in range(ROWS)]),
    "bytes": pa.array([bytes([200 + at % 50]) for at in range(ROWS)]),
    "uuid": pa.ExtensionArray.from_storage(
        pa.uuid(), pa.array([uuid.UUID(int=at).bytes for at in range(ROWS)], pa.binary(16))
    ),
    "decimal": pa.array([decimal.Decimal(at) / 8 for at in range(ROWS)], pa.decimal128(30, 9)),
    "ns": pa.array([SECOND * 10**9 + 123 + at for at in range(ROWS)], pa.timestamp("ns")),
    "int ns": pa.array([SECOND * 10**9 + 123 + at for at in range(ROWS)]),
    "out of range": pa.array([2**62] * ROWS, pa.timestamp("us", "UTC")),
    "all null": pa.nulls(ROWS),
    "null text": pa.nulls(ROWS, pa.string()),
    "not UTF-8": pa.array([b"a \xff"] * ROWS, pa.binary()).view(pa.string()),
    "time": pa.array([datetime.time(at % 24) for at in range(ROWS)]),
    "bool": pa.array([at % 2 == 0 for at in range(ROWS)]),
    "dictionary": pa.array([f"v{at % 3}" for at in range(ROWS)]).dictionary_encode(),
    "map": pa.array([[("k", at)] for at in range(ROWS)], pa.map_(pa.string(), pa.int64())),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_column_that_is_decoration_fails_nothing(layout: Layout, kind: str) -> None:
    # Given files whose id, title, score or date are of some odd type
    odd = ODD[kind]
    names = ["id", "title", "ups", "created_utc", "name", "permalink", "score", "created"]
    source = table(ROWS)
    plain = source.drop_columns([name for name in names if name in source.column_names])
    keys = []
    for name in (*names, "all of them"):
        columns = dict.fromkeys(names if name == "all of them" else [name], odd)
        given = plain
        for column, values in columns.items():
            given = given.append_column(column, values)
        key = f"co/{name.replace(' ', '_')}/a"
        embed(layout, key, given)
        keys.append(key)
    for key in keys:
        # If each is clustered twice, so that the second time looks at the first
        for _ in range(2):
            result = run(layout, [key], cluster_key=key.rpartition("/")[0])
        # Then there are clusters, rows and a report, and what says nothing is reported
        assert result.rows == ROWS
        assert result.metadata["clusters"] >= 3
        report = clusters_report(layout.cluster_dir(key.rpartition("/")[0]))
        assert all(row["representative_texts"][0] for row in report["clusters"])
        assert all(isinstance(said, str) for said in result.metadata["unreadable_columns"])
        if kind in ("struct", "list", "map") and "/ups/" in key:
            (said,) = result.metadata["unreadable_columns"]
            assert said.startswith("ups: ")
            assert said.endswith(" is not a number")


@pytest.mark.parametrize(
    ("first", "second", "united"),
    [
        (None, pa.array([True] * 40), pa.bool_()),
        (pa.array([False] * 40), pa.array([1.3e9] * 40), pa.float64()),
        (pa.array([1] * 40), pa.array(["x"] * 40), pa.large_string()),
        (
            pa.array([1] * 40, pa.timestamp("s")),
            pa.array([1] * 40, pa.timestamp("s", "UTC")),
            pa.timestamp("ms", "UTC"),  # Parquet has no seconds.
        ),
        (
            pa.array([DAY] * 40, pa.timestamp("ns", "UTC")),
            pa.array([2**50] * 40, pa.timestamp("s")),
            pa.large_string(),
        ),
        (pa.array([1] * 40, pa.int32()), pa.array([2**40] * 40), pa.int64()),
        (pa.array([2**60 + 1] * 40), pa.array([0.5] * 40), pa.large_string()),
        (pa.array([[1]] * 40), pa.array([{"a": 1}] * 40), pa.large_string()),
        (pa.array([["x"]] * 40), pa.array([7] * 40), pa.large_string()),
        (pa.array([b"\xff"] * 40), pa.array(["x"] * 40), pa.large_string()),
    ],
    ids=lambda value: "" if value is None else str(getattr(value, "type", value)),
)
@pytest.mark.parametrize("turned", [False, True])
def test_columns_that_differ_between_files_are_united(
    layout: Layout, first: pa.Array | None, second: pa.Array, united: pa.DataType, turned: bool
) -> None:
    # Given two files of a subreddit of which one has another type of a column, or lacks it
    columns: list[dict[str, Any]] = [{} if first is None else {"odd": first}, {"odd": second}]
    for key, values in zip("ab", columns[::-1] if turned else columns, strict=True):
        embed(layout, f"co/Cooking/{key}", table(40, first=ord(key), **values))
    # If they are clustered
    result = run(layout, ["co/Cooking/a", "co/Cooking/b"])
    # Then the column holds both, and what was done is reported
    made = pq.read_table(layout.cluster_path("co/Cooking"))
    assert made.schema.field("odd").type == united
    assert made["odd"].null_count == (40 if first is None else 0)
    assert len(made) == 80
    assert [said.partition(":")[0] for said in result.metadata["united_columns"]] == ["odd"]


def test_the_text_may_have_another_name_in_each_file(layout: Layout) -> None:
    # Given a file with `body`, one with `text`, and one with bytes that are not UTF-8
    embed(layout, "co/Cooking/a", table(60))
    embed(
        layout,
        "co/Cooking/b",
        table(60, first=60).rename_columns(["id", "text", "ups", "created_utc", "kind"]),
    )
    third = table(60, first=120)
    raw = pa.array([text.encode() + b" \xff" for text in third["body"].to_pylist()])
    embed(layout, "co/Cooking/c", third.set_column(1, "body", raw.view(pa.string())))
    # If they are clustered
    run(layout, [f"co/Cooking/{name}" for name in "abc"])
    # Then every representative post has its text
    report = clusters_report(layout.cluster_dir("co/Cooking"))
    for row in report["clusters"]:
        assert all(text.startswith("How about") for text in row["representative_texts"])


def test_a_column_named_like_ours_gets_another_name(layout: Layout) -> None:
    # Given columns that clustering appends itself
    embed(layout, "co/Cooking/a", table(60, x=["here"] * 60, cluster_id=[7] * 60))
    # If it is clustered
    result = run(layout, ["co/Cooking/a"])
    # Then theirs are kept under another name, and that is reported
    made = pq.read_table(layout.cluster_path("co/Cooking"))
    assert set(made["x_input"].to_pylist()) == {"here"}
    assert set(made["cluster_id_input"].to_pylist()) == {7}
    assert made.schema.field("x").type == pa.float32()
    assert len(result.metadata["united_columns"]) == 2
