"""Cluster tasks: a subreddit's embedding files in, its clustered file and map out."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.provenance import ClusterProvenance, read_output
from reddit_assets.corpus.scan import SubredditStatus, Verdict
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.engines.clustering.warmup import warm_up
from reddit_assets.errors import ClusteringError, Failure, SettingsError
from reddit_assets.settings import Settings
from reddit_assets.tasks.messages import Event, Failed, Finished, Progress, Started, Task
from reddit_assets.tasks.subreddit import cluster_subreddit
from reddit_assets.workspace import Workspace

__all__ = ["ClusterProcessor"]

# A picture above this would bloat Dagster's event log.
_LARGEST_PICTURE = 120_000


class ClusterProcessor:
    """One subreddit after the other; compiled code is warm before the first."""

    def __init__(self, settings: Settings, layout: Layout) -> None:
        self.layout = layout
        self._workspace = Workspace.of_trees(settings, layout)
        self.params = ClusterParams.from_settings(settings)
        self._versions = {name: version(name) for name in ("hdbscan", "numpy", "scikit-learn")}
        warm_up(self.params)

    def facts(self) -> dict[str, object]:
        """Reduction and versions."""
        return {"reduction": self.params.reduction, **self._versions}

    def run(self, tasks: Iterator[Task | None], emit: Callable[[Event], None]) -> None:
        """As :class:`~reddit_assets.worker.child.Processor`."""
        for task in tasks:
            if task is None:
                continue
            emit(Started(task.token))
            try:
                emit(self._cluster(task, emit))
            except Exception as error:
                emit(Failed(task.token, Failure.of(error)))

    def _check_settings(self, task: Task) -> None:
        """Refuse a job of other clustering settings: its cluster would be stale at once, for ever.

        Raises:
            SettingsError: the job was queued for other settings than this worker's.
        """
        _, _, wanted = task.stamp.rpartition("-")
        if wanted and not self.params.fingerprint.startswith(wanted):
            raise SettingsError(
                f"{task.key} was queued for clustering settings {wanted}, but this worker has "
                f"{self.params.fingerprint[:12]}.",
                hint="Give workers and the Dagster host the same REDDIT_… clustering settings "
                "and the same version, then retry the dead letter.",
            )

    def _cluster(self, task: Task, emit: Callable[[Event], None]) -> Finished:
        self._check_settings(task)
        # Whatever has an embedding now goes in, and what has none is named in the footer: its
        # arrival makes the cluster stale.
        status = self._workspace.scanner(settle_seconds=0).subreddit(task.key)
        keys = [file.key for file in status.files if file.verdict.done]
        missing = [file.key for file in status.files if not file.verdict.done]
        if not task.force and not missing and (fresh := self._existing(task, status)):
            return fresh
        if not keys:
            raise ClusteringError(
                f"{task.key} has no embedding file of a chain file.",
                hint="Embed its files first; the scan then queues the cluster.",
            )
        result = cluster_subreddit(
            self.layout,
            task.key,
            keys,
            self.params,
            token=task.token,
            excluded=missing,
            job_id=task.job_id,
            writer={"host": socket.gethostname(), **self._versions},
            progress=lambda stage: emit(Progress(task.token, 0)),
        )
        metadata: dict[str, Any] = {
            **result.metadata,
            "host": socket.gethostname(),
            "device": "cpu",
            "backend": self.params.reduction,
            "path": str(self.layout.cluster_path(task.key)),
            "map": str(self.layout.cluster_dir(task.key) / "map.html"),
            "job_id": task.job_id,
            "top_clusters": result.table,
        }
        if result.png is not None and len(result.png) <= _LARGEST_PICTURE:
            metadata["map_png"] = base64.b64encode(result.png).decode("ascii")
        return Finished(
            task.token,
            result.files,
            data_version=result.data_version,
            metadata=metadata,
            rows=result.rows,
            seconds=result.seconds,
        )

    def _existing(self, task: Task, status: SubredditStatus) -> Finished | None:
        """The output if it is fresh and may be taken as it is."""
        cluster = status.cluster
        if cluster is None or cluster.verdict is not Verdict.FRESH:
            return None
        output = read_output(self.layout.cluster_path(task.key))
        provenance = output.provenance
        return Finished(
            task.token,
            (),
            data_version=output.data_version,
            outcome="fresh",
            metadata={
                "rows": output.rows,
                **(provenance.summary if isinstance(provenance, ClusterProvenance) else {}),
                "path": str(output.path),
                "job_id": task.job_id,
            },
        )
