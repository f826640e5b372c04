"""The names of clusters and themes from night to night: most stay, the others are chosen again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.naming import Candidate, Encode, Namer, told_apart
from reddit_assets.engines.clustering.results import Clustering

__all__ = ["ClusterName", "Named", "PhraseModel", "Sampled", "ThemeName", "choose_names"]

#: Raised when names are chosen in another way: those of another version do not stay.
VERSION = 1
#: Share of the keywords that a cluster was named for that must still be its own for a name to stay,
#: and likeness (Jaccard, in posts) of the clusters that a theme consists of.
SAME_KEYWORDS, SAME_CLUSTERS = 0.5, 0.7
#: Texts of a cluster in which phrases are looked for, and of all clusters together.
TEXTS, ALL_TEXTS, FEWEST_TEXTS = 100, 20_000, 10
#: Phrases of a cluster that a theme is named from.
FROM_BELOW = 12


class PhraseModel(Protocol):
    """The model that made the posts' vectors."""

    @property
    def here(self) -> bool:
        """Whether this host seems to have it; known without loading it."""

    def encode(self, phrases: Sequence[str]) -> NDArray[np.float32] | None:
        """Unit vectors, float32 (phrases, d); ``None`` where it cannot compute after all."""


@dataclass(frozen=True)
class Sampled:
    """Posts of all clusters that their meaning is read from.

    Attributes:
        texts: title and body.
        labels: int64 (texts,), cluster numbers.
        rank: int64 (texts,), place among its cluster's, the most probable first.
        vectors: float32 (texts, d).
        function_words: of each cluster's language.
    """

    texts: list[str]
    labels: NDArray[np.int64]
    rank: NDArray[np.int64]
    vectors: NDArray[np.float32]
    function_words: list[frozenset[str]]


@dataclass(frozen=True)
class ClusterName:
    """A cluster's name and the keywords that it had when it got it."""

    name: str
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True)
class ThemeName:
    """A theme's name and its clusters: posts by persistent id."""

    name: str
    clusters: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Named:
    """The names of a night.

    Attributes:
        clusters: by persistent id.
        themes: in the order of their ids.
        by_model: whether the model had a say.
    """

    clusters: Mapping[int, ClusterName] = field(default_factory=dict)
    themes: tuple[ThemeName, ...] = ()
    by_model: bool = False

    def to_json(self) -> dict[str, Any]:
        """For the table of clusters."""
        return {
            "version": VERSION,
            "by_model": self.by_model,
            "clusters": [[n, one.name, list(one.keywords)] for n, one in self.clusters.items()],
            "themes": [[one.name, list(map(list, one.clusters.items()))] for one in self.themes],
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Named:
        """No names where these are of another version, or none."""
        if said.get("version") != VERSION:
            return cls()
        return cls(
            {int(n): ClusterName(name, tuple(words)) for n, name, words in said["clusters"]},
            tuple(ThemeName(name, {int(n): int(m) for n, m in of}) for name, of in said["themes"]),
            bool(said["by_model"]),
        )


def choose_names(
    sampled: Sampled,
    clustering: Clustering,
    ids: NDArray[np.int32],
    keywords: Sequence[Sequence[str]],
    fallbacks: Sequence[str],
    before: Named,
    model: PhraseModel | None,
) -> Named:
    """Names of all clusters and themes.

    A cluster keeps its name while half of the keywords that it was named for are still its own, and
    a theme while it consists of much the same clusters. Nothing stays where the names were chosen
    without the model, and it is here now. A night without a change looks at no text.

    Args:
        sampled: posts of the clusters.
        clustering: these clusters.
        ids: int32 (clusters,), their persistent ids.
        keywords: of each cluster, best first.
        fallbacks: a name for each cluster whose posts share no word.
        before: the names of the night before.
        model: ``None`` where there is none.
    """
    encode = model.encode if model is not None and model.here else None
    if encode is not None and not before.by_model:
        before = Named()
    numbers = range(len(ids))
    kept = {
        number: before.clusters[int(ids[number])]
        for number in numbers
        if _stays(before.clusters.get(int(ids[number])), keywords[number])
    }
    sizes = np.bincount(clustering.labels[clustering.labels >= 0], minlength=len(ids))
    themes = np.unique(clustering.cluster_themes, return_inverse=True)[1].astype(np.int64)
    of_themes = [
        {int(ids[number]): int(sizes[number]) for number in np.flatnonzero(themes == theme)}
        for theme in range(int(themes.max()) + 1)
    ]
    kept_themes = _kept_themes(of_themes, before.themes)
    wanted = [n for n in numbers if n not in kept or int(themes[n]) not in kept_themes]
    names = {number: one.name for number, one in kept.items()}
    theme_names = dict(kept_themes)
    by_model = before.by_model
    if wanted:
        namer = _namer(sampled, clustering.centroids, wanted, encode)
        by_model = namer.by_model or (by_model and bool(kept))
        fresh = {n: namer.candidates[n] for n in wanted if n not in kept}
        phrases = namer.names(np.arange(len(ids)), clustering.centroids, fresh)
        chosen = {n: some or [fallbacks[n]] for n, some in phrases.items()}
        names |= told_apart(chosen, names, dict(enumerate(keywords)))
        theme_names |= _theme_names(namer, clustering.centroids, sizes, themes, names, kept_themes)
    return Named(
        {
            int(ids[n]): ClusterName(
                names[n], (kept[n].keywords if n in kept else tuple(keywords[n]))
            )
            for n in numbers
        },
        tuple(
            ThemeName(theme_names[number], clusters) for number, clusters in enumerate(of_themes)
        ),
        by_model,
    )


def _stays(named: ClusterName | None, keywords: Sequence[str]) -> bool:
    if named is None:
        return False
    same = len({*named.keywords} & {*keywords})
    return same >= SAME_KEYWORDS * len(named.keywords)


def _kept_themes(
    tonight: Sequence[Mapping[int, int]], before: Sequence[ThemeName]
) -> dict[int, str]:
    """The names of themes that consist of much the same clusters as one of the night before."""
    kept: dict[int, str] = {}
    for number, clusters in enumerate(tonight):
        for theme in before:
            every = clusters.keys() | theme.clusters.keys()
            both = sum(min(clusters.get(n, 0), theme.clusters.get(n, 0)) for n in every)
            either = sum(max(clusters.get(n, 0), theme.clusters.get(n, 0)) for n in every)
            if both >= SAME_CLUSTERS * max(either, 1) and theme.name not in kept.values():
                kept[number] = theme.name
                break
    return kept


def _namer(
    sampled: Sampled,
    centroids: NDArray[np.float32],
    wanted: Sequence[int],
    encode: Encode | None,
) -> Namer:
    each = max(FEWEST_TEXTS, min(TEXTS, ALL_TEXTS // len(centroids)))
    rows = np.flatnonzero(sampled.rank < each)
    return Namer(
        [sampled.texts[row] for row in rows],
        sampled.labels[rows],
        sampled.vectors[rows],
        centroids,
        sampled.function_words,
        wanted,
        encode,
    )


def _theme_names(
    namer: Namer,
    centroids: NDArray[np.float32],
    sizes: NDArray[np.int64],
    themes: NDArray[np.int64],
    names: Mapping[int, str],
    kept: Mapping[int, str],
) -> dict[int, str]:
    """Names of the themes that keep none: from the best phrases of their clusters."""
    middles = np.zeros((int(themes.max()) + 1, centroids.shape[1]), dtype=np.float32)
    np.add.at(middles, themes, centroids * sizes[:, None].astype(np.float32))
    middles /= np.maximum(np.linalg.norm(middles, axis=1, keepdims=True), 1e-12)
    single: dict[int, str] = {}
    pools: dict[int, list[Candidate]] = {}
    for theme in range(len(middles)):
        members = np.flatnonzero(themes == theme).tolist()
        if theme in kept:
            continue
        if len(members) == 1:
            single[theme] = names[members[0]]
            continue
        pool = {one.key: one for n in members for one in namer.candidates[n][:FROM_BELOW]}
        pools[theme] = [pool[key] for key in sorted(pool)]
    found = namer.names(themes, middles, pools)
    largest = {theme: names[int(np.flatnonzero(themes == theme)[0])] for theme in pools}
    phrases = {theme: some or [largest[theme]] for theme, some in found.items()}
    return single | told_apart(phrases, {**kept, **single})
