"""Outputs on the disk that Dagster does not have: adopted files, and results that got lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dagster import DagsterInstance

from reddit_assets.corpus.fingerprints import Stamp
from reddit_assets.corpus.provenance import EmbeddingProvenance, OutputFile, read_output, text_facts
from reddit_assets.corpus.scan import SubredditStatus
from reddit_assets.errors import BadFileError
from reddit_assets.ledger.job import Result
from reddit_assets.ledger.outbox import OutboxEntry
from reddit_assets.ledger.waiters import unreported
from reddit_assets.platform.names import AssetSet, set_of
from reddit_assets.platform.reporting import records
from reddit_assets.platform.reporting.instance import InstanceSink
from reddit_assets.platform.services.tick import Place, Tick
from reddit_assets.workspace import Workspace

__all__ = ["Reconcile", "result_of"]

# An output younger than this is still on its way through acknowledgement and outbox.
_YOUNG_SECONDS = 90.0

# Results reported at a time; a tick's budget is looked at in between.
_BATCH = 2_000

# Footers read at a time: most of it is waiting, where the tree is on another host.
_READERS = 8


def result_of(
    output: OutputFile,
    key: str,
    asset: str,
    chain_stamp: str = "",
    links: Mapping[str, str] | None = None,
) -> Result:
    """What a worker would have said of an output that is there.

    Args:
        links: to a cluster's map.
    """
    provenance = output.provenance
    metadata: dict[str, object] = {"rows": output.rows, "path": str(output.path)}
    source, job = "", ""
    if provenance is None:
        metadata["adopted"] = True
        source = f"stamp-{chain_stamp}" if chain_stamp else ""
    else:
        job = provenance.job_id
        metadata |= {"seconds": provenance.seconds, **provenance.writer}
        if isinstance(provenance, EmbeddingProvenance):
            source = provenance.source.fingerprint
            metadata |= {"tokens": provenance.tokens, "model": provenance.model.name}
            metadata |= text_facts(provenance)
        else:
            metadata |= {**provenance.summary, **(links or {})}
    return Result(
        job=job or f"on disk {key} {output.data_version}",
        asset=asset,
        partition=key,
        outcome="fresh",
        data_version=output.data_version,
        source_version=source,
        metadata=metadata,
    )


@dataclass(frozen=True, slots=True)
class _Output:
    """A fresh output on the disk.

    Attributes:
        data_version: as the look has it; empty where it has none.
    """

    asset: str
    key: str
    path: Path
    stamp: Stamp
    data_version: str
    chain_stamp: str = ""


@dataclass
class _Comparison:
    """One comparison of the disk with Dagster.

    Attributes:
        quick: take what is older than Dagster's latest event of it for the same.
        moving: partitions whose results are on their way, by asset.
        read: how far each stream of results has been read.
    """

    sink: InstanceSink
    quick: bool
    moving: dict[str, set[str]] = field(default_factory=dict)
    read: dict[str, str] = field(default_factory=dict)
    seen: int = 0
    reported: int = 0
    refused: int = 0
    skipped: int = 0
    young: int = 0

    @property
    def open_ends(self) -> bool:
        """Whether something has to be compared again, although it may not change."""
        return bool(self.refused or self.skipped or self.young)

    def sentences(self, after: str | None) -> list[str]:
        """What there is to say.

        Args:
            after: the subreddit after which the next comparison goes on.
        """
        said = [
            f"{self.seen} subreddits compared with Dagster, {self.reported} outputs reported.",
            f"{self.skipped} skipped: their results are on their way." if self.skipped else "",
            f"{self.refused} refused by Dagster." if self.refused else "",
            f"The next tick goes on after {after}." if after is not None else "",
        ]
        return [sentence for sentence in said if sentence]


class Reconcile:
    """Compares the disk with Dagster."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        # Outputs that Dagster was seen to have.
        self._known: dict[tuple[str, str], Stamp] = {}
        self._readers = ThreadPoolExecutor(_READERS, "reconcile")

    def tick(self, instance: DagsterInstance, cursor: str | None = None) -> Tick:
        """A quick comparison of what has changed, for half of a tick's time.

        Args:
            cursor: what the last tick returned.
        """
        budget = self._workspace.settings.tick_seconds / 2
        scanner = self._workspace.scanner(budget_seconds=budget)
        place = Place.parse(cursor).begun(self._workspace, scanner)
        statuses = scanner.changed(place.since, place.after)
        look, after = self._compare(instance, statuses, quick=True, budget=budget)
        if after is None and not (place.open_ends or look.open_ends):
            self._known.clear()  # nothing of it is compared again
        place = place.moved(after, open_ends=look.open_ends)
        return Tick(look.sentences(after), json.dumps(asdict(place)))

    def compare(self, instance: DagsterInstance, statuses: Iterable[SubredditStatus]) -> list[str]:
        """Compare every output of a deep scan; sentences.

        Reports fresh outputs whose data version is not the one that Dagster has. Outputs on
        their way (in the outbox, or to a waiting run) are left out: they are reported anyway.
        """
        look, after = self._compare(instance, statuses, quick=False, budget=None)
        return look.sentences(after)

    def _compare(
        self,
        instance: DagsterInstance,
        statuses: Iterable[SubredditStatus],
        *,
        quick: bool,
        budget: float | None,
    ) -> tuple[_Comparison, str | None]:
        """The comparison, and the subreddit after which it goes on; ``None`` at the end."""
        started = time.monotonic()
        look = _Comparison(InstanceSink(self._workspace, instance), quick)
        batch: list[_Output] = []
        resume: str | None = None
        for status in statuses:
            look.seen += 1
            outputs = list(_outputs(self._workspace, status))
            horizon = time.time() - _YOUNG_SECONDS
            batch += [output for output in outputs if output.stamp.changed_at < horizon]
            look.young += sum(output.stamp.changed_at >= horizon for output in outputs)
            if len(batch) >= _BATCH:
                self._report(look, batch)
                batch = []
            if budget is not None and time.monotonic() - started > budget:
                resume = status.cluster_key
                break
        self._report(look, batch)
        return look, resume

    def _report(self, look: _Comparison, batch: list[_Output]) -> None:
        """Report the outputs whose data versions Dagster does not have."""
        unknown = list(self._unknown(look, batch))
        if not unknown:
            return
        # Read after the comparison: a job may have ended meanwhile.
        for kind, queue in self._workspace.queues.items():
            look.moving.setdefault(kind.asset, set()).update(unreported(queue, look.read))
        wanted = [r for r in unknown if r.partition not in look.moving.get(r.asset, ())]
        look.skipped += len(unknown) - len(wanted)
        refused = look.sink.report(
            [OutboxEntry(f"{r.asset} {r.partition}", r, uncertain=False) for r in wanted]
        )
        look.reported += len(wanted) - len(refused)
        look.refused += len(refused)

    def _unknown(self, look: _Comparison, batch: list[_Output]) -> Iterator[Result]:
        groups: dict[tuple[AssetSet, str], list[_Output]] = {}
        buckets = self._workspace.buckets
        for output in batch:
            if not (look.quick and self._known.get((output.asset, output.key)) == output.stamp):
                assets = set_of(output.asset, output.key, buckets)
                groups.setdefault((assets, output.asset), []).append(output)
        instance = look.sink.instance
        for (assets, name), group in groups.items():
            asset = assets.embeddings if name == "embeddings" else assets.clusters
            keys = [output.key for output in group]
            versions = records.latest_versions(instance, asset, keys)
            times = records.latest_times(instance, asset, keys) if look.quick else {}
            doubtful: list[_Output] = []
            for output in group:
                if output.data_version and versions.get(output.key) == output.data_version:
                    continue  # not known by its stamp: a cluster may be another one since the look
                if times.get(output.key, 0.0) > output.stamp.changed_at:
                    self._known[name, output.key] = output.stamp
                else:
                    doubtful.append(output)
            for output, found in zip(doubtful, self._readers.map(_read, doubtful), strict=True):
                if found is None:
                    continue  # the next scan judges it
                if versions.get(output.key) == found.data_version:
                    self._known[name, output.key] = output.stamp
                else:
                    yield result_of(
                        found, output.key, name, output.chain_stamp, self._links(name, output.key)
                    )

    def _links(self, asset: str, key: str) -> dict[str, str]:
        if asset != "clusters":
            return {}
        return self._workspace.layout.map_links(key, self._workspace.settings.maps_url)


def _read(output: _Output) -> OutputFile | None:
    try:
        return read_output(output.path)
    except (FileNotFoundError, BadFileError):
        return None


def _outputs(workspace: Workspace, status: SubredditStatus) -> Iterator[_Output]:
    """A subreddit's fresh outputs."""
    layout = workspace.layout
    outputs = [
        _Output(
            "embeddings",
            f.key,
            layout.embedding_path(f.key),
            f.output_stamp,
            f.data_version,
            str(f.stamp),
        )
        for f in status.files
        if f.verdict.done and f.output_stamp
    ]
    if status.cluster is not None and status.cluster.verdict.done:
        path = layout.cluster_path(status.cluster_key)
        with suppress(FileNotFoundError):
            stamp, version = Stamp.of(path.stat()), status.cluster.data_version
            outputs.append(_Output("clusters", status.cluster_key, path, stamp, version))
    yield from outputs
