"""Embedding tasks: chain file in, embedding file (still under its temporary name) out."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from reddit_assets.catalog.chainfile import ChainFile, texts_of
from reddit_assets.catalog.fingerprints import embedding_version
from reddit_assets.catalog.footer import EmbeddingFooter, ModelIdentity, read_output
from reddit_assets.catalog.layout import Layout
from reddit_assets.catalog.output import EmbeddingWriter, temporary_path
from reddit_assets.catalog.scan import Scanner, ScanOptions
from reddit_assets.catalog.wanted import claim_wanted_model
from reddit_assets.embedding.model import find_model
from reddit_assets.embedding.select import open_embedder
from reddit_assets.jobqueue.job import Failure
from reddit_assets.settings import Settings
from reddit_assets.worker.messages import Event, Failed, Finished, Progress, Started, Task

__all__ = ["EmbedProcessor"]


class EmbedProcessor:
    """Holds the engine; one file after the other.

    Raises:
        ModelNotFoundError, ModelMismatchError, BackendUnavailableError, NonconformantError: this
            host cannot embed for this tree.
    """

    def __init__(self, settings: Settings, layout: Layout) -> None:
        self.layout = layout
        self.settings = settings
        spec = find_model(settings.model, settings.model_dir)
        self.model = ModelIdentity(
            name=spec.name,
            fingerprint=spec.fingerprint,
            dimension=spec.dimension,
            max_tokens=spec.max_tokens,
            pooling=spec.pooling,
        )
        claim_wanted_model(layout, self.model)
        self.embedder = open_embedder(
            spec,
            backend=settings.backend,
            device=settings.device,
            precision=settings.precision,
            threads=settings.threads,
            batch_tokens=settings.batch_tokens,
            window_rows=settings.window_rows,
            allow_nonconformant=settings.allow_nonconformant,
        )
        self._described = self.embedder.describe()

    def facts(self) -> dict[str, object]:
        """Backend, device, precision, versions."""
        return self._described

    def run(self, tasks: Iterator[Task | None], emit: Callable[[Event], None]) -> None:
        """As :class:`~reddit_assets.worker.child.Processor`."""
        for task in tasks:
            if task is None:
                continue
            emit(Started(task.token))
            try:
                emit(self._existing(task) or self._embed(task, emit))
            except Exception as error:
                emit(Failed(task.token, Failure.of(error)))

    def _existing(self, task: Task) -> Finished | None:
        """The output if it is fresh and may be taken as it is."""
        if task.force:
            return None
        options = ScanOptions(deep=True, settle_seconds=0, adopt=self.settings.adopt)
        status = Scanner(self.layout, options).file(task.key)
        if status is None or not status.verdict.done:
            return None
        output = read_output(self.layout.embedding_path(task.key))
        footer = output.footer
        own = isinstance(footer, EmbeddingFooter)
        return Finished(
            task.token,
            (),
            data_version=output.data_version,
            source_version=footer.source.fingerprint if isinstance(footer, EmbeddingFooter) else "",
            outcome="fresh",
            metadata={
                "rows": output.rows,
                "adopted": not own,
                "path": str(output.path),
                "job_id": task.job_id,
            },
        )

    def _embed(self, task: Task, emit: Callable[[Event], None]) -> Finished:
        started = time.perf_counter()
        output = self.layout.embedding_path(task.key)
        temporary = temporary_path(output, task.token)
        tokens = 0
        with ChainFile(self.layout.chain_path(task.key)) as chain:
            with EmbeddingWriter(temporary, chain.schema, self.model.dimension) as writer:
                for batch in chain.batches(self.settings.window_rows):
                    encoded = self.embedder.encode_counted(texts_of(batch, chain.text_column))
                    writer.write(batch, encoded.vectors)
                    tokens += int(encoded.tokens.sum())
                    emit(Progress(task.token, batch.num_rows))
                chain.verify_unchanged()
                version = embedding_version(chain.source.fingerprint, self.model.fingerprint)
                seconds = time.perf_counter() - started
                size = writer.finish(
                    EmbeddingFooter(
                        key=task.key,
                        data_version=version,
                        source=chain.source,
                        model=self.model,
                        writer={"host": socket.gethostname(), **self._described},
                        tokens=tokens,
                        seconds=seconds,
                        text_column=chain.text_column,
                        job_id=task.job_id,
                        written_at=time.time(),
                    )
                )
            return Finished(
                task.token,
                ((temporary, output),),
                data_version=version,
                source_version=chain.source.fingerprint,
                metadata=self._metadata(task, chain.rows, tokens, seconds, size, str(output)),
                rows=chain.rows,
                tokens=tokens,
                seconds=seconds,
            )

    def _metadata(
        self, task: Task, rows: int, tokens: int, seconds: float, size: int, path: str
    ) -> dict[str, Any]:
        return {
            "rows": rows,
            "tokens": tokens,
            "seconds": round(seconds, 3),
            "rows_per_second": round(rows / seconds, 1) if seconds else 0.0,
            "device": self._described.get("device"),
            "backend": self._described.get("backend"),
            "precision": self._described.get("precision"),
            "host": socket.gethostname(),
            "bytes": size,
            "model": self.model.name,
            "path": path,
            "job_id": task.job_id,
        }
