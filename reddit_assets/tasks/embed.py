"""Embedding: chain files in, embedding files (still under their temporary names) out."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from reddit_assets.corpus.fingerprints import EXACT, text_stamp
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.provenance import EmbeddingProvenance, read_output, text_facts
from reddit_assets.corpus.texts import text_rule
from reddit_assets.corpus.vectors import VectorFormat
from reddit_assets.corpus.wanted import claim_wanted_model
from reddit_assets.engines.embedding.model import find_model
from reddit_assets.engines.embedding.select import open_embedder
from reddit_assets.errors import Failure, NonconformantError, SettingsError
from reddit_assets.ledger.job import Claim, Result
from reddit_assets.settings import Settings
from reddit_assets.tasks.filework import FileJob, FileResult
from reddit_assets.tasks.messages import Event, Failed, Finished, Progress, Started
from reddit_assets.tasks.pipeline import FilePipeline, identity_of
from reddit_assets.workspace import Workspace

__all__ = ["EmbedTask"]


class EmbedTask:
    """Holds the engine, and feeds claims to its file pipeline.

    Raises:
        ModelNotFoundError, ModelMismatchError, BackendUnavailableError, NonconformantError: this
            host cannot embed for this tree.
    """

    silent: ClassVar[bool] = False

    def __init__(self, settings: Settings, layout: Layout) -> None:
        self.layout = layout
        self._workspace = Workspace.of_trees(settings, layout)
        self._text_columns = text_rule(settings.text_columns)
        self._vectors = VectorFormat.from_settings(settings)
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
        self._described = {
            **self.embedder.describe(),
            "reason": self.embedder.reason,
            "model": self.model.fingerprint,
        }

    def facts(self) -> dict[str, object]:
        """Backend, device, precision, versions, why they were chosen, and the model."""
        return self._described

    def run(self, claims: Iterator[Claim | None], emit: Callable[[Event], None]) -> None:
        """As :class:`~reddit_assets.tasks.messages.Task`."""
        report = _Report(emit, self._result)
        pipeline = FilePipeline(
            self.embedder, report, text_columns=self._text_columns, vectors=self._vectors
        )
        pipeline.run(self._jobs(claims, emit))

    def _jobs(
        self, claims: Iterator[Claim | None], emit: Callable[[Event], None]
    ) -> Iterator[FileJob | None]:
        """The claims as file jobs; outputs that are fresh already are reported and left out."""
        for claim in claims:
            if claim is None:
                yield None
                continue
            # Before anything of the job is opened: whatever kills the process is this job's doing.
            emit(Started(claim.token))
            try:
                self._check_settings(claim)
                existing = self._existing(claim)
            except Exception as error:
                emit(Failed(claim.token, Failure.of(error)))
                continue
            if existing is not None:
                emit(existing)
                continue
            yield FileJob(
                token=claim.token,
                key=claim.key,
                source=self.layout.chain_path(claim.key),
                output=self.layout.embedding_path(claim.key),
                job_id=claim.id,
            )

    def _check_settings(self, claim: Claim) -> None:
        """Refuse what would be stale at once, or cannot be read on this host now.

        Raises:
            SettingsError: the job was queued for other text columns than this worker's.
            NonconformantError: it was queued since the vectors are inexact, as this worker's are.
            UnreadableFileError: the chain files are away.
        """
        self.layout.check_mounted()
        parts = claim.stamp.removesuffix(EXACT).split("-")
        conformance = self.embedder.conformance or {"conformant": True}
        if claim.stamp.endswith(EXACT) and not conformance["conformant"]:
            raise NonconformantError(
                f"{claim.key} was queued since its vectors are inexact; this worker's are, too.",
                hint="Set REDDIT_ALLOW_NONCONFORMANT where scans run as well, or let an exact "
                "backend embed.",
                host_fault=True,
            )
        if len(parts) == 3 and parts[2] != text_stamp(self._text_columns):
            raise SettingsError(
                f"{claim.key} was queued for other text columns than this worker's.",
                hint="Give workers and the Dagster host the same REDDIT_TEXT_COLUMNS.",
                host_fault=True,
            )

    def _existing(self, claim: Claim) -> Finished | None:
        """The output if it is fresh and may be taken as it is."""
        if claim.force or claim.stamp.endswith(EXACT):
            return None
        status = self._workspace.scanner(deep=True, settle_seconds=0).file(claim.key)
        if status is None or not status.verdict.done:
            return None
        output = read_output(self.layout.embedding_path(claim.key))
        made = output.provenance
        own = made if isinstance(made, EmbeddingProvenance) else None
        return Finished(
            claim.token,
            Result(
                job=claim.id,
                asset=claim.kind.asset,
                partition=claim.key,
                outcome="fresh",
                data_version=output.data_version,
                source_version=own.source.fingerprint if own else "",
                metadata={
                    "rows": output.rows,
                    "adopted": own is None,
                    "path": str(output.path),
                    "job_id": claim.id,
                    **(text_facts(own) if own else {}),
                },
            ),
        )

    def _result(self, job: FileJob, made: FileResult) -> Result:
        seconds = made.seconds
        metadata: dict[str, Any] = {
            "rows": made.rows,
            "tokens": made.tokens,
            "seconds": round(seconds, 3),
            "rows_per_second": round(made.rows / seconds, 1) if seconds else 0.0,
            "device": self._described.get("device"),
            "backend": self._described.get("backend"),
            "precision": self._described.get("precision"),
            "tokenizer": self.embedder.tokenizer.describe(),
            "host": socket.gethostname(),
            "bytes": made.size,
            "model": self.model.name,
            "path": str(job.output),
            "job_id": job.job_id,
            **text_facts(made.provenance),
        }
        return Result(
            job=job.job_id,
            asset="embeddings",
            partition=job.key,
            data_version=made.data_version,
            source_version=made.source_version,
            metadata=metadata,
        )


class _Report:
    """Turns the pipeline's callbacks into the child's events."""

    def __init__(
        self, emit: Callable[[Event], None], result: Callable[[FileJob, FileResult], Result]
    ) -> None:
        self._emit = emit
        self._result = result

    def started(self, job: FileJob) -> None:
        """Said already, before the job was looked at."""

    def progress(self, job: FileJob, rows: int) -> None:
        self._emit(Progress(job.token, rows))

    def finished(self, job: FileJob, result: FileResult) -> None:
        self._emit(
            Finished(
                job.token,
                self._result(job, result),
                ((result.temporary, job.output),),
                rows=result.rows,
                tokens=result.tokens,
                seconds=result.seconds,
            )
        )

    def failed(self, job: FileJob, error: Exception) -> None:
        self._emit(Failed(job.token, Failure.of(error)))
