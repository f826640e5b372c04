"""Verdicts from what a scan has read. Pure functions: no file is opened here."""

from __future__ import annotations

from typing import NamedTuple

from reddit_assets.corpus.facts import AdoptedFacts, ClusterFacts, EmbeddingFacts, Facts
from reddit_assets.corpus.fingerprints import Stamp
from reddit_assets.corpus.provenance import EmbeddingProvenance, ModelIdentity, OutputFile
from reddit_assets.corpus.verdicts import Reason, ScanOptions, Verdict

__all__ = ["Judgement", "judge_cluster", "judge_complete", "judge_embedding"]


class Judgement(NamedTuple):
    """A verdict with its reason."""

    verdict: Verdict
    reason: Reason | None = None
    detail: str = ""
    empty_texts: float = 0.0


def judge_embedding(
    facts: Facts, chain: Stamp, options: ScanOptions, model: ModelIdentity | None
) -> Judgement:
    """Judges an embedding file, leaving aside the content of its chain file.

    Where it is fresh and ``facts.source`` is not ``chain``, the contents decide.

    Args:
        model: the wanted one; ``None`` while no worker has stated one.
    """
    if isinstance(facts, AdoptedFacts):
        if not options.adopt:
            return Judgement(Verdict.STALE, Reason.NOT_ADOPTED)
        # The file does not say what it was made from: times decide.
        if facts.stamp.mtime_ns < chain.mtime_ns:
            return Judgement(Verdict.STALE, Reason.OLDER)
        if options.text_columns:
            return Judgement(Verdict.STALE, Reason.OTHER_TEXT, "those of the earlier system")
        if model is not None and facts.dimension not in (0, model.dimension):
            return Judgement(Verdict.STALE, Reason.OTHER_MODEL, f"{facts.dimension} dimensions")
        return Judgement(Verdict.ADOPTED)
    if isinstance(facts, ClusterFacts):
        return Judgement(Verdict.STALE, Reason.OTHER_KIND)
    if facts.made_for:
        return Judgement(Verdict.STALE, Reason.OTHER_KEY, facts.made_for)
    if model is not None and facts.model != model.fingerprint:
        return Judgement(Verdict.STALE, Reason.OTHER_MODEL, facts.model_name)
    if not (facts.conformant or options.nonconformant):
        return Judgement(Verdict.STALE, Reason.NONCONFORMANT)
    if facts.text_columns != options.text_columns:
        return Judgement(Verdict.STALE, Reason.OTHER_TEXT, facts.text_columns or "the usual ones")
    if facts.source_size != chain.size:
        return Judgement(Verdict.STALE, Reason.SOURCE_CHANGED)
    return Judgement(Verdict.FRESH, empty_texts=facts.empty_texts)


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


def judge_cluster(
    facts: Facts, inputs_hash: str, newest_ns: int, options: ScanOptions
) -> Judgement:
    """Judges a clustered file whose inputs are all there.

    Args:
        inputs_hash: of the data versions of the files that belong to it.
        newest_ns: when the newest of them changed.
    """
    if isinstance(facts, AdoptedFacts):
        if not options.adopt:
            return Judgement(Verdict.STALE, Reason.NOT_ADOPTED)
        if facts.stamp.mtime_ns <= newest_ns:
            return Judgement(Verdict.STALE, Reason.OLDER)
        return Judgement(Verdict.ADOPTED)
    if isinstance(facts, EmbeddingFacts):
        return Judgement(Verdict.STALE, Reason.OTHER_KIND)
    if facts.inputs_hash != inputs_hash:
        return Judgement(Verdict.STALE, Reason.INPUTS_CHANGED)
    if options.settings_fingerprint not in (None, facts.settings):
        return Judgement(Verdict.STALE, Reason.OTHER_SETTINGS)
    return Judgement(Verdict.FRESH)
