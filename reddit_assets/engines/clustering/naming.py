"""Names of clusters and of groups of clusters: phrases of their posts, ranked and told apart.

A phrase is worth what two measures say together: c-TF-IDF (how many posts of the group hold its
words, and how few of the others do), and the cosine of its own vector to the group's centroid, less
that to the nearest other groups. Vectors come from the model that made the posts', or, where there
is none, from the posts that hold the phrase. Up to three are taken by maximal marginal relevance
(Carbonell and Goldstein 1998). Upper levels choose among the best phrases of what they consist of.

Everything is deterministic: ties go by the alphabet, scores are rounded before they are compared.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.grouping import rows_by_label
from reddit_assets.engines.clustering.phrases import Phrase, phrases_of, runs_of, stems_of

__all__ = ["Candidate", "Encode", "Namer", "told_apart"]

#: Vectors of phrases: float32 (phrases, d), unit rows; ``None`` where it cannot compute.
Encode = Callable[[Sequence[str]], NDArray[np.float32] | None]

#: Phrases of a cluster that are compared with its centroid, and of all clusters together.
CANDIDATES, ALL_CANDIDATES, FEWEST = 32, 20_000, 6
#: Typical texts of a cluster, whose titles give phrases that stand nowhere else.
TYPICAL = 8
#: Share of a cluster's texts that must hold another phrase.
LEAST = 0.03
#: Posts that are taken off a phrase's count: what few hold is chance.
SHRINK = 0.7
#: A phrase of two, three or four words says more than one, and is rarer.
LONGER = (1.0, 1.3, 1.45, 1.5)
#: Share of a phrase's texts that do not hold a longer one, from which on it is worth less.
REST = 0.6
#: Weights of c-TF-IDF and of the cosine with the model's vectors, and without a model, whose word
#: counts for little; of the nearest other groups in the cosine.
MIXED, UNAIDED = (2.0, 0.6), (3.0, 0.3)
CONTRAST, NEAREST = 0.7, 3
#: What a phrase is worth that stands in one title alone, and its words at most.
ONCE, ONCE_WORDS = 0.6, 2
#: Weight of relevance against likeness to what is chosen, and the cosine that is the same thing.
RELEVANCE, SAME = 0.75, 0.8
#: Letters that two words of a name must not have in common at their beginning.
ROOT = 6
#: What a second and a third phrase may be worse than the first by, and how far from the centroid.
WORSE, FARTHEST = (3.4, 2.2), 0.5
#: Posts whose mean stands for a phrase without a model.
HOLDERS = 200


@dataclass(frozen=True)
class Candidate:
    """A phrase that may name.

    Attributes:
        key: its words in lower case.
        shown: as it is written.
        stems: of its words that say something.
        texts: int64, positions of all texts that hold these, whatever their order.
        worth: factor of its weight.
    """

    key: str
    shown: str
    stems: frozenset[str]
    texts: NDArray[np.int64]
    worth: float = 1.0


class Namer:
    """Chooses names for groups of some texts.

    Args:
        texts: of posts.
        labels: int (texts,), the cluster of each.
        vectors: float32 (texts, d), unit rows.
        centroids: float32 (clusters, d).
        function_words: of each cluster, in lower case.
        wanted: clusters whose phrases are looked for.
        encode: the model; ``None`` where there is none.

    Attributes:
        candidates: phrases of each wanted cluster, best first by c-TF-IDF.
        by_model: whether their vectors are the model's.
    """

    def __init__(
        self,
        texts: Sequence[str],
        labels: NDArray[np.int64],
        vectors: NDArray[np.float32],
        centroids: NDArray[np.float32],
        function_words: Sequence[frozenset[str]],
        wanted: Sequence[int],
        encode: Encode | None = None,
    ) -> None:
        self._labels, self._vectors = labels, vectors
        held: dict[str, list[int]] = defaultdict(list)
        runs = []
        for at, text in enumerate(texts):
            mine = runs_of(text, function_words[int(labels[at])])
            runs.append(mine)
            for root in stems_of(mine):
                held[root].append(at)
        self._held = {root: np.array(rows, dtype=np.int64) for root, rows in held.items()}
        most = max(FEWEST, min(CANDIDATES, ALL_CANDIDATES // max(1, len(wanted))))
        members = rows_by_label(labels.astype(np.int32), len(centroids))
        self.candidates: dict[int, list[Candidate]] = {}
        for number in wanted:
            rows = members[number]
            near = np.round(vectors[rows] @ centroids[number], 4)
            typical = set(np.argsort(-near, kind="stable")[:TYPICAL].tolist())
            least = max(2, math.ceil(LEAST * len(rows)))
            phrases = phrases_of([runs[row] for row in rows], typical, least)
            self.candidates[number] = self._best(phrases, number, most)
        every = {one.key: one for some in self.candidates.values() for one in some}
        keys = sorted(every)
        made = encode(keys) if encode is not None and keys else None
        self.by_model = made is not None
        self._mix = UNAIDED if made is None else MIXED
        if made is None:
            made = np.array([self._mean(every[key]) for key in keys], dtype=np.float32)
        self._phrases = dict(zip(keys, made, strict=True))

    def _best(self, phrases: Mapping[str, Phrase], number: int, most: int) -> list[Candidate]:
        """The phrases of a cluster with the largest weight, most first."""
        found = []
        counts = np.bincount(self._labels)
        for key, phrase in phrases.items():
            if phrase.texts == 1 and len(phrase.stems) > ONCE_WORDS:
                continue
            rows = self._holders(phrase.stems)
            inside = int((self._labels[rows] == number).sum())
            if inside >= 2 or inside == counts[number]:
                stems, worth = frozenset(phrase.stems), ONCE if phrase.texts == 1 else 1.0
                one = Candidate(key, phrase.shown, stems, rows, worth)
                found.append((_weight(one, inside, counts[number], counts), inside, one))
        found.sort(key=lambda entry: (-round(entry[0], 6), entry[2].key))
        return _without_parts([(inside, one) for _, inside, one in found[:most]])

    def _holders(self, stems: Sequence[str]) -> NDArray[np.int64]:
        """The texts that hold all of these words."""
        rows = self._held[stems[0]]
        for root in stems[1:]:
            rows = np.intersect1d(rows, self._held[root], assume_unique=True)
        return rows

    def _mean(self, one: Candidate) -> NDArray[np.float32]:
        """What stands for a phrase's vector without a model: the mean of posts that hold it."""
        mean = self._vectors[one.texts[:HOLDERS]].mean(axis=0)
        return np.asarray(mean / (np.linalg.norm(mean) or 1.0), dtype=np.float32)

    def names(
        self,
        groups: NDArray[np.int64],
        centroids: NDArray[np.float32],
        candidates: Mapping[int, Sequence[Candidate]],
    ) -> dict[int, list[str]]:
        """The phrases of each group that has candidates, best first: some more than a name takes.

        Args:
            groups: int (clusters,), the group of each cluster.
            centroids: float32 (groups, d), unit rows.
            candidates: of each group to name.
        """
        of_texts = groups[self._labels]
        sizes = np.bincount(of_texts, minlength=len(centroids))
        chosen = {}
        for group, some in candidates.items():
            inside = [int((of_texts[one.texts] == group).sum()) for one in some]
            pairs = zip(some, inside, strict=True)
            weights = np.array([_weight(one, count, sizes[group], sizes) for one, count in pairs])
            chosen[group] = self._chosen(some, weights, group, centroids)
        return chosen

    def _chosen(
        self,
        candidates: Sequence[Candidate],
        weights: NDArray[np.float64],
        group: int,
        centroids: NDArray[np.float32],
    ) -> list[str]:
        if not candidates:
            return []
        vectors = np.stack([self._phrases[one.key] for one in candidates])
        cosines = vectors @ centroids.T
        own = cosines[:, group]
        others = np.sort(np.delete(cosines, group, axis=1), axis=1)[:, -NEAREST:]
        close = own - CONTRAST * (others.mean(axis=1) if others.shape[1] else 0.0)
        distance = (close - close.max()) / (close.std() + 1e-6)
        by_counts, by_cosine = self._mix
        scores = np.round(by_counts * weights / max(weights.max(), 1e-9) + by_cosine * distance, 4)
        alike = vectors @ vectors.T
        left = [at for at in range(len(candidates)) if own[at] >= FARTHEST * own.max()]
        taken: list[int] = []
        roots: set[str] = set()
        while left and len(taken) < 6:
            near = alike[:, taken].max(axis=1) if taken else np.zeros(len(candidates))
            value = np.round(RELEVANCE * scores - (1 - RELEVANCE) * 2 * near, 4)
            best = min(left, key=lambda at: (-value[at], candidates[at].key))
            if taken and scores[best] < scores[taken[0]] - WORSE[min(len(taken), 2) - 1]:
                break
            taken.append(best)
            roots |= {root[:ROOT] for root in candidates[best].stems}
            left = [
                at
                for at in left
                if at != best
                and alike[at, best] < SAME
                and not {root[:ROOT] for root in candidates[at].stems} & roots
            ]
        return [candidates[at].shown for at in taken]


def _without_parts(candidates: Sequence[tuple[int, Candidate]]) -> list[Candidate]:
    """Candidates, those worth less that mostly stand in a longer one: "beef" in "Beef Wellington".

    Args:
        candidates: with the number of texts of the cluster that hold each.
    """
    found = []
    for inside, one in candidates:
        longer = max((count for count, other in candidates if one.stems < other.stems), default=0)
        rest = 1 - longer / inside
        found.append(replace(one, worth=one.worth * rest) if rest <= REST else one)
    return found


def _weight(one: Candidate, inside: int, size: int, sizes: NDArray[np.int64]) -> float:
    """c-TF-IDF of a phrase that so many texts of a group hold."""
    average = sizes.sum() / max(1, np.count_nonzero(sizes))
    weight = (inside - SHRINK) / max(size, 1) * math.log(1 + average / max(len(one.texts), 1))
    return float(one.worth * max(weight, 0.0) * LONGER[min(len(one.stems), len(LONGER)) - 1])


def told_apart(
    phrases: Mapping[int, Sequence[str]],
    taken: Mapping[int, str],
    further: Mapping[int, Sequence[str]] | None = None,
    size: int = 3,
) -> dict[int, str]:
    """A name of each group, of its first phrases; no two alike.

    Equal names get further phrases, then one of ``further``, and where there is none, a number.

    Args:
        phrases: of each group to name, best first; the first group goes first.
        taken: names that stay.
        further: words that may tell a group's name from an equal one.
        size: phrases of a name.
    """
    used = {name.casefold() for name in taken.values()}
    names = {}
    for group, some in phrases.items():
        choices = [", ".join(some[:count]) for count in range(min(size, len(some)), len(some) + 1)]
        longest = choices[-1]
        rest = [one for one in (further or {}).get(group, ()) if one not in longest.casefold()]
        choices += [f"{longest}, {one}" for one in rest]
        numbered = (f"{longest} ({number})" for number in itertools.count(2))
        name = next(one for one in itertools.chain(choices, numbered) if one.casefold() not in used)
        used.add(name.casefold())
        names[group] = name[:1].upper() + name[1:]
    return names
