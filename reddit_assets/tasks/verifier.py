"""Verify tasks: a sample of an embedding file computed again by the exact backend."""

from __future__ import annotations

from pathlib import Path

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.provenance import ModelIdentity
from reddit_assets.engines.embedding.engine import Embedder
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.engines.embedding.select import open_embedder
from reddit_assets.errors import BadFileError
from reddit_assets.tasks.messages import Finished, Task
from reddit_assets.tasks.verification import verify_file

__all__ = ["Verifier"]


class Verifier:
    """Holds the exact backend, opened with the first task: fp32 on one thread of the CPU.

    Args:
        spec: the model that this host embeds with.
        model: what footers say of it.
        layout: this host's trees.
    """

    def __init__(self, spec: ModelSpec, model: ModelIdentity, layout: Layout) -> None:
        self._spec = spec
        self._model = model
        self._layout = layout
        self._reference: Embedder | None = None

    def verify(self, task: Task) -> Finished:
        """Compare a sample of the task's embedding file with what the exact backend makes.

        The answer is in the metadata: ``min_cosine``, ``mean_cosine``, ``bound``, ``rows`` and
        ``reference``, or ``problem`` if the file cannot be compared.

        Raises:
            BackendUnavailableError, NonconformantError: no backend here is exact.
        """
        path = self._layout.embedding_path(task.key)
        try:
            metadata = self._compare(path, task)
        except FileNotFoundError:
            metadata = {"problem": "It has vanished.", "vanished": True}
        except BadFileError as error:
            metadata = {"problem": error.message}
        return Finished(task.token, (), data_version="", outcome="verified", metadata=metadata)

    def _compare(self, path: Path, task: Task) -> dict[str, object]:
        if self._reference is None:
            self._reference = open_embedder(self._spec, device="cpu", precision="fp32", threads=1)
        reference = self._reference
        found = verify_file(path, reference, task.verify, seed=int(task.token, 16))
        if found.model not in ("", self._model.fingerprint):
            return {"problem": "It was made with another model.", "rows": found.rows}
        backend = reference.backend
        return {
            "rows": found.rows,
            "min_cosine": found.min_cosine,
            "mean_cosine": found.mean_cosine,
            "bound": found.bound,
            "conformant": found.conformant,
            "reference": f"{backend.name} {backend.precision} on {backend.device}",
        }

    def close(self) -> None:
        """Give back the backend's memory."""
        if self._reference is not None:
            self._reference.close()
            self._reference = None
