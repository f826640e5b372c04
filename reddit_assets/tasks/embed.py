"""Embedding tasks: chain files in, embedding files (still under their temporary names) out."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.provenance import EmbeddingProvenance, read_output
from reddit_assets.corpus.wanted import claim_wanted_model
from reddit_assets.engines.embedding.model import find_model
from reddit_assets.engines.embedding.select import open_embedder
from reddit_assets.errors import Failure
from reddit_assets.settings import Settings
from reddit_assets.tasks.filework import FileJob, FileResult
from reddit_assets.tasks.messages import Event, Failed, Finished, Progress, Started, Task
from reddit_assets.tasks.pipeline import FilePipeline, identity_of
from reddit_assets.tasks.verifier import Verifier
from reddit_assets.workspace import Workspace

__all__ = ["EmbedProcessor"]

log = logging.getLogger(__name__)


class EmbedProcessor:
    """Holds the engine, and feeds tasks to its file pipeline.

    Raises:
        ModelNotFoundError, ModelMismatchError, BackendUnavailableError, NonconformantError: this
            host cannot embed for this tree.
    """

    def __init__(self, settings: Settings, layout: Layout) -> None:
        self.layout = layout
        self._workspace = Workspace.of_trees(settings, layout)
        spec = find_model(settings.model, settings.model_dir)
        self.model = identity_of(spec)
        claim_wanted_model(layout, self.model)
        self.embedder = open_embedder(
            spec,
            backend=settings.backend,
            device=settings.device,
            precision=settings.precision,
            threads=settings.threads,
            max_batch_tokens=settings.max_batch_tokens,
            window_rows=settings.window_rows,
            allow_nonconformant=settings.allow_nonconformant,
        )
        self._verifier = Verifier(spec, self.model, layout)
        self._beside = ThreadPoolExecutor(1, "verify")
        self._described = {**self.embedder.describe(), "reason": self.embedder.reason}

    def facts(self) -> dict[str, object]:
        """Backend, device, precision, versions, and why they were chosen."""
        return self._described

    def run(self, tasks: Iterator[Task | None], emit: Callable[[Event], None]) -> None:
        """As :class:`~reddit_assets.worker.child.Processor`."""
        FilePipeline(self.embedder, _Report(emit, self._metadata)).run(self._jobs(tasks, emit))
        self._beside.shutdown()
        self._verifier.close()

    def verify(self, task: Task, emit: Callable[[Event], None]) -> None:
        """As :class:`~reddit_assets.worker.child.Verifying`."""
        self._beside.submit(self._verify, task, emit)

    def _jobs(
        self, tasks: Iterator[Task | None], emit: Callable[[Event], None]
    ) -> Iterator[FileJob | None]:
        """The tasks as file jobs; outputs that are fresh already are reported and left out."""
        for task in tasks:
            if task is None:
                yield None
                continue
            try:
                existing = self._existing(task)
            except Exception as error:
                emit(Failed(task.token, Failure.of(error)))
                continue
            if existing is not None:
                emit(Started(task.token))
                emit(existing)
                continue
            yield FileJob(
                token=task.token,
                key=task.key,
                source=self.layout.chain_path(task.key),
                output=self.layout.embedding_path(task.key),
                job_id=task.job_id,
            )

    def _verify(self, task: Task, emit: Callable[[Event], None]) -> None:
        emit(Started(task.token))
        try:
            found = self._verifier.verify(task)
        except Exception as error:
            # Not the file's fault, and nothing to try again: the check that asks is told.
            log.warning("%s cannot be verified here: %s", task.key, error)
            unable = {"unable": Failure.of(error).error}
            found = Finished(task.token, (), data_version="", outcome="verified", metadata=unable)
        emit(found)

    def _existing(self, task: Task) -> Finished | None:
        """The output if it is fresh and may be taken as it is."""
        if task.force or not self.layout.embedding_path(task.key).exists():
            return None
        status = self._workspace.scanner(deep=True, settle_seconds=0).file(task.key)
        if status is None or not status.verdict.done:
            return None
        output = read_output(self.layout.embedding_path(task.key))
        provenance = output.provenance
        own = isinstance(provenance, EmbeddingProvenance)
        return Finished(
            task.token,
            (),
            data_version=output.data_version,
            source_version=provenance.source.fingerprint
            if isinstance(provenance, EmbeddingProvenance)
            else "",
            outcome="fresh",
            metadata={
                "rows": output.rows,
                "adopted": not own,
                "path": str(output.path),
                "job_id": task.job_id,
            },
        )

    def _metadata(self, job: FileJob, result: FileResult) -> dict[str, Any]:
        seconds = result.seconds
        return {
            "rows": result.rows,
            "tokens": result.tokens,
            "seconds": round(seconds, 3),
            "rows_per_second": round(result.rows / seconds, 1) if seconds else 0.0,
            "device": self._described.get("device"),
            "backend": self._described.get("backend"),
            "precision": self._described.get("precision"),
            "host": socket.gethostname(),
            "bytes": result.size,
            "model": self.model.name,
            "path": str(job.output),
            "job_id": job.job_id,
        }


class _Report:
    """Turns the pipeline's callbacks into the child's events."""

    def __init__(
        self,
        emit: Callable[[Event], None],
        metadata: Callable[[FileJob, FileResult], dict[str, Any]],
    ) -> None:
        self._emit = emit
        self._metadata = metadata

    def started(self, job: FileJob) -> None:
        self._emit(Started(job.token))

    def progress(self, job: FileJob, rows: int) -> None:
        self._emit(Progress(job.token, rows))

    def finished(self, job: FileJob, result: FileResult) -> None:
        self._emit(
            Finished(
                job.token,
                ((result.temporary, job.output),),
                data_version=result.data_version,
                source_version=result.source_version,
                metadata=self._metadata(job, result),
                rows=result.rows,
                tokens=result.tokens,
                seconds=result.seconds,
            )
        )

    def failed(self, job: FileJob, error: Exception) -> None:
        self._emit(Failed(job.token, Failure.of(error)))
