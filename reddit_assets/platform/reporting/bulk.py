"""Many materializations of one asset at once into Dagster's event log: on Postgres, one COPY.

``store_event_batch`` packs each event by its general serializer and compiles a statement per
batch: four fifths of the time are Python's. Here Dagster serializes the last event of a batch, and
the others are written into that form; ``test_platform_contracts.py`` says when the rows differ.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from dagster import AssetMaterialization, DagsterInstance, EventLogEntry, MetadataValue
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._serdes import pack_value, serialize_value
from sqlalchemy import text
from sqlalchemy.engine import Connection

__all__ = ["on_postgres", "settle", "store"]

# Materializations per transaction: at 2.5 kB each, a few megabytes of memory.
_BATCH = 2_000

# Number of the lock that every batch shares while it is written.
_WRITERS = 7_204_311_507

_EVENTS = (
    "event_logs (id, run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition)"
)
_TAGS = "asset_event_tags (event_id, asset_key, key, value, event_timestamp)"


def store(
    instance: DagsterInstance,
    events: Sequence[AssetMaterialization],
    entry_of: Callable[[AssetMaterialization], EventLogEntry],
) -> None:
    """Store materializations of one asset, in order.

    Args:
        entry_of: the log's entry of an event, the same for all but for the event itself.
    """
    storage = instance.event_log_storage
    for start in range(0, len(events), _BATCH):
        batch = events[start : start + _BATCH]
        if isinstance(storage, SqlEventLogStorage) and on_postgres(storage):
            _copy(storage, batch, entry_of(batch[-1]))
        else:
            storage.store_event_batch([entry_of(event) for event in batch])


def on_postgres(storage: SqlEventLogStorage) -> bool:
    """Whether a storage is Dagster's Postgres."""
    return type(storage).__module__.startswith("dagster_postgres.")


def settle(storage: object) -> None:
    """Wait until batches that are being written are visible.

    A batch has its places in the log before it can be seen. Who reads the last place and goes on
    behind it the next time would miss the batch: he settles in between.
    """
    if isinstance(storage, SqlEventLogStorage) and on_postgres(storage):
        with storage.index_transaction() as connection:
            connection.execute(
                text("SELECT pg_advisory_xact_lock(:writers)"), {"writers": _WRITERS}
            )


def _copy(
    storage: SqlEventLogStorage, events: Sequence[AssetMaterialization], last: EventLogEntry
) -> None:
    asset = last.get_dagster_event().asset_key
    assert asset is not None
    key = asset.to_string()
    when = datetime.fromtimestamp(last.timestamp, UTC).replace(tzinfo=None).isoformat(" ")
    fixed = (last.get_dagster_event().event_type_value, when, last.step_key, key)
    rows = [
        (last.run_id, event_text, *fixed, event.partition)
        for event, event_text in zip(events, _texts(events, last), strict=True)
    ]
    with storage.index_transaction() as connection:
        connection.execute(
            text("SELECT pg_advisory_xact_lock_shared(:writers)"), {"writers": _WRITERS}
        )
        # One writer per asset: its events become visible in the order of their ids, which the
        # partition-status cache relies on.
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:key))"), {"key": key})
        ids = _ids(connection, len(rows))
        _copy_rows(connection, _EVENTS, ((i, *row) for i, row in zip(ids, rows, strict=True)))
        tags = (
            (number, key, DATA_VERSION_TAG, event.tags[DATA_VERSION_TAG], when)
            for number, event in zip(ids, events, strict=True)
            if event.tags and DATA_VERSION_TAG in event.tags
        )
        _copy_rows(connection, _TAGS, tags)
        storage._store_asset_event(connection, last, ids[-1])


def _ids(connection: Connection, number: int) -> list[int]:
    query = text(
        "SELECT nextval(pg_get_serial_sequence('event_logs', 'id')) FROM generate_series(1, :n)"
    )
    return sorted(connection.execute(query, {"n": number}).scalars())


def _copy_rows(connection: Connection, table: str, rows: Iterable[Sequence[Any]]) -> None:
    lines = ("\t".join(map(_field, row)) + "\n" for row in rows)
    cursor: Any = connection.connection.cursor()  # psycopg2's
    with cursor:
        cursor.copy_expert(f"COPY {table} FROM STDIN", io.StringIO("".join(lines)))


def _field(value: Any) -> str:
    """A value in COPY's text format."""
    if value is None:
        return r"\N"
    found = str(value).replace("\\", r"\\")
    return found.replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r")


def _texts(events: Sequence[AssetMaterialization], last: EventLogEntry) -> Iterator[str]:
    """What ``serialize_value`` makes of each event's entry."""
    form = json.loads(serialize_value(last))
    inner = form["dagster_event"]["event_specific_data"]["materialization"]
    for event in events:
        inner["partition"] = event.partition
        inner["description"] = event.description
        inner["tags"] = None if event.tags is None else dict(sorted(event.tags.items()))
        inner["metadata_entries"] = [_entry(*pair) for pair in event.metadata.items()]
        yield json.dumps(form)


def _entry(label: str, value: MetadataValue) -> dict[str, Any]:
    name, attribute = _form(type(value))
    plain: Any = value
    found = (
        {"__class__": name, attribute: value.value}
        if attribute
        else json.loads(serialize_value(plain))
    )
    return {
        "__class__": "EventMetadataEntry",
        "description": None,
        "entry_data": found,
        "label": label,
    }


_SIMPLE = {
    type(value): value
    for value in (
        MetadataValue.int(7),
        MetadataValue.float(7.5),
        MetadataValue.text("7"),
        MetadataValue.path("7"),
        MetadataValue.url("7"),
        MetadataValue.md("7"),
        MetadataValue.bool(True),
    )
}


@lru_cache
def _form(kind: type) -> tuple[str, str]:
    """The name and the one attribute of a simple value as Dagster packs it; else no attribute."""
    if kind not in _SIMPLE:
        return "", ""
    value: Any = _SIMPLE[kind]
    packed = pack_value(value)
    attributes = [name for name in packed if name != "__class__"]
    return (packed["__class__"], attributes[0]) if len(attributes) == 1 else ("", "")
