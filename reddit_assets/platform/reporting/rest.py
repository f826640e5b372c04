"""Drains the outboxes into Dagster's webserver.

The webserver writes each report synchronously, so that many connections only slow its pages: all
reporters together hold at most two (a lease in Redis). An entry leaves the outbox only when
Dagster has answered; after an uncertain attempt it is looked up by its job id first.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from reddit_assets.errors import QueueFullError, QueueUnavailableError, ReportingError
from reddit_assets.ledger.job import new_token
from reddit_assets.ledger.outbox import Outbox, OutboxEntry
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.platform.reporting.assets import asset_path

__all__ = ["Known", "RestReporter", "RestSink"]

log = logging.getLogger(__name__)

_BATCH = 20
_SLOTS = 2
_SLOT_SECONDS = 60.0
_IDLE_SECONDS = 1.0
_LONGEST_WAIT = 30.0


@dataclass(frozen=True, slots=True)
class Known:
    """The latest materialization that Dagster has of a partition; empty texts if none."""

    data_version: str = ""
    job_id: str = ""


class RestSink:
    """Sends materializations to one webserver.

    Args:
        url: the webserver's address.
        shards: shards with assets of their own.
        transport: for tests.
    """

    def __init__(
        self,
        url: str,
        shards: Collection[str] = (),
        *,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._shards = shards
        self._http = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(60.0, connect=5.0),
            limits=httpx.Limits(max_connections=1),
            transport=transport,
        )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def report(self, entries: Sequence[OutboxEntry]) -> None:
        """Let Dagster have every result of ``entries``, each once.

        Raises:
            ReportingError: not all could be sent; which ones were is uncertain.
        """
        results = [entry.result for entry in entries if entry.result.ok]
        wanted = {(r.asset, r.partition) for r in results}
        wanted |= {("chains", r.partition) for r in results if r.source_version}
        known = self.latest(sorted(wanted))
        for entry in entries:
            result = entry.result
            if not result.ok:
                continue
            mine = known.get((result.asset, result.partition), Known())
            if mine.job_id == result.job:
                continue  # an earlier, uncertain attempt did reach Dagster
            if result.outcome == "fresh" and mine.data_version == result.data_version:
                continue
            chain = known.get(("chains", result.partition), Known())
            if result.source_version and chain.data_version != result.source_version:
                self._send("chains", result.partition, result.source_version, {})
            self._send(
                result.asset,
                result.partition,
                result.data_version,
                {**result.metadata, "job_id": result.job},
            )

    def latest(self, partitions: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Known]:
        """The latest materialization of each (asset, partition), in one query.

        Raises:
            ReportingError: the webserver does not answer, or not as it should.
        """
        if not partitions:
            return {}
        fields = []
        for index, (asset, partition) in enumerate(partitions):
            path = json.dumps(list(asset_path(asset, partition, self._shards)))
            fields.append(
                f"p{index}: assetOrError(assetKey: {{path: {path}}}) {{ ... on Asset {{"
                f" assetMaterializations(partitions: [{json.dumps(partition)}], limit: 1) {{"
                " tags { key value } metadataEntries { label ... on TextMetadataEntry { text } }"
                " } } }"
            )
        answer = self._post("/graphql", {"query": "{ " + "\n".join(fields) + " }"}).json()
        if answer.get("errors"):
            raise ReportingError(
                f"{self.url} cannot tell what it has: {answer['errors'][0].get('message')}",
                hint="Is this the webserver of reddit_assets?",
            )
        found: dict[tuple[str, str], Known] = {}
        for index, name in enumerate(partitions):
            events = (answer["data"][f"p{index}"] or {}).get("assetMaterializations") or []
            if events:
                tags = {tag["key"]: tag["value"] for tag in events[0]["tags"]}
                texts = {e["label"]: e.get("text", "") for e in events[0]["metadataEntries"]}
                found[name] = Known(tags.get("dagster/data_version", ""), texts.get("job_id", ""))
        return found

    def _send(
        self, asset: str, partition: str, data_version: str, metadata: dict[str, Any]
    ) -> None:
        path = "/".join(asset_path(asset, partition, self._shards))
        self._post(
            f"/report_asset_materialization/{path}",
            {"partition": partition, "data_version": data_version, "metadata": metadata},
        )

    def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        # Only what surely did not reach the webserver is tried again here.
        attempts = Retrying(
            retry=retry_if_exception_type(httpx.ConnectError),
            stop=stop_after_attempt(3),
            wait=wait_exponential_jitter(0.2, 2.0),
            reraise=True,
        )
        try:
            response = attempts(self._http.post, path, json=body)
        except httpx.HTTPError as error:
            raise ReportingError(
                f"Dagster at {self.url} does not answer: {str(error) or type(error).__name__}.",
                hint="Start the webserver, or correct DAGSTER_URL; nothing is lost meanwhile.",
            ) from None
        if response.status_code != 200:
            raise ReportingError(
                f"Dagster at {self.url} answers {response.status_code} to {path}: "
                f"{response.text[:200]}",
                hint="Look at the webserver's log; nothing is lost meanwhile.",
            )
        return response


class RestReporter(threading.Thread):
    """Drains outboxes until told to stop.

    Args:
        queues: whose outboxes.
        sink: where to.
        until_empty: end when nothing is left.
    """

    def __init__(
        self, queues: Sequence[JobQueue], sink: RestSink, *, until_empty: bool = False
    ) -> None:
        super().__init__(name="reporter", daemon=True)
        name = f"rest-{new_token()}"
        self._outboxes = [Outbox(queue, name) for queue in queues]
        self._sink = sink
        self._until_empty = until_empty
        self._stop_event = threading.Event()
        self._unfinished: dict[int, list[OutboxEntry]] = {}
        self.reported = 0

    def stop(self) -> None:
        """End after the current batch; what was not sent stays in the outbox."""
        self._stop_event.set()

    def run(self) -> None:
        """Report until stopped."""
        wait, told = _IDLE_SECONDS, False
        while not self._stop_event.is_set():
            try:
                if not self._outboxes[0].slot(_SLOTS, _SLOT_SECONDS):
                    self._stop_event.wait(_IDLE_SECONDS)
                    continue
                sent = sum(self.drain(outbox) for outbox in self._outboxes)
                wait, told = _IDLE_SECONDS, False
                if not sent:
                    if self._until_empty:
                        break
                    self._stop_event.wait(_IDLE_SECONDS)
            except (ReportingError, QueueUnavailableError, QueueFullError) as error:
                if not told:
                    log.warning("%s Reports wait in the outbox.", error)
                told = True
                self._stop_event.wait(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
        try:
            self._outboxes[0].free_slot()
        except QueueUnavailableError:
            log.debug("The connection slot runs out by itself.")
        self._sink.close()

    def drain(self, outbox: Outbox) -> int:
        """Report one batch; the number of entries that left the outbox."""
        mine = id(outbox)
        entries = self._unfinished.get(mine) or outbox.take(_BATCH)
        if not entries:
            return 0
        # Until it is done, every entry of the batch is uncertain.
        self._unfinished[mine] = [replace(entry, uncertain=True) for entry in entries]
        self._sink.report(entries)
        outbox.done([entry.entry for entry in entries])
        del self._unfinished[mine]
        self.reported += len(entries)
        return len(entries)
