"""Clustering: a subreddit's embedding files in, its clustered file and map out."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any, ClassVar

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.provenance import ClusterProvenance, read_output
from reddit_assets.corpus.scan import Reason, SubredditStatus, Verdict
from reddit_assets.corpus.vectors import VectorFormat
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.engines.clustering.warmup import warm_up
from reddit_assets.errors import ClusteringError, SettingsError
from reddit_assets.ledger.job import Claim, Result
from reddit_assets.settings import Settings
from reddit_assets.tasks.messages import Event, Finished, Progress, one_by_one
from reddit_assets.tasks.phrase_model import HostModel
from reddit_assets.tasks.subreddit import cluster_subreddit
from reddit_assets.workspace import Workspace

__all__ = ["ClusterTask"]

# Why a scan elsewhere may accept a file that is not accepted here. To cluster without it would
# make a cluster that is stale at once.
_OF_SETTINGS = (Reason.NONCONFORMANT, Reason.NOT_ADOPTED, Reason.OTHER_TEXT)

# A picture above this would bloat Dagster's event log.
_LARGEST_PICTURE = 120_000


class ClusterTask:
    """One subreddit after the other; compiled code is warm before the first."""

    silent: ClassVar[bool] = True  # HDBSCAN computes for minutes without a word

    def __init__(self, settings: Settings, layout: Layout) -> None:
        self.layout = layout
        self._workspace = Workspace.of_trees(settings, layout)
        self.params = ClusterParams.from_settings(settings)
        self._vectors = VectorFormat.from_settings(settings)
        self._versions = {name: version(name) for name in ("hdbscan", "numpy", "scikit-learn")}
        self._model = HostModel(settings)
        warm_up(self.params)

    def facts(self) -> dict[str, object]:
        """Reduction and versions."""
        return {"reduction": self.params.reduction, **self._versions}

    def run(self, claims: Iterator[Claim | None], emit: Callable[[Event], None]) -> None:
        """As :class:`~reddit_assets.tasks.messages.Task`."""
        one_by_one(claims, emit, lambda claim: self._cluster(claim, emit))

    def _check_settings(self, claim: Claim) -> None:
        """Refuse a job of other clustering settings: its cluster would always be stale at once.

        Raises:
            SettingsError: the job was queued for other settings than this worker's.
        """
        _, _, wanted = claim.stamp.rpartition("-")
        if wanted and not self.params.fingerprint.startswith(wanted):
            raise SettingsError(
                f"{claim.key} was queued for clustering settings {wanted}, but this worker has "
                f"{self.params.fingerprint[:12]}.",
                hint="Give workers and the Dagster host the same REDDIT_… clustering settings "
                "and the same version.",
                host_fault=True,
            )

    def _cluster(self, claim: Claim, emit: Callable[[Event], None]) -> Finished:
        self._check_settings(claim)
        self.layout.check_mounted()
        # Whatever has an embedding now goes in, and what has none is named in the provenance: its
        # arrival makes the cluster stale.
        status = self._workspace.scanner(settle_seconds=0).subreddit(claim.key)
        if status.unreadable is not None:
            raise status.unreadable
        keys = [file.key for file in status.files if file.verdict.done]
        missing = [file.key for file in status.files if not file.verdict.done]
        for file in status.files:
            if file.reason in _OF_SETTINGS and claim.stamp and not claim.force:
                raise SettingsError(
                    f"{claim.key} was queued with {file.key}, whose embedding file is not accepted "
                    f"here: it {file.sentence}.",
                    hint="Give workers and the Dagster host the same REDDIT_ADOPT, "
                    "REDDIT_ALLOW_NONCONFORMANT and REDDIT_TEXT_COLUMNS.",
                    host_fault=True,
                )
        if not claim.force and not missing and (fresh := self._existing(claim, status)):
            return fresh
        if not keys:
            raise ClusteringError(
                f"{claim.key} has no embedding file of a chain file.",
                hint="Embed its files first; the scan then queues the cluster.",
            )
        result = cluster_subreddit(
            self.layout,
            claim.key,
            keys,
            self.params,
            token=claim.token,
            full=claim.force,
            excluded=missing,
            job_id=claim.id,
            vectors=self._vectors,
            model=self._model,
            writer={"host": socket.gethostname(), **self._versions},
            progress=lambda stage: emit(Progress(claim.token, 0)),
        )
        metadata: dict[str, Any] = {
            **result.metadata,
            "host": socket.gethostname(),
            "device": "cpu",
            "backend": self.params.reduction,
            "path": str(self.layout.cluster_path(claim.key)),
            **self.layout.map_links(
                claim.key, self._workspace.settings.maps_url, picture=result.png is not None
            ),
            "job_id": claim.id,
            "top_clusters": result.table,
        }
        if result.png is not None and len(result.png) <= _LARGEST_PICTURE:
            metadata["map_png"] = base64.b64encode(result.png).decode("ascii")
        return Finished(
            claim.token,
            _result(claim, result.data_version, "made", metadata),
            result.files,
            rows=result.rows,
            seconds=result.seconds,
        )

    def _existing(self, claim: Claim, status: SubredditStatus) -> Finished | None:
        """The output if it is fresh and may be taken as it is."""
        cluster = status.cluster
        if cluster is None or cluster.verdict is not Verdict.FRESH:
            return None
        output = read_output(self.layout.cluster_path(claim.key))
        provenance = output.provenance
        metadata = {
            "rows": output.rows,
            **(provenance.summary if isinstance(provenance, ClusterProvenance) else {}),
            "path": str(output.path),
            **self.layout.map_links(claim.key, self._workspace.settings.maps_url),
            "job_id": claim.id,
        }
        return Finished(claim.token, _result(claim, output.data_version, "fresh", metadata))


def _result(claim: Claim, version: str, outcome: str, metadata: dict[str, Any]) -> Result:
    return Result(
        job=claim.id,
        asset=claim.kind.asset,
        partition=claim.key,
        outcome=outcome,
        data_version=version,
        metadata=metadata,
    )
