"""What Dagster's storage on Postgres keeps without end and nobody needs: deleted by age.

Dagster itself deletes old ticks alone (``retention`` in ``dagster.yaml``). Of each partition, the
latest materialization stays, whatever its age.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dagster import DagsterInstance
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from sqlalchemy import bindparam, text

from reddit_assets.errors import ReportingError
from reddit_assets.platform.reporting.bulk import on_postgres

__all__ = ["Pruned", "prune"]

# Places in the log looked at per transaction.
_WINDOW = 50_000

# The assets of the whole tree, and of every shard.
_OURS = ("chains", "embeddings", "clusters")

_SUPERSEDED = """
asset_key IN :assets AND partition IS NOT NULL AND dagster_event_type IN
    ('ASSET_MATERIALIZATION', 'ASSET_OBSERVATION', 'ASSET_MATERIALIZATION_PLANNED')
AND EXISTS (SELECT 1 FROM event_logs n WHERE n.asset_key = e.asset_key
    AND n.dagster_event_type = 'ASSET_MATERIALIZATION'
    AND n.partition = e.partition AND n.id > e.id)
"""

# A run's status and its times stay, so that its page still says how it ended.
_LOG_LINES = """
asset_key IS NULL AND run_id <> '' AND coalesce(dagster_event_type, '') NOT LIKE 'PIPELINE%'
AND coalesce(dagster_event_type, '') NOT LIKE 'ASSET%'
AND run_id NOT IN (SELECT run_id FROM runs WHERE status IN :unfinished)
"""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted.

    Attributes:
        events: of partitions that have been materialized since.
        log_lines: of runs that have ended.
        folders: of runs' output.
        before, after: bytes of the database.
    """

    events: int
    log_lines: int
    folders: int
    before: int
    after: int


def prune(instance: DagsterInstance, days: float, *, shrink: bool = False) -> Pruned:
    """Delete what is older than ``days``. Assets of others keep all their events.

    Args:
        shrink: give the space back to the file system; without it Postgres uses it again. Dagster
            waits meanwhile.

    Raises:
        ReportingError: the storage is not on Postgres.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage) or not on_postgres(storage):
        raise ReportingError(
            "Dagster's storage is not on Postgres.",
            hint="On SQLite, delete old runs on the page; for many files, use Postgres.",
        )
    horizon = time.time() - days * 86_400
    before = _size(storage)
    names = [key.to_string() for key in instance.all_asset_keys() if key.path[0] in _OURS]
    events = _delete(storage, _SUPERSEDED, horizon, assets=names)
    unfinished = [status.value for status in NOT_FINISHED_STATUSES]
    log_lines = _delete(storage, _LOG_LINES, horizon, unfinished=unfinished)
    _vacuum(storage, "FULL" if shrink else "ANALYZE")
    folders = _remove_output(Path(instance.storage_directory()), horizon)
    return Pruned(events, log_lines, folders, before, _size(storage))


def _delete(storage: SqlEventLogStorage, condition: str, horizon: float, **lists: list[str]) -> int:
    when = datetime.fromtimestamp(horizon, UTC).replace(tzinfo=None)
    newest = text("SELECT coalesce(max(id), 0) FROM event_logs WHERE timestamp < :when")
    query = text(
        f"DELETE FROM event_logs e WHERE id > :low AND id <= :high AND timestamp < :when"
        f" AND {condition} RETURNING id"
    ).bindparams(*(bindparam(name, expanding=True) for name in lists))
    tags = text("DELETE FROM asset_event_tags WHERE event_id IN :ids")
    tags = tags.bindparams(bindparam("ids", expanding=True))
    deleted = 0
    with storage.index_connection() as connection:
        last = connection.execute(newest, {"when": when}).scalar_one()
    for low in range(0, last, _WINDOW):
        bounds = {"low": low, "high": min(low + _WINDOW, last), "when": when}
        with storage.index_transaction() as connection:
            ids = list(connection.execute(query, {**bounds, **lists}).scalars())
            if ids:
                connection.execute(tags, {"ids": ids})
        deleted += len(ids)
    return deleted


def _vacuum(storage: SqlEventLogStorage, how: str) -> None:
    with storage.index_connection() as connection:
        # VACUUM refuses to run in a transaction.
        plain = connection.execution_options(isolation_level="AUTOCOMMIT")
        plain.execute(text(f"VACUUM ({how}) event_logs, asset_event_tags"))


def _size(storage: SqlEventLogStorage) -> int:
    with storage.index_connection() as connection:
        query = text("SELECT pg_database_size(current_database())")
        return int(connection.execute(query).scalar_one())


def _remove_output(storage: Path, horizon: float) -> int:
    """Delete what runs have printed; the folders of runs are named by their ids."""
    removed = 0
    for folder in storage.glob("*/compute_logs"):
        if folder.parent.stat().st_mtime < horizon and folder.stat().st_mtime < horizon:
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed
