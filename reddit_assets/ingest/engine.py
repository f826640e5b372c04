"""DuckDB and zstandard: what the extra ``ingest`` brings, or the sentence that it is missing."""

from __future__ import annotations

from pathlib import Path

from reddit_assets.errors import BackendUnavailableError

try:
    import duckdb
    import zstandard
except ImportError as error:
    raise BackendUnavailableError(
        f"Dumps need the package {error.name}, which is not installed.",
        hint="Install it: pip install 'reddit-assets[ingest]'.",
    ) from None

__all__ = ["connect", "duckdb", "quoted", "zstandard"]


def connect(threads: int, memory: str, scratch: Path | None = None) -> duckdb.DuckDBPyConnection:
    """An empty database in memory.

    Args:
        threads: that DuckDB may use.
        memory: its limit, like ``800MB``.
        scratch: folder for what does not fit; none: nothing is spilled.
    """
    connection = duckdb.connect(
        config={
            "threads": threads,
            "memory_limit": memory,
            "temp_directory": str(scratch or ""),
        }
    )
    connection.execute("SET enable_progress_bar = false")
    return connection


def quoted(path: Path | str) -> str:
    """A path within single quotes of SQL."""
    return str(path).replace("'", "''")
