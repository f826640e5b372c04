"""Verdicts from what a scan has read. Pure functions: no file is opened here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from reddit_assets.corpus.facts import AdoptedFacts, ClusterFacts, EmbeddingFacts, Facts
from reddit_assets.corpus.fingerprints import Stamp
from reddit_assets.corpus.provenance import EmbeddingProvenance, ModelIdentity, OutputFile
from reddit_assets.corpus.verdicts import Reason, Verdict

__all__ = ["Judgement", "Wanted", "judge_cluster", "judge_complete", "judge_embedding"]


class Judgement(NamedTuple):
    """A verdict with its reason."""

    verdict: Verdict
    reason: Reason | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What outputs must have been made with.

    Attributes:
        model: ``None`` while no worker has stated one.
        settings: fingerprint of the clustering settings; ``None`` leaves clusters unjudged by it.
        adopt: whether files of the earlier system are accepted.
        nonconformant: whether files of nonconformant backends are.
    """

    model: ModelIdentity | None
    settings: str | None
    adopt: bool
    nonconformant: bool


def judge_embedding(facts: Facts, chain: Stamp, wanted: Wanted) -> Judgement:
    """An embedding file, but for the content of its chain file.

    Where it is fresh and ``facts.source`` is not ``chain``, the contents decide.
    """
    if isinstance(facts, AdoptedFacts):
        if not wanted.adopt:
            return Judgement(Verdict.STALE, Reason.NOT_ADOPTED)
        # It does not say what it was made of: times decide.
        if facts.stamp.mtime_ns < chain.mtime_ns:
            return Judgement(Verdict.STALE, Reason.OLDER)
        if wanted.model is not None and facts.dimension not in (0, wanted.model.dimension):
            return Judgement(Verdict.STALE, Reason.OTHER_MODEL, f"{facts.dimension} dimensions")
        return Judgement(Verdict.ADOPTED)
    if isinstance(facts, ClusterFacts):
        return Judgement(Verdict.STALE, Reason.OTHER_KIND)
    if facts.made_for:
        return Judgement(Verdict.STALE, Reason.OTHER_KEY, facts.made_for)
    if wanted.model is not None and facts.model != wanted.model.fingerprint:
        return Judgement(Verdict.STALE, Reason.OTHER_MODEL, facts.model_name)
    if not (facts.conformant or wanted.nonconformant):
        return Judgement(Verdict.STALE, Reason.NONCONFORMANT)
    if facts.source_size != chain.size:
        return Judgement(Verdict.STALE, Reason.SOURCE_CHANGED)
    return Judgement(Verdict.FRESH)


def judge_complete(output: OutputFile) -> Judgement | None:
    """Whether rows and columns are what the provenance says; ``None`` if so. For a deep look."""
    made = output.provenance
    if not isinstance(made, EmbeddingProvenance):
        return None
    for found, wanted, what in (
        (output.rows, made.source.rows, "rows"),
        (output.dimension, made.model.dimension, "dimensions"),
    ):
        if found != wanted:
            return Judgement(Verdict.STALE, Reason.INCOMPLETE, f"{found} of {wanted} {what}")
    return None


def judge_cluster(facts: Facts, inputs_hash: str, newest_ns: int, wanted: Wanted) -> Judgement:
    """A clustered file whose inputs are all there.

    Args:
        inputs_hash: of the data versions of the files that belong into it.
        newest_ns: when the newest of them changed.
    """
    if isinstance(facts, AdoptedFacts):
        if not wanted.adopt:
            return Judgement(Verdict.STALE, Reason.NOT_ADOPTED)
        if facts.stamp.mtime_ns <= newest_ns:
            return Judgement(Verdict.STALE, Reason.OLDER)
        return Judgement(Verdict.ADOPTED)
    if isinstance(facts, EmbeddingFacts):
        return Judgement(Verdict.STALE, Reason.OTHER_KIND)
    if facts.inputs_hash != inputs_hash:
        return Judgement(Verdict.STALE, Reason.INPUTS_CHANGED)
    if wanted.settings is not None and facts.settings != wanted.settings:
        return Judgement(Verdict.STALE, Reason.OTHER_SETTINGS)
    return Judgement(Verdict.FRESH)
