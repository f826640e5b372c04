"""Results → Dagster's webserver, from hosts without Dagster.

The webserver writes each report synchronously, so that many connections only slow its pages: all
reporters together hold at most two.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import BaseModel, Field, ValidationError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from reddit_assets.corpus.buckets import FLAT, Buckets
from reddit_assets.errors import ReportingError, without_login
from reddit_assets.ledger.job import Result
from reddit_assets.ledger.outbox import OutboxEntry
from reddit_assets.platform.reporting.assets import asset_path
from reddit_assets.platform.reporting.drain import Known, Refusal, not_yet_known
from reddit_assets.platform.reporting.metadata import (
    PICTURE,
    as_text,
    chain_metadata,
    described,
    result_metadata,
)

__all__ = ["RestSink"]

_NOTHING_LOST = "Nothing is lost meanwhile."

# How often the page is asked for its buckets: they change when its definitions are loaded.
_ASK_SECONDS = 60.0

# Answers that find fault with what was sent; others are about the webserver or the way to it.
_BAD_REQUEST = (400, 413, 422)


class _Pair(BaseModel):
    key: str
    value: str


class _Text(BaseModel):
    label: str
    text: str = ""


class _Event(BaseModel):
    tags: list[_Pair] = []
    entries: list[_Text] = Field([], alias="metadataEntries")


class _Asset(BaseModel):
    events: list[_Event] = Field([], alias="assetMaterializations")


class _Latest(BaseModel):
    """The answer to the question for the latest materializations."""

    data: dict[str, _Asset | None]


class _Partitions(BaseModel):
    keys: list[str] = Field([], alias="partitionKeys")


class _Overview(BaseModel):
    """The answer to the question for the buckets; no keys in the flat layout."""

    overview: _Partitions


class _RefusedError(Exception):
    """The webserver does not take one report."""

    def __init__(self, why: str, *, certain: bool) -> None:
        super().__init__(why)
        self.refusal = Refusal(why, certain)


class RestSink:
    """Sends materializations to one webserver.

    Args:
        url: the webserver's address.
        headers: of each request, such as the token that a proxy asks for.
        transport: for tests.
    """

    batch = 20
    slots: int | None = 2

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = without_login(url.rstrip("/"))
        self._buckets, self._asked = FLAT, -_ASK_SECONDS
        self._http = httpx.Client(
            base_url=url.rstrip("/"),
            headers=headers,
            timeout=httpx.Timeout(60.0, connect=5.0),
            limits=httpx.Limits(max_connections=1),
            transport=transport,
        )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def report(self, entries: Sequence[OutboxEntry]) -> Mapping[str, Refusal]:
        """As :meth:`~reddit_assets.platform.reporting.drain.Sink.report`."""
        self._ask_buckets()
        known = self.latest(entries)
        refused: dict[str, Refusal] = {}
        for entry in not_yet_known(entries, known):
            try:
                self._send(entry.result, known)
            except _RefusedError as error:
                refused[entry.entry] = error.refusal
        return refused

    def latest(self, entries: Sequence[OutboxEntry]) -> dict[tuple[str, str], Known]:
        """What Dagster has of the entries' partitions and chain files, in one query.

        Raises:
            ReportingError: the webserver does not answer, or not as it should.
        """
        # Behind an uncertain result there may be newer ones.
        depth: dict[tuple[str, str], int] = {}
        for entry in entries:
            result = entry.result
            name = (result.asset, result.partition)
            depth[name] = max(depth.get(name, 1), 10 if entry.uncertain else 1)
            if result.source_version:
                depth.setdefault(("chains", result.partition), 1)
        if not depth:
            return {}
        fields = [
            f"p{index}: assetOrError(assetKey: {{path: {self._path(*name)}}}) {{ ... on Asset {{"
            f" assetMaterializations(partitions: [{json.dumps(name[1])}], limit: {limit}) {{"
            " tags { key value } metadataEntries { label ... on TextMetadataEntry { text } }"
            " } } }"
            for index, (name, limit) in enumerate(depth.items())
        ]
        answer = self._query("{ " + "\n".join(fields) + " }")
        try:
            found = _Latest.model_validate(answer).data
            return {name: _known(found[f"p{index}"]) for index, name in enumerate(depth)}
        except (ValidationError, KeyError):
            raise self._strange(f"answers in another form: {str(answer)[:200]}") from None

    def _ask_buckets(self) -> None:
        """Ask for the buckets of the page's definitions: a worker host need not see the trees.

        Raises:
            ReportingError: the webserver does not answer, or not as it should.
        """
        if time.monotonic() - self._asked < _ASK_SECONDS:
            return
        query = (
            '{ overview: assetNodeOrError(assetKey: {path: ["buckets"]}) {'
            " ... on AssetNode { partitionKeys } } }"
        )
        answer = self._query(query)
        try:
            found = _Overview.model_validate(answer.get("data"))
            self._buckets = Buckets.parse(found.overview.keys)
        except (ValidationError, ValueError):
            raise self._strange(f"answers in another form: {str(answer)[:200]}") from None
        self._asked = time.monotonic()

    def _query(self, query: str) -> dict[str, Any]:
        answer = self._post("/graphql", {"query": query})
        if answer.get("errors"):
            raise self._strange(f"cannot tell what it has: {str(answer['errors'])[:200]}")
        return answer

    def _path(self, asset: str, partition: str) -> str:
        return json.dumps(list(asset_path(asset, partition, self._buckets)))

    def _send(self, result: Result, known: Mapping[tuple[str, str], Known]) -> None:
        chain = known.get(("chains", result.partition), Known())
        if result.source_version and chain.data_version != result.source_version:
            self._report("chains", result, result.source_version, described(chain_metadata(result)))
        metadata = result_metadata(result)
        # The endpoint knows neither pictures nor tables; "map" says where the picture lies.
        metadata.pop(PICTURE, None)
        metadata = {k: as_text(v) if isinstance(v, list) else v for k, v in metadata.items()}
        self._report(result.asset, result, result.data_version, metadata)

    def _report(
        self, asset: str, result: Result, data_version: str, metadata: Mapping[str, Any]
    ) -> None:
        parts = asset_path(asset, result.partition, self._buckets)
        path = "/report_asset_materialization/" + "/".join(quote(part, safe="") for part in parts)
        body = {
            "partition": result.partition,
            "data_version": data_version,
            "metadata": metadata,
        }
        try:
            self._post(path, body)
        except (ValueError, TypeError, httpx.InvalidURL) as error:
            raise _RefusedError(f"It cannot be sent: {error}.", certain=True) from None

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
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
                f"Dagster at {self.url} does not answer: {_said(error)}.",
                hint=f"Start the webserver, or correct DAGSTER_URL. {_NOTHING_LOST}",
            ) from None
        shown = " ".join(response.text[:200].split())
        if response.status_code != 200:
            why = f"Dagster at {self.url} answers {response.status_code} to {path}: {shown}"
            about_report = path.startswith("/report")
            if about_report and response.status_code in (*_BAD_REQUEST, 500):
                raise _RefusedError(why, certain=response.status_code != 500)
            raise ReportingError(why, hint=f"Look at the webserver's log. {_NOTHING_LOST}")
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or "error" in answer:
            raise self._strange(f"answers {path} with something else than JSON: {shown}")
        return answer

    def _strange(self, what: str) -> ReportingError:
        return ReportingError(
            f"{self.url} {what}",
            hint="Is DAGSTER_URL the webserver of reddit_assets, and not a login page before it? "
            + _NOTHING_LOST,
        )


def _said(error: httpx.HTTPError) -> str:
    """What went wrong in words, without the system's number for it."""
    text = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
    return text[:1].lower() + text[1:]


def _known(asset: _Asset | None) -> Known:
    events = asset.events if asset is not None else []
    if not events:
        return Known()
    tags = {tag.key: tag.value for tag in events[0].tags}
    jobs = {entry.text for event in events for entry in event.entries if entry.label == "job_id"}
    return Known(tags.get("dagster/data_version", ""), frozenset(jobs - {""}))
