"""The servers: Redis and Dagster."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import httpx

from reddit_assets.doctor.findings import Finding, Grade
from reddit_assets.errors import first_line, without_login
from reddit_assets.ledger.connection import redis_errors, shown_url
from reddit_assets.ledger.job import new_token
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.ledger.server import check_server
from reddit_assets.settings import Settings

__all__ = ["dagster", "redis"]

_SLOW_MS = 5.0
_CLOCK_SECONDS = 2.0
_FULL = 0.8


def redis(queue: JobQueue) -> Iterator[Finding]:
    """Version, latency, rights, settings, memory, clock."""
    client, where = queue.client, shown_url(queue.client)
    warnings = check_server(client)
    with redis_errors(client):
        times = []
        for _ in range(20):
            began = time.perf_counter()
            client.ping()
            times.append(time.perf_counter() - began)
        seconds, microseconds = client.time()
        away = seconds + microseconds / 1e6 - time.time()
    latency = 1000 * statistics.median(times)
    slow = latency > _SLOW_MS
    yield Finding(
        "redis",
        Grade.WARNING if slow else Grade.OK,
        f"{where} answers in {latency:.2f} ms.",
        "Each job takes a few calls: put workers nearer to it." if slow else "",
    )
    # What a worker does, with a name that nobody has: scripts, and rights to the queue's keys.
    name = f"doctor-{new_token()}"
    queue.announce(name, {"host": "doctor"}, 1)
    queue.renew(name, [], 1)
    queue.leave(name)
    queue.counts()
    yield Finding("redis", Grade.OK, "This account may run the queue's scripts.")
    for warning in warnings:
        said, _, advice = warning.rpartition(": ")
        sentence, _, rest = warning.partition(". ")
        yield Finding("redis", Grade.WARNING, *((sentence + ".", rest) if rest else (said, advice)))
    yield from _memory(queue)
    if abs(away) > _CLOCK_SECONDS:
        yield Finding(
            "clocks",
            Grade.WARNING,
            f"The clock of Redis is {abs(away):.1f} s {'ahead' if away > 0 else 'behind'}.",
            "Let both hosts set their clocks by NTP.",
        )


def _memory(queue: JobQueue) -> Iterator[Finding]:
    with redis_errors(queue.client):
        facts = queue.client.info("memory")
    used, limit = int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))
    if limit and used > _FULL * limit:
        yield Finding(
            "redis",
            Grade.WARNING,
            f"Redis uses {used / 1e6:,.0f} of {limit / 1e6:,.0f} MB.",
            "Raise maxmemory: a full server takes no new jobs.",
        )


def dagster(settings: Settings) -> Iterator[Finding]:
    """Whether the webserver answers, and whether its version is this host's."""
    if settings.dagster_url is None:
        said = "DAGSTER_URL is not set: this host reports nothing over REST."
        yield Finding("dagster", Grade.SKIPPED, said)
        return
    url = settings.dagster_url.rstrip("/")
    shown = without_login(url)
    try:
        answer = httpx.get(f"{url}/server_info", timeout=10.0, headers=settings.dagster_headers())
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        said = f"{shown} does not answer: {first_line(error)}."
        yield Finding("dagster", Grade.FAULT, said, "Start the webserver, or correct DAGSTER_URL.")
        return
    try:
        theirs = answer.json()["dagster_version"]
    except (ValueError, KeyError, TypeError):
        said = f"What answers at {shown} (status {answer.status_code}) is not Dagster's webserver."
        advice = "Correct DAGSTER_URL; behind a proxy with a login set DAGSTER_TOKEN."
        yield Finding("dagster", Grade.FAULT, said, advice)
        return
    yield Finding("dagster", Grade.OK, f"{shown} answers; it is Dagster {theirs}.")
    try:
        ours = version("dagster")
    except PackageNotFoundError:
        return
    if ours != theirs:
        said = f"The webserver is Dagster {theirs}, this host has {ours}."
        yield Finding("dagster", Grade.WARNING, said, "Install the same version on both.")
