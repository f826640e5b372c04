"""A task with real files and made-up vectors: for tests of everything but the engine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import ClassVar

import numpy as np

from reddit_assets.corpus.chainfile import ChainFile
from reddit_assets.corpus.fingerprints import embedding_version
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.output import EmbeddingWriter, temporary_path
from reddit_assets.corpus.provenance import EmbeddingProvenance, ModelIdentity, read_output
from reddit_assets.corpus.scan import Scanner, ScanOptions
from reddit_assets.corpus.texts import texts_of
from reddit_assets.corpus.wanted import claim_wanted_model
from reddit_assets.errors import Failure
from reddit_assets.ledger.job import Claim, Kind, Result
from reddit_assets.settings import Settings
from reddit_assets.tasks.messages import Event, Failed, Finished, Progress, Started

MODEL = ModelIdentity(name="hash", fingerprint="hash-8", dimension=8, max_tokens=256, pooling="sum")
TASKS = {
    Kind.EMBED: "hash_task:HashTask",
    Kind.CLUSTER: "hash_task:NoClusters",
}


class HashTask:
    """Vectors made of the texts' lengths. Some texts make it misbehave (see ``_obey``)."""

    silent: ClassVar[bool] = True

    def __init__(self, settings: Settings, layout: Layout) -> None:
        self.layout = layout
        claim_wanted_model(layout, MODEL)

    def facts(self) -> dict[str, object]:
        return {"backend": "hash", "device": "cpu", "precision": "exact"}

    def run(self, claims: Iterator[Claim | None], emit: Callable[[Event], None]) -> None:
        for claim in claims:
            if claim is None:
                continue
            emit(Started(claim.token))
            try:
                emit(self._existing(claim) or self._embed(claim, emit))
            except Exception as error:
                emit(Failed(claim.token, Failure.of(error)))

    def _existing(self, claim: Claim) -> Finished | None:
        if claim.force:
            return None
        status = Scanner(self.layout, ScanOptions(deep=True, settle_seconds=0)).file(claim.key)
        if status is None or not status.verdict.done:
            return None
        output = read_output(self.layout.embedding_path(claim.key))
        return Finished(claim.token, self._result(claim, output.data_version, outcome="fresh"))

    def _embed(self, claim: Claim, emit: Callable[[Event], None]) -> Finished:
        output = self.layout.embedding_path(claim.key)
        temporary = temporary_path(output, claim.token)
        with ChainFile(self.layout.chain_path(claim.key)) as chain:
            version = embedding_version(chain.source.fingerprint, MODEL.fingerprint)
            with EmbeddingWriter(temporary, chain.schema, MODEL.dimension) as writer:
                for batch in chain.batches(1000):
                    texts = texts_of(batch, chain.text_column).to_pylist()
                    for text in texts:
                        self._obey(text)
                    vectors = np.zeros((len(texts), MODEL.dimension), np.float32)
                    for row, text in enumerate(texts):
                        vectors[row, len(text) % MODEL.dimension] = 1.0
                    writer.write(batch, vectors)
                    emit(Progress(claim.token, len(texts)))
                chain.verify_unchanged()
                writer.finish(
                    EmbeddingProvenance(
                        key=claim.key,
                        data_version=version,
                        source=chain.source,
                        model=MODEL,
                        writer={"token": claim.token},
                        job_id=claim.id,
                        written_at=time.time(),
                    )
                )
        return Finished(
            claim.token,
            self._result(
                claim,
                version,
                source_version=chain.source.fingerprint,
                metadata={"rows": chain.rows},
            ),
            ((temporary, output),),
            rows=chain.rows,
            seconds=0.001,
        )

    @staticmethod
    def _result(claim: Claim, version: str, **more: object) -> Result:
        return Result(claim.id, "embeddings", claim.key, data_version=version, **more)

    @staticmethod
    def _obey(text: str) -> None:
        if text.startswith("sleep "):
            time.sleep(float(text.split()[1]))
        elif text.startswith("spin "):
            until = time.monotonic() + float(text.split()[1])
            while time.monotonic() < until:
                pass
        elif text == "crash":
            os._exit(3)
        elif text.startswith("crash once "):
            with suppress(FileExistsError):
                os.close(os.open(text.split()[2], os.O_CREAT | os.O_EXCL))
                os._exit(3)
        elif text == "error":
            raise RuntimeError("the text says so")


class NoClusters:
    """Stands in where a test makes no clusters."""

    silent: ClassVar[bool] = True

    def __init__(self, settings: Settings, layout: Layout) -> None:
        pass

    def facts(self) -> dict[str, object]:
        return {}

    def run(self, claims: Iterator[Claim | None], emit: Callable[[Event], None]) -> None:
        for claim in claims:
            if claim is not None:
                emit(Failed(claim.token, Failure("no clusters here", permanent=True)))


def worker_main() -> int:
    """A worker process with this task; settings from the environment."""
    import logging
    import sys

    from reddit_assets.ledger.connection import connect
    from reddit_assets.ledger.queue import JobQueue
    from reddit_assets.settings import load_settings
    from reddit_assets.worker.display import Display
    from reddit_assets.worker.worker import Worker

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    settings = load_settings()
    layout = Layout.from_settings(settings)
    queue = JobQueue(connect(settings), Kind.EMBED)
    until_empty = "--until-empty" in sys.argv
    with Display() as display:
        return Worker(
            [queue],
            settings,
            layout,
            display,
            until_empty=until_empty,
            tasks=TASKS,
        ).run()


if __name__ == "__main__":
    raise SystemExit(worker_main())
