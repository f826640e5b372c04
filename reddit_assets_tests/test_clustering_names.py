"""Names: what they are made of, that they differ, that they stay, with and without the model."""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("hdbscan")

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.provenance import EmbeddingProvenance, cluster_inputs
from reddit_assets.engines.clustering.function_words import function_words
from reddit_assets.engines.clustering.keywords import class_keywords
from reddit_assets.engines.clustering.names import Named, PhraseModel, Sampled, choose_names
from reddit_assets.engines.clustering.naming import told_apart
from reddit_assets.engines.clustering.phrases import phrases_of, runs_of
from reddit_assets.engines.clustering.results import Clustering
from reddit_assets.engines.clustering.words import STOP_WORDS
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.settings import Settings
from reddit_assets.tasks.phrase_model import HostModel
from reddit_assets_tests.test_clustering_subreddit import embed, table

TOPICS = [
    "the sourdough starter of my mother smells of vinegar and flour",
    "searing a steak in a cast iron skillet over high heat",
    "the knife needs a whetstone and a leather strop for sharpening",
    "a vegetable soup with onion stock and leek for the winter",
]


class Letters:
    """Vectors by the letters of a phrase, deterministic: stands for a model that is here."""

    here = True

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, phrases: Sequence[str]) -> NDArray[np.float32] | None:
        self.asked += phrases
        found = np.zeros((len(phrases), 26), dtype=np.float32)
        for row, phrase in enumerate(phrases):
            for letter in phrase:
                if "a" <= letter <= "z":
                    found[row, ord(letter) - 97] += 1
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)


def sampled(topics: Sequence[str], texts: int = 12, seed: int = 0) -> tuple[Sampled, Clustering]:
    """Texts of some words of their topic, clustered by topic; themes of two clusters each."""
    dice = np.random.default_rng(seed)
    said = []
    for topic in topics:
        words = topic.split()
        for _ in range(texts):
            start = int(dice.integers(0, len(words) - 4))
            said.append(" ".join(words[start : start + 5]) + f". {topic}")
    labels = np.repeat(np.arange(len(topics)), texts)
    vectors = Letters().encode(said)
    assert vectors is not None
    middles = np.stack([vectors[labels == n].mean(axis=0) for n in range(len(topics))])
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    by_cluster = [said[n * texts : (n + 1) * texts] for n in range(len(topics))]
    none = np.zeros(len(said), dtype=np.float32)
    clustering = Clustering(
        *(labels.astype(np.int32), none, none, none, none),
        cluster_topics=np.arange(len(topics), dtype=np.int32),
        cluster_themes=(np.arange(len(topics)) // 2).astype(np.int32),
        centroids=middles.astype(np.float32),
        nearest=labels.astype(np.int32),
        similarities=none,
    )
    rank = np.tile(np.arange(texts), len(topics))
    return Sampled(said, labels, rank, vectors, function_words(by_cluster)), clustering


def name(
    sample: tuple[Sampled, Clustering],
    before: Named | None = None,
    model: PhraseModel | None = None,
) -> Named:
    some, clustering = sample
    clusters = len(clustering.centroids)
    texts = zip(some.labels.tolist(), some.texts, strict=True)
    keywords = class_keywords(texts, clusters, function_words=some.function_words)
    ids = np.arange(10, 10 + clusters, dtype=np.int32)
    words = [[term for term, _ in each] for each in keywords]
    named = choose_names(some, clustering, ids, words, ["?"] * clusters, before or Named(), model)
    # What is written and read again is the same.
    assert Named.from_json(json.loads(json.dumps(named.to_json()))) == named
    return named


def test_a_phrase_is_what_people_wrote() -> None:
    # Given titles, one of them capitalized, with a phrase that is part of a longer one
    texts = [
        "What lies beyond the Pacific Ocean? History of science!",
        "The Pacific Ocean, again: a short history of science",
        "Pacific Ocean. iPhone; iPhone",
    ]
    found = phrases_of([runs_of(text) for text in texts], {0}, 2)
    # Then the longer one is there, with its capitals, and its part is not
    shown = {phrase.shown for phrase in found.values()}
    assert {"Pacific Ocean", "history of science"} <= shown
    assert not {"Pacific", "Ocean", "science history", "Ocean History"} & shown
    # Marks are not reached over, and stop words begin no phrase.
    assert not any(key.startswith(("the ", "of ")) or "ocean history" in key for key in found)


@pytest.mark.parametrize("model", [None, Letters()])
def test_names_say_what_the_posts_say_and_no_two_are_alike(model: Letters | None) -> None:
    named = name(sampled([*TOPICS, *TOPICS[:2]]), model=model)
    names = [one.name for one in named.clusters.values()]
    assert len({each.casefold() for each in names}) == 6
    for topic, each in zip(TOPICS, names, strict=False):
        first = each.split(", ")[0].casefold().split(" (")[0]
        assert first in topic
    assert named.by_model == (model is not None)
    assert len(named.themes) == 3
    # A topic of one cluster has its name; a theme of two has one of its own.
    assert [topic.name for topic in named.topics] == names
    assert len({theme.name for theme in named.themes}) == 3
    assert name(sampled([*TOPICS, *TOPICS[:2]]), model=model) == named


def test_names_stay_until_a_cluster_is_about_something_else() -> None:
    # Given names, If other texts of the same topics come, Then all stay, and no phrase is compared
    model = Letters()
    first = name(sampled(TOPICS), model=model)
    model.asked.clear()
    second = name(sampled(TOPICS, texts=14, seed=1), first, model)
    assert [one.name for one in second.clusters.values()] == [
        one.name for one in first.clusters.values()
    ]
    assert [theme.name for theme in second.themes] == [theme.name for theme in first.themes]
    assert not model.asked
    # Names that were chosen with the model stay where it is not.
    assert name(sampled(TOPICS), first).clusters == first.clusters
    # If a cluster becomes another topic, Then it alone has a new name.
    other = [*TOPICS[:3], "a bicycle chain needs oil before a long tour in the mountains"]
    changed = name(sampled(other), first, model)
    new = [n for n, one in changed.clusters.items() if one.name != first.clusters[n].name]
    assert new == [13]
    assert "whetstone" not in changed.clusters[13].name
    # Names that were chosen without it are chosen again where it is, once.
    plain = name(sampled(TOPICS))
    assert not plain.by_model
    assert name(sampled(TOPICS), plain, model) == first
    # One that was chosen on a host without it is chosen again, the others stay;
    mixed = name(sampled(other), first)
    assert [one.by_model for one in mixed.clusters.values()] == [True, True, True, False]
    assert Named.from_json(json.loads(json.dumps(mixed.to_json()))) == mixed
    assert name(sampled(other), mixed, model).clusters == changed.clusters
    # and where the model cannot compute after all, every name stays.
    broken = Letters()
    broken.encode = lambda phrases: None  # type: ignore[method-assign]
    assert name(sampled(TOPICS), plain, broken) == plain


def test_equal_names_are_told_apart() -> None:
    phrases = {0: ["a", "b", "c", "d"], 1: ["A", "B", "C"], 2: ["a", "b", "c", "e"], 3: ["x"]}
    assert told_apart({0: ["a"], 1: ["a"]}, {}, {1: ["a", "z"]}) == {0: "A", 1: "A, z"}
    names = told_apart(phrases, {9: "X"})
    assert names == {0: "A, b, c", 1: "A, B, C (2)", 2: "A, b, c, e", 3: "X (2)"}
    # However many of that name there are already.
    taken = {0: "X", **{number: f"X ({number})" for number in range(2, 40)}}
    assert told_apart({50: ["x"]}, taken) == {50: "X (40)"}


def test_function_words_of_a_language_without_a_list_are_found() -> None:
    # Given posts of four topics in English and in a language that nobody knows
    dice = np.random.default_rng(5)
    common = [word for word in sorted(STOP_WORDS) if len(word) > 2][::25][:16]
    topics = [
        [f"{kind}{number}ing" for number in range(12)] for kind in ("bak", "rid", "row", "sew")
    ]
    clusters = [
        [
            " ".join(
                str(dice.choice(common)) if dice.random() < 0.6 else str(dice.choice(topic))
                for _ in range(60)
            )
            for _ in range(40)
        ]
        for topic in topics
    ]
    foreign = [[codecs.encode(text, "rot13") for text in texts] for texts in clusters]
    # If function words are looked for, Then none in English, which the list covers,
    found = function_words([*clusters, *foreign])
    assert not any(found[:4])
    # and in the other nearly all of them and no word with a meaning.
    theirs = {codecs.encode(word, "rot13") for word in common}
    assert len(found[5] & theirs) >= 0.9 * len(theirs)
    assert found[5] <= theirs
    # A language of one cluster cannot be judged.
    assert not function_words([*clusters, foreign[0]])[4]


def test_the_model_is_used_where_it_made_the_vectors(tmp_path: Path, minilm: ModelSpec) -> None:
    # Given embedding files of another model, If a host has its own, Then it has no say
    layout = Layout.of(tmp_path)
    embed(layout, "co/Cooking/a", table(4))
    files = cluster_inputs(layout, ["co/Cooking/a"])
    model = HostModel(Settings(root=tmp_path, model_dir=minilm.path.parent))
    assert "another model than all-MiniLM-L6-v2" in model.made(files).why
    assert not model.here
    # nor where it is not wanted, nor where nobody knows what made them.
    assert HostModel(Settings(root=tmp_path, names="words")).made(files).why
    assert "earlier system" in model.made([]).why
    # If it made them, Then phrases that mean the same are near each other.
    made = files[0].provenance
    assert isinstance(made, EmbeddingProvenance)
    same = made.model.model_copy(update={"fingerprint": minilm.fingerprint})
    files = [replace(files[0], provenance=made.model_copy(update={"model": same}))]
    assert model.made(files).here
    vectors = model.encode(["sourdough bread", "bread dough", "bicycle chain"])
    assert vectors is not None
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
