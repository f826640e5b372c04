"""Names of clusters, topics and themes: most stay from night to night, others are chosen again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reddit_assets.engines.clustering.naming import Candidate, Encode, Namer, told_apart
from reddit_assets.engines.clustering.results import Clustering

__all__ = ["ClusterName", "GroupName", "Named", "PhraseModel", "Sampled", "choose_names"]

#: Raised when names are chosen in another way: those of another version do not stay.
VERSION = 2
#: Share of the keywords that a cluster was named for that must still be its own for a name to stay,
#: and likeness (Jaccard, in posts) of the clusters that a topic or theme has.
SAME_KEYWORDS, SAME_CLUSTERS = 0.5, 0.7
#: Texts of a cluster in which phrases are looked for, and of all clusters together.
TEXTS, ALL_TEXTS, FEWEST_TEXTS = 100, 20_000, 10
#: Phrases of a cluster that its topic and its theme are named from.
FROM_BELOW = 12
#: Embedded to see whether the model can compute.
PROBE = "name"


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
    """A cluster's name, its keywords when it got it, and whether the model had a say."""

    name: str
    keywords: tuple[str, ...] = ()
    by_model: bool = False


@dataclass(frozen=True)
class GroupName:
    """The name of a topic or a theme, its clusters (posts by persistent id), and whether the model
    had a say.
    """

    name: str
    clusters: Mapping[int, int] = field(default_factory=dict)
    by_model: bool = False

    def to_json(self) -> list[Any]:
        """Name, pairs of id and posts, and the model's part."""
        return [self.name, [list(pair) for pair in self.clusters.items()], self.by_model]

    @classmethod
    def from_json(cls, said: Sequence[Any]) -> GroupName:
        """As it was written."""
        name, clusters, by_model = said
        posts = {int(number): int(each) for number, each in clusters}
        return cls(str(name), posts, bool(by_model))


@dataclass(frozen=True)
class Named:
    """The names of a night.

    Attributes:
        clusters: by persistent id.
        topics, themes: in the order of their ids.
    """

    clusters: Mapping[int, ClusterName] = field(default_factory=dict)
    topics: tuple[GroupName, ...] = ()
    themes: tuple[GroupName, ...] = ()

    @property
    def by_model(self) -> bool:
        """Whether the model had a say in any name of a cluster."""
        return any(one.by_model for one in self.clusters.values())

    def chosen_by_model(self) -> Named:
        """The names in which the model had a say."""
        return Named(
            {number: one for number, one in self.clusters.items() if one.by_model},
            tuple(one for one in self.topics if one.by_model),
            tuple(one for one in self.themes if one.by_model),
        )

    def to_json(self) -> dict[str, Any]:
        """For the table of clusters."""
        return {
            "version": VERSION,
            "clusters": [
                [number, one.name, list(one.keywords), one.by_model]
                for number, one in self.clusters.items()
            ],
            "topics": [one.to_json() for one in self.topics],
            "themes": [one.to_json() for one in self.themes],
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Named:
        """No names where these are of another version, or none."""
        if said.get("version") != VERSION:
            return cls()
        return cls(
            {
                int(number): ClusterName(name, tuple(words), bool(by_model))
                for number, name, words, by_model in said["clusters"]
            },
            tuple(map(GroupName.from_json, said.get("topics", []))),
            tuple(map(GroupName.from_json, said["themes"])),
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
    """Names of all clusters, topics and themes.

    A cluster keeps its name while half of the keywords that it was named for are still its own, and
    a topic or theme while it consists of much the same clusters. A name that was chosen without the
    model does not stay where the model can compute. A night without a change looks at no text.

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
    if encode is not None and (better := before.chosen_by_model()) != before:
        # Loaded for it: on a host whose model cannot compute after all, names stay.
        if encode([PROBE]) is None:
            encode = None
        else:
            before = better
    numbers = range(len(ids))
    kept = {
        number: before.clusters[int(ids[number])]
        for number in numbers
        if _stays(before.clusters.get(int(ids[number])), keywords[number])
    }
    sizes = np.bincount(clustering.labels[clustering.labels >= 0], minlength=len(ids))
    topics = _Groups.of(clustering.cluster_topics, ids, sizes, before.topics)
    themes = _Groups.of(clustering.cluster_themes, ids, sizes, before.themes)
    wanted = [n for n in numbers if n not in kept or not (topics.kept(n) and themes.kept(n))]
    names = {number: one.name for number, one in kept.items()}
    by_model = False
    if wanted:
        namer = _namer(sampled, clustering.centroids, wanted, encode)
        by_model = namer.by_model
        fresh = {n: namer.candidates[n] for n in wanted if n not in kept}
        phrases = namer.names(np.arange(len(ids)), clustering.centroids, fresh)
        chosen = {n: some or [fallbacks[n]] for n, some in phrases.items()}
        names |= told_apart(chosen, names, dict(enumerate(keywords)))
        for level in (topics, themes):
            level.name(namer, clustering.centroids, sizes, names)
    return Named(
        {
            int(ids[n]): kept.get(n) or ClusterName(names[n], tuple(keywords[n]), by_model)
            for n in numbers
        },
        topics.named(by_model),
        themes.named(by_model),
    )


def _stays(named: ClusterName | None, keywords: Sequence[str]) -> bool:
    if named is None or (keywords and not named.keywords):
        return False
    same = len({*named.keywords} & {*keywords})
    return same >= SAME_KEYWORDS * len(named.keywords)


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


@dataclass
class _Groups:
    """A level above the clusters, on its way to names.

    Attributes:
        numbers: int64 (clusters,), the group of each cluster, in the order of the groups' ids.
        clusters: of each group: posts by the cluster's persistent id.
        stay: names of the night before, by group.
        names: by group, as far as they are known.
    """

    numbers: NDArray[np.int64]
    clusters: list[dict[int, int]]
    stay: dict[int, GroupName]
    names: dict[int, str]

    @classmethod
    def of(
        cls,
        group_ids: NDArray[np.int32],
        ids: NDArray[np.int32],
        sizes: NDArray[np.int64],
        before: Sequence[GroupName],
    ) -> _Groups:
        """The groups, with the names that stay."""
        numbers = np.unique(group_ids, return_inverse=True)[1].astype(np.int64)
        clusters = [
            {int(ids[number]): int(sizes[number]) for number in np.flatnonzero(numbers == group)}
            for group in range(int(numbers.max()) + 1)
        ]
        stay = _kept_groups(clusters, before)
        return cls(numbers, clusters, stay, {group: one.name for group, one in stay.items()})

    def kept(self, cluster: int) -> bool:
        """Whether the group of a cluster has its name already."""
        return int(self.numbers[cluster]) in self.names

    def named(self, by_model: bool) -> tuple[GroupName, ...]:
        """The groups with their names, in the order of their ids.

        Args:
            by_model: whether the model had a say in the new ones.
        """
        return tuple(
            GroupName(
                self.names[group],
                clusters,
                self.stay[group].by_model if group in self.stay else by_model,
            )
            for group, clusters in enumerate(self.clusters)
        )

    def name(
        self,
        namer: Namer,
        centroids: NDArray[np.float32],
        sizes: NDArray[np.int64],
        names: Mapping[int, str],
    ) -> None:
        """Name the groups without a name from the best phrases of their clusters.

        Args:
            names: of the clusters; a group of one cluster has its name.
        """
        middles = np.zeros((len(self.clusters), centroids.shape[1]), dtype=np.float32)
        np.add.at(middles, self.numbers, centroids * sizes[:, None].astype(np.float32))
        middles /= np.maximum(np.linalg.norm(middles, axis=1, keepdims=True), 1e-12)
        pools: dict[int, list[Candidate]] = {}
        largest: dict[int, str] = {}
        for group in range(len(self.clusters)):
            members = np.flatnonzero(self.numbers == group).tolist()
            if group in self.names:
                continue
            largest[group] = names[max(members, key=lambda number: int(sizes[number]))]
            if len(members) == 1:
                self.names[group] = largest[group]
                continue
            pool = {one.key: one for n in members for one in namer.candidates[n][:FROM_BELOW]}
            pools[group] = [pool[key] for key in sorted(pool)]
        found = namer.names(self.numbers, middles, pools)
        phrases = {group: some or [largest[group]] for group, some in found.items()}
        self.names |= told_apart(phrases, self.names)


def _kept_groups(
    tonight: Sequence[Mapping[int, int]], before: Sequence[GroupName]
) -> dict[int, GroupName]:
    """The names of groups that consist of much the same clusters as one of the night before."""
    kept: dict[int, GroupName] = {}
    taken: set[str] = set()
    for number, clusters in enumerate(tonight):
        for group in before:
            every = clusters.keys() | group.clusters.keys()
            both = sum(min(clusters.get(n, 0), group.clusters.get(n, 0)) for n in every)
            either = sum(max(clusters.get(n, 0), group.clusters.get(n, 0)) for n in every)
            if both >= SAME_CLUSTERS * max(either, 1) and group.name not in taken:
                kept[number] = group
                taken.add(group.name)
                break
    return kept
