"""Nights over a large tree: one where nothing changed, and one with a fault of every kind.

Part of ``scale_site.py``, which makes the tree, the servers and what Dagster has.
"""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dagster import AssetMaterialization, DagsterInstance
from scale_tree import Shape, cluster_keys, keys_of, write_clusters

from reddit_assets.corpus.output import temporary_path
from reddit_assets.corpus.scan import FileStatus, Reason, Verdict
from reddit_assets.platform.names import AssetSet, set_of
from reddit_assets.platform.reporting import records
from reddit_assets.platform.services.discover import Discover
from reddit_assets.platform.services.reconcile import Reconcile
from reddit_assets.platform.services.rescan import Rescan, Rescanned
from reddit_assets.workspace import Workspace

__all__ = ["nights"]

Row = tuple[str, float, str]


@dataclass(frozen=True, slots=True)
class Place:
    """A subreddit that has every output, with a fault in its first file or in its cluster."""

    workspace: Workspace
    instance: DagsterInstance
    shape: Shape
    subreddit: str

    @property
    def key(self) -> str:
        return keys_of(self.subreddit, 1)[0]

    @property
    def chain(self) -> Path:
        return self.workspace.layout.chain_path(self.key)

    @property
    def embedding(self) -> Path:
        return self.workspace.layout.embedding_path(self.key)

    @property
    def cluster(self) -> Path:
        return self.workspace.layout.cluster_path(self.subreddit)

    @property
    def assets(self) -> AssetSet:
        return set_of("embeddings", self.key, self.workspace.buckets)


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault: how it is made, and whether a night has found it."""

    name: str
    make: Callable[[Place], object]
    found: Callable[[Place, Rescanned], bool]


def nights(workspace: Workspace, instance: DagsterInstance, shape: Shape) -> Iterator[Row]:
    """Seconds and memory of the nights, and the number of faults found.

    Raises:
        AssertionError: a fault was not found.
    """
    rescan = Rescan(workspace, Discover(workspace), Reconcile(workspace))
    said: list[str] = []
    for name in ("first", "nothing changed"):
        yield f"nightly: {name}", _seconds(lambda: rescan.run(instance, said.append)), "s"
    places = [
        Place(workspace, instance, shape, key) for key in _complete(workspace, shape, len(FAULTS))
    ]
    for fault, place in zip(FAULTS, places, strict=True):
        fault.make(place)
    found: list[Rescanned] = []
    took = _seconds(lambda: found.append(rescan.run(instance, said.append)))
    yield "nightly: a fault of each kind", took, "s"
    pairs = zip(FAULTS, places, strict=True)
    missed = [fault.name for fault, place in pairs if not fault.found(place, found[0])]
    assert not missed, f"not found: {missed}\n" + "\n".join(said[-20:])
    yield "nightly: kinds of faults, all found", float(len(FAULTS)), "kinds"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    yield "nightly: memory at most", peak, "MB"


def _complete(workspace: Workspace, shape: Shape, number: int) -> list[str]:
    """Subreddits that have every output."""
    layout = workspace.layout
    found = (key for key in cluster_keys(shape) if layout.cluster_path(key).is_file())
    return list(islice(found, number))


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# --- how faults are made -------------------------------------------------------------------
def _replace(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    assert len(old) == len(new)
    path.write_bytes(content.replace(old, new, 1))


def _half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _abandon(place: Place) -> None:
    path = temporary_path(place.embedding, "0123456789abcdef")
    path.write_bytes(b"PAR1")
    os.utime(path, (0, 0))


def _other_version(place: Place) -> None:
    tags = {"dagster/data_version": "lost", "dagster/data_version_is_user_provided": "true"}
    event = AssetMaterialization(place.assets.embeddings, partition=place.key, tags=tags)
    records.report(place.instance, [event])


def _fewer_inputs(place: Place) -> None:
    keys = keys_of(place.subreddit, place.shape.per_subreddit - 1)
    write_clusters(place.workspace.layout, place.shape, {place.subreddit: keys})


# --- how they show -------------------------------------------------------------------------
def _file(place: Place, night: Rescanned) -> FileStatus:
    statuses = (one for one in night.statuses if one.cluster_key == place.subreddit)
    return next(file for file in next(statuses).files if file.key == place.key)


def _embedding(verdict: Verdict, *reasons: Reason) -> Callable[[Place, Rescanned], bool]:
    def found(place: Place, night: Rescanned) -> bool:
        file = _file(place, night)
        return file.verdict is verdict and (not reasons or file.reason in reasons)

    return found


def _clustered(verdict: Verdict, *reasons: Reason) -> Callable[[Place, Rescanned], bool]:
    def found(place: Place, night: Rescanned) -> bool:
        status = next(one for one in night.statuses if one.cluster_key == place.subreddit)
        cluster = status.cluster
        return (
            cluster is not None
            and cluster.verdict is verdict
            and (not reasons or cluster.reason in reasons)
        )

    return found


def _has_partition(place: Place, night: Rescanned) -> bool:
    name = place.assets.files.name or ""
    return place.instance.has_dynamic_partition(name, place.key)


def _has_version(place: Place, night: Rescanned) -> bool:
    versions = records.latest_versions(place.instance, place.assets.embeddings, [place.key])
    return versions.get(place.key) not in (None, "lost")


_STALE, _MISSING = Verdict.STALE, Verdict.MISSING

FAULTS = [
    Fault(
        "a chain file with another text, same size",
        lambda place: _replace(place.chain, b"best bread", b"last bread"),
        _embedding(_STALE, Reason.SOURCE_CHANGED),
    ),
    Fault(
        "a longer chain file",
        lambda place: place.chain.write_bytes(place.chain.read_bytes() + b"PAR1"),
        _embedding(_STALE, Reason.SOURCE_CHANGED),
    ),
    Fault(
        "a chain file that is gone",
        lambda place: place.chain.unlink(),
        lambda place, night: place.embedding in night.orphans and place.key in night.forgotten,
    ),
    Fault("no embedding file", lambda place: place.embedding.unlink(), _embedding(_MISSING)),
    Fault(
        "half an embedding file",
        lambda place: _half(place.embedding),
        _embedding(_STALE, Reason.DAMAGED),
    ),
    Fault(
        "an empty embedding file",
        lambda place: os.truncate(place.embedding, 0),
        _embedding(_STALE, Reason.EMPTY, Reason.DAMAGED),
    ),
    Fault(
        "the embedding file of another chain file",
        lambda place: shutil.copyfile(
            place.workspace.layout.embedding_path(keys_of(place.subreddit, 2)[1]), place.embedding
        ),
        _embedding(_STALE, Reason.OTHER_KEY),
    ),
    Fault(
        "an embedding file of another model",
        lambda place: _replace(
            place.embedding,
            place.shape.model.fingerprint.encode(),
            place.shape.model.fingerprint[::-1].encode(),
        ),
        _embedding(_STALE, Reason.OTHER_MODEL),
    ),
    Fault("no clustered file", lambda place: place.cluster.unlink(), _clustered(_MISSING)),
    Fault(
        "half a clustered file",
        lambda place: _half(place.cluster),
        _clustered(_STALE, Reason.DAMAGED),
    ),
    Fault("a cluster of fewer files", _fewer_inputs, _clustered(_STALE, Reason.INPUTS_CHANGED)),
    Fault(
        "an abandoned temporary file",
        _abandon,
        lambda place, night: temporary_path(place.embedding, "0123456789abcdef") in night.removed,
    ),
    Fault("another data version in Dagster", _other_version, _has_version),
    Fault(
        "a partition that Dagster lacks",
        lambda place: place.instance.delete_dynamic_partition(
            place.assets.files.name or "", place.key
        ),
        _has_partition,
    ),
    Fault(
        "a partition without a file",
        lambda place: place.instance.add_dynamic_partitions(
            place.assets.files.name or "", [f"{place.subreddit}/gone"]
        ),
        lambda place, night: f"{place.subreddit}/gone" in night.forgotten,
    ),
]
