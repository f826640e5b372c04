"""The model in a worker that clusters: it embeds phrases that may name clusters, where it is here.

A host that only clusters needs neither the model nor a backend; names are then chosen by words.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reddit_assets.corpus.provenance import EmbeddingProvenance, OutputFile
from reddit_assets.errors import RedditAssetsError
from reddit_assets.settings import Settings

if TYPE_CHECKING:
    from reddit_assets.engines.embedding.engine import Embedder
    from reddit_assets.engines.embedding.model import ModelSpec

__all__ = ["HostModel"]

log = logging.getLogger(__name__)

#: In fp32 they agree to the last digits: which is there decides no name.
BACKENDS = ("onnx", "openvino", "torch")


class HostModel:
    """The model of this host; loaded when phrases are first embedded, then kept.

    Attributes:
        why: why names are chosen without it, a clause; empty where it has a say.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._spec: ModelSpec | None = None
        self._looked = False
        self._embedder: Embedder | None = None
        self._refused = ""
        self.why = ""
        self.here = False

    def made(self, files: Sequence[OutputFile]) -> HostModel:
        """The same, once it is known whether it made the vectors of these files."""
        made = {
            file.provenance.model.fingerprint
            for file in files
            if isinstance(file.provenance, EmbeddingProvenance)
        }
        self.why = self._unlike(made)
        self.here = not self.why
        return self

    def _unlike(self, made: set[str]) -> str:
        # Imported where they are needed: a host that only clusters has no tokenizer.
        if self._settings.names == "words":
            return "REDDIT_NAMES is words"
        if not made:
            return "the earlier system made the vectors"
        if not self._backends():
            return "no backend is installed here"
        if not self._looked:
            from reddit_assets.engines.embedding.model import find_model

            self._looked = True
            try:
                self._spec = find_model(
                    self._settings.model, self._settings.model_dir, download=False
                )
            except RedditAssetsError as error:
                log.info("Names are chosen by words: %s", error)
        if self._spec is None:
            return "the model is not on this host"
        if made != {self._spec.fingerprint}:
            return f"another model than {self._spec.name} made the vectors"
        return self._refused

    def _backends(self) -> list[str]:
        from reddit_assets.engines.embedding.choice import PACKAGES

        if find_spec("tokenizers") is None:
            return []
        return [one for one in BACKENDS if all(find_spec(name) for name in PACKAGES[one])]

    def encode(self, phrases: Sequence[str]) -> NDArray[np.float32] | None:
        """As of :class:`~reddit_assets.engines.clustering.names.PhraseModel`."""
        try:
            embedder = self._opened()
            return embedder.encode(list(phrases)) if embedder is not None else None
        except RedditAssetsError as error:
            log.warning("Names are chosen by words: %s", error)
            self._refused = self.why = "the model cannot compute here"
            return None

    def _opened(self) -> Embedder | None:
        """The model on the first backend that can be opened.

        Raises:
            RedditAssetsError: of the last, if none can.
        """
        from reddit_assets.engines.embedding.select import open_embedder

        refused: RedditAssetsError | None = None
        for backend in self._backends() if self._embedder is None and self._spec else ():
            assert self._spec is not None
            try:
                self._embedder = open_embedder(
                    self._spec,
                    backend=backend,
                    device="cpu",
                    precision="fp32",
                    threads=self._settings.threads,
                )
                break
            except RedditAssetsError as error:
                refused = error
        if self._embedder is None and refused is not None:
            raise refused
        return self._embedder
