"""Function words of languages that no list covers, by how they are spread over the clusters.

In texts of one language a function word is as frequent in one cluster as in another, whatever they
are about; a word with a meaning is not. So clusters are grouped by their most frequent words, which
are their language's function words, and in each group the frequent words of an even rate are
found. Groups whose frequent words are stop words anyway are left to the list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.sparse.csgraph import connected_components

from reddit_assets.engines.clustering.keywords import tokens
from reddit_assets.engines.clustering.words import STOP_WORDS

__all__ = ["function_words"]

#: Texts of a cluster that are looked at, first and at most.
FEW, TEXTS = 10, 100
#: Most frequent words of a cluster, how many of them two clusters of a language share at least,
#: and how many are stop words where the list knows the language.
FREQUENT, SHARED, LISTED = 25, 6, 6
#: Clusters that a language must have to be judged.
CLUSTERS = 3
#: Share of a language's texts, or of its words, that a function word makes at least.
IN_TEXTS, OF_WORDS = 0.1, 0.002
#: Variation of a word's rate between clusters, per its mean, chance left out: below it is even.
EVEN = 0.6


def function_words(texts: Sequence[Sequence[str]]) -> list[frozenset[str]]:
    """The function words of each cluster's language, in lower case; none where a list has them.

    Args:
        texts: of each cluster.
    """
    counted: dict[int, _Counted] = {}
    for at, some in enumerate(texts):
        # A look at few texts tells nearly all clusters whose language is listed.
        if not _Counted(some[:FEW]).listed and not (whole := _Counted(some[:TEXTS])).listed:
            counted[at] = whole
    found = [frozenset[str]()] * len(texts)
    unknown = list(counted)
    for group in _languages(list(counted.values())):
        if len(group) >= CLUSTERS:
            even = _even([counted[unknown[at]] for at in group])
            for at in group:
                found[unknown[at]] = even
    return found


class _Counted:
    """How often words stand in a cluster, and in how many of its texts."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.occurrences: Counter[str] = Counter()
        self.in_texts: Counter[str] = Counter()
        self.texts = 0
        for text in texts:
            words = tokens(text)
            self.occurrences.update(words)
            self.in_texts.update(set(words))
            self.texts += 1
        self.words = self.occurrences.total()
        ranked = sorted(self.occurrences.items(), key=lambda pair: (-pair[1], pair[0]))
        self.frequent = frozenset(word for word, _ in ranked[:FREQUENT])

    @property
    def listed(self) -> bool:
        """Whether the stop words are of its language."""
        return len(self.frequent & STOP_WORDS) >= LISTED


def _languages(counted: Sequence[_Counted]) -> list[list[int]]:
    """Positions of the clusters that are of one language each."""
    if not counted:
        return []
    share = np.array(
        [[len(one.frequent & other.frequent) >= SHARED for other in counted] for one in counted]
    )
    groups, of = connected_components(share)
    return [np.flatnonzero(of == group).tolist() for group in range(groups)]


def _even(counted: Sequence[_Counted]) -> frozenset[str]:
    """The frequent words whose rate hardly differs between clusters of a language."""
    occurrences: Counter[str] = Counter()
    in_texts: Counter[str] = Counter()
    for one in counted:
        occurrences.update(one.occurrences)
        in_texts.update(one.in_texts)
    words = np.array([one.words for one in counted], dtype=np.float64)
    texts = sum(one.texts for one in counted)
    found = []
    for word, count in occurrences.items():
        if in_texts[word] < IN_TEXTS * texts and count < OF_WORDS * words.sum():
            continue
        rate = count / words.sum()
        here = np.array([one.occurrences[word] for one in counted])
        beyond_chance = ((here - words * rate) ** 2 - words * rate * (1 - rate)).sum()
        variance = max(0.0, float(beyond_chance)) / (words**2).sum()
        if np.sqrt(variance) < EVEN * rate:
            found.append(word)
    return frozenset(found)
