"""Conformance: whether a backend on this host makes the vectors that the fp32 reference makes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reddit_assets.engines.embedding.backends.base import Backend
from reddit_assets.engines.embedding.engine import Embedder
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.engines.embedding.reference import Reference, golden
from reddit_assets.engines.embedding.reference.computed import computed_reference
from reddit_assets.engines.vectors import NORM_TOLERANCE, norms
from reddit_assets.errors import NonconformantError

__all__ = ["BOUNDS", "Conformance", "agreement", "check", "cosines", "demand", "reference_for"]

BOUNDS = {"fp32": 0.99999, "bf16": 0.9998, "fp16": 0.9998, "int8": 0.9998}
"""Smallest cosine to the fp32 reference that each precision may have."""


@dataclass(frozen=True)
class Conformance:
    """What a self-check found.

    Attributes:
        conformant: whether all texts keep the bound and have the reference's number of tokens.
        min_cosine: the worst text's.
        mean_cosine: over all texts.
        bound: the precision's bound.
        same_tokens: whether the tokenizer counts as the reference does.
        reference: ``golden`` (committed), ``sentence-transformers`` (made here, and kept),
            ``computed`` (the same backend in fp32) or ``itself`` (the backend is the only fp32
            one there is for this model).
        texts: texts compared.
    """

    conformant: bool
    min_cosine: float
    mean_cosine: float
    bound: float
    same_tokens: bool
    reference: str
    texts: int

    def describe(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Row-wise cosine of two arrays of shape (n, d), in float64; NaN rows count as −1."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        result = (a * b).sum(axis=1) / lengths
    return np.where(np.isfinite(result), result, -1.0)


def agreement(vectors: np.ndarray, exact: np.ndarray, *, unit: bool) -> np.ndarray:
    """Row-wise cosine to exact vectors, float64, shape (n,).

    Args:
        unit: the vectors must have length one. A cosine does not see the length, and a vector of
            another length is another vector: it counts as −1.
    """
    similar = cosines(vectors, exact)
    if not unit:
        return similar
    return np.where(np.abs(norms(vectors) - 1.0) < NORM_TOLERANCE, similar, -1.0)


def reference_for(spec: ModelSpec) -> Reference | None:
    """The committed reference if it is of this model, else one made here (:mod:`.computed`).

    ``None`` where there is neither.
    """
    reference = golden()
    return reference if reference.fingerprint == spec.fingerprint else computed_reference(spec)


def check(embedder: Embedder, exact: Backend | None = None) -> Conformance:
    """Embed the reference texts and compare; takes a second or two.

    Args:
        embedder: what is to be checked.
        exact: an fp32 backend of the same model, for models without a committed reference.
    """
    reference = reference_for(embedder.spec)
    origin = "golden" if reference is golden() else "sentence-transformers"
    encoded = embedder.encode_counted(golden().texts)
    if reference is None:
        if exact is None:
            origin, vectors = "itself", encoded.vectors
        else:
            origin = "computed"
            vectors = Embedder(embedder.spec, exact).encode(golden().texts)
        reference = Reference(embedder.spec.fingerprint, golden().texts, encoded.tokens, vectors)
    similar = agreement(encoded.vectors, reference.vectors, unit=embedder.spec.normalize)
    bound = BOUNDS[embedder.backend.precision]
    same_tokens = bool(np.array_equal(encoded.tokens, reference.tokens))
    return Conformance(
        conformant=same_tokens and bool(similar.min() >= bound),
        min_cosine=float(similar.min()),
        mean_cosine=float(similar.mean()),
        bound=bound,
        same_tokens=same_tokens,
        reference=origin,
        texts=len(similar),
    )


def demand(embedder: Embedder, found: Conformance) -> None:
    """Refuse a backend that is not conformant.

    Raises:
        NonconformantError: with what was measured and what to use instead.
    """
    if found.conformant:
        return
    backend = embedder.backend
    what = f"{backend.name} {backend.precision} on {backend.device}"
    reason = (
        f"its smallest cosine to the fp32 reference is {found.min_cosine:.6f}, under the bound "
        f"of {found.bound}"
        if found.same_tokens
        else "its tokenizer splits the reference texts differently"
    )
    raise NonconformantError(
        f"{what} is not conformant: {reason}.",
        hint="Use --precision auto, or --allow-nonconformant, which marks the files it makes.",
    )
