"""Ingesting: a dump in, its messages out; the last one of the folder makes the chain files."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any, ClassVar

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import BadFileError, UnreadableFileError
from reddit_assets.ingest.run import Ingest
from reddit_assets.ingest.store import Record, find_dumps
from reddit_assets.ledger.job import Claim, Result
from reddit_assets.settings import Settings
from reddit_assets.tasks.messages import Event, Finished, Progress, one_by_one

__all__ = ["IngestTask"]


class IngestTask:
    """One dump after the other.

    What it makes is published by itself, each file whole: a dump's record is the same whoever
    makes it, and of chain files one process at a time makes all.
    """

    silent: ClassVar[bool] = True  # DuckDB sorts for minutes without a word

    def __init__(self, settings: Settings, layout: Layout) -> None:
        self._ingest = Ingest(settings, layout)

    def facts(self) -> dict[str, object]:
        """The engine's version."""
        from importlib.metadata import version

        return {"backend": "duckdb", "duckdb": version("duckdb")}

    def run(self, claims: Iterator[Claim | None], emit: Callable[[Event], None]) -> None:
        """As :class:`~reddit_assets.tasks.messages.Task`."""
        one_by_one(claims, emit, lambda claim: self._made(claim, emit))

    def _made(self, claim: Claim, emit: Callable[[Event], None]) -> Finished:
        started = time.monotonic()
        path = self._ingest.store.dumps / claim.key
        record = None if claim.force else self._ingest.fresh(claim.key, path)
        if record is not None and record.error:
            record = None  # whoever has the job done again wants it read again
        outcome = "made" if record is None else "fresh"
        if record is None:
            try:
                record = self._ingest.dump(
                    claim.key, path, lambda seen: emit(Progress(claim.token, 0))
                )
            except UnreadableFileError:
                raise
            except BadFileError:
                self._chains(claim, emit)  # the others' messages do not wait for this one
                raise
        chains = self._chains(claim, emit)
        seconds = time.monotonic() - started
        return Finished(
            claim.token,
            Result(
                job=claim.id,
                asset=claim.kind.asset,
                partition=claim.key,
                outcome=outcome,
                data_version=hashlib.blake2b(record.stamp.encode(), digest_size=16).hexdigest(),
                metadata=_metadata(record, chains, str(self._ingest.store.messages(record))),
            ),
            rows=record.rows,
            seconds=seconds,
        )

    def _chains(self, claim: Claim, emit: Callable[[Event], None]) -> dict[str, Any]:
        """Makes chain files where no other dump is still to be ingested; what became of them."""
        store = self._ingest.store
        dumps = find_dumps([store.dumps], store.dumps)
        try:
            waiting = [key for key, path in dumps.items() if self._ingest.fresh(key, path) is None]
        except UnreadableFileError:
            return {}  # one is being replaced: its own job comes later
        if waiting:
            return {"chains": f"made when {len(waiting)} more dumps are ingested"}
        alive = partial(emit, Progress(claim.token, 0))
        # This process is a worker's child, and may have no children.
        built = self._ingest.chains(lambda done, total: alive(), wait=alive, processes=1)
        return {f"chain_{name}": value for name, value in asdict(built).items() if value}


def _metadata(record: Record, chains: dict[str, Any], path: str) -> dict[str, Any]:
    rate = record.lines / record.seconds if record.seconds else 0.0
    return {
        "rows": record.rows,
        "lines": record.lines,
        "rejected": record.rejected,
        "subreddits": record.subreddits,
        "bytes": record.bytes_in,
        "bytes_out_mb": round(record.bytes_out / 1e6, 3),
        "seconds": record.seconds,
        "rows_per_second": round(rate, 1),
        "filtered": record.filtered,
        **chains,
        "host": socket.gethostname(),
        "path": path,
    }
