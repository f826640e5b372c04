"""The ``buckets`` asset of the sharded layout: one partition per bucket, with what is in it.

Without ``from __future__ import annotations``: Dagster reads the types of an op's parameters.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetExecutionContext,
    AssetMaterialization,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    DagsterInstance,
    MetadataValue,
    ResourceParam,
    StaticPartitionsDefinition,
    multi_asset,
)

from reddit_assets.corpus.buckets import Buckets
from reddit_assets.platform.dagster_errors import run_errors
from reddit_assets.platform.names import BUCKETS, AssetSet
from reddit_assets.platform.reporting.assets import page_path
from reddit_assets.platform.resources import Platform

if TYPE_CHECKING:
    from reddit_assets.corpus.scan import SubredditStatus
    from reddit_assets.workspace import Workspace

__all__ = ["BucketCounts", "by_bucket", "make_buckets"]

# Files of a bucket that its page links.
_LINKS = 200
_COUNTS = ("files", "embedded", "stale", "missing", "failed", "subreddits", "clustered")


def make_buckets(buckets: Buckets) -> AssetsDefinition:
    """The asset; materializing partitions looks at the disk again."""

    @multi_asset(
        name="look_at_buckets",
        specs=[
            AssetSpec(
                BUCKETS,
                description="What is in each bucket: done, stale, missing, failed, with links.",
                group_name="reddit",
                partitions_def=StaticPartitionsDefinition(list(buckets.names)),
                skippable=True,
            )
        ],
        backfill_policy=BackfillPolicy.single_run(),
    )
    def look(context: AssetExecutionContext, platform: ResourceParam[Platform]) -> Iterator[Any]:
        with run_errors():
            wanted = set(context.partition_keys)
            counts = BucketCounts(platform.workspace)
            deque(counts.watch(platform.workspace.scanner().scan()), maxlen=0)
            for event in counts.events():
                if event.partition in wanted:
                    context.log_event(event)
        yield from ()

    return look


class BucketCounts:
    """Counts what a look sees, per bucket; nothing in the flat layout."""

    def __init__(self, workspace: "Workspace") -> None:
        from reddit_assets.ledger.job import Kind

        self.buckets = workspace.buckets
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in self.buckets.names}
        # Files that are not done: state, key, sentence.
        self._wrong: dict[str, list[tuple[str, str, str]]] = {n: [] for n in self.buckets.names}
        queue = workspace.queues.get(Kind.EMBED) if self.buckets.names else None
        self._dead = queue.dead_since() if queue is not None else {}

    def watch(self, statuses: Iterable["SubredditStatus"]) -> Iterator["SubredditStatus"]:
        """The statuses as they come, counted."""
        for status in statuses:
            if self.buckets.names:
                self._count(status)
            yield status

    def _count(self, status: "SubredditStatus") -> None:
        name = self.buckets.of(status.cluster_key) or ""
        mine, wrong = self._counts[name], self._wrong[name]
        mine["subreddits"] += bool(status.files)
        mine["clustered"] += status.cluster is not None and status.cluster.verdict.done
        mine["files"] += len(status.files)
        for file in status.files:
            if file.verdict.done:
                mine["embedded"] += 1
                continue
            stale = "stale" if file.verdict.value == "stale" else "missing"
            state = "failed" if file.key in self._dead else stale
            mine[state] += 1
            if state == "failed" or len(wrong) < _LINKS:
                wrong.append((state, file.key, file.sentence))

    def events(self) -> list[AssetMaterialization]:
        """A materialization per bucket."""
        return [
            _event(self.buckets, name, self._counts[name], self._wrong[name])
            for name in self.buckets.names
        ]


def _event(
    buckets: Buckets, name: str, counts: Counter[str], wrong: list[tuple[str, str, str]]
) -> AssetMaterialization:
    assets = AssetSet(name)
    metadata: dict[str, MetadataValue] = {each: MetadataValue.int(counts[each]) for each in _COUNTS}
    metadata |= {
        key.path[0]: MetadataValue.asset(key)
        for key in (assets.chains, assets.embeddings, assets.clusters)
    }
    if wrong:
        lines = [
            f"| {state} | [{_plain(key)}]({page_path('embeddings', key, buckets)}) "
            f"| {_plain(why)} |"
            for state, key, why in sorted(wrong)[:_LINKS]
        ]
        text = "| | file | why |\n|---|---|---|\n" + "\n".join(lines)
        metadata = {"not done": MetadataValue.md(text), **metadata}
    return AssetMaterialization(BUCKETS, partition=name, metadata=metadata)


def by_bucket(instance: DagsterInstance, counts: BucketCounts) -> dict[str, MetadataValue]:
    """Report what was counted, a materialization per bucket; the table of all for ``corpus``."""
    from reddit_assets.platform.reporting import records

    events = counts.events()
    records.report(instance, events)
    return {"buckets": _table(events)} if events else {}


def _table(events: Iterable[AssetMaterialization]) -> MetadataValue:
    """All buckets with links to their pages, those with most failures and most to do first."""

    def number(event: AssetMaterialization, name: str) -> int:
        return int(str(event.metadata[name].value))

    rows = sorted(
        events,
        key=lambda event: (
            -number(event, "failed"),
            -number(event, "stale") - number(event, "missing"),
            event.partition or "",
        ),
    )
    lines = [
        f"| [{event.partition}](/assets/buckets?view=partitions&partition={event.partition}) | "
        + " | ".join(str(number(event, name)) for name in _COUNTS)
        + " |"
        for event in rows
    ]
    head = f"| bucket | {' | '.join(_COUNTS)} |\n|---|{'---:|' * len(_COUNTS)}\n"
    return MetadataValue.md(head + "\n".join(lines))


def _plain(text: str) -> str:
    """``text`` as a cell of Markdown."""
    shown = text.replace("\\", "\\\\")
    for sign in "|[]`*_<>":
        shown = shown.replace(sign, f"\\{sign}")
    return shown
