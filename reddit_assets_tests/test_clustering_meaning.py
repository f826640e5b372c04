"""Keywords and representative posts."""

from __future__ import annotations

import numpy as np

from reddit_assets.engines.clustering.keywords import class_keywords, tokens
from reddit_assets.engines.clustering.representatives import representatives


def test_tokens_leave_out_what_is_not_language() -> None:
    # Given a text as it is on Reddit
    text = (
        "Check [my guide](https://example.com/x?y=1) at https://t.co/abc, u/someone on /r/cooking: "
        "it's 400&amp;nbsp;F &gt; don’t burn C++ or naïve crème-brûlée 12345"
    )
    # If it is cut into words
    words = tokens(text)
    # Then URLs, mentions, entities and numbers are gone, and words of any language are whole
    assert words[:4] == ["check", "my", "guide", "at"]
    assert {"burn", "c++", "naïve", "crème-brûlée", "don't"} <= set(words)
    assert not any("http" in word or "example" in word or word.isdigit() for word in words)
    assert "someone" not in words
    assert "amp" not in words


def test_keywords_tell_the_clusters_apart() -> None:
    # Given two clusters that share words
    bread = [
        "my sourdough bread starter smells",
        "sourdough starters and bread flour",
        "bread oven",
    ]
    steak = ["how to sear a steak in the oven", "steak pan for searing", "cast iron pan and steak"]
    texts = [(0, text) for text in bread] + [(1, text) for text in steak]
    # If keywords are found
    found = class_keywords(texts, 2)
    # Then each cluster has its own, without stop words and without plural beside singular
    best = [[term for term, _ in cluster] for cluster in found]
    assert best[0][0] == "bread"
    assert "sourdough" in best[0]
    assert best[1][0] == "steak"
    assert not {"how", "to", "my", "and"} & {term for cluster in best for term in cluster}
    assert not {"starter", "starters"} <= set(best[0])


def test_one_long_text_does_not_name_a_cluster() -> None:
    # Given ten texts on cats and one that shouts
    texts = [(0, f"cats sleep {n}") for n in "abcdefghij"] + [(0, "banana " * 1_000)]
    # If keywords are found, then it is the cats
    assert class_keywords(texts, 1)[0][0][0] in {"cats", "cats sleep"}
    assert "banana" not in {term for term, _ in class_keywords(texts, 1)[0]}


def test_no_words_at_all() -> None:
    # Given clusters without text
    found = class_keywords([(0, ""), (0, "12 34"), (1, "the of and")], 3)
    # Then there are no keywords
    assert found == [[], [], []]


def test_representatives_are_the_middle_and_distinct() -> None:
    # Given a cluster with a middle row three times, and noise
    rng = np.random.default_rng(0)
    vectors = np.eye(8, dtype=np.float32)[0] + rng.standard_normal((50, 8)) * 0.1
    vectors[7] = vectors[8] = vectors[9] = np.eye(8)[0]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    labels = np.zeros(50, dtype=np.int32)
    labels[40:] = -1
    middle = vectors[:40].mean(axis=0, keepdims=True)
    # If representatives are chosen
    (chosen,) = representatives(vectors, labels, (middle / np.linalg.norm(middle)), 4)
    # Then the first is the one nearest the middle, no two are alike, and none is noise
    assert chosen[0] == (vectors[:40] @ middle[0]).argmax()
    assert len({7, 8, 9} & set(chosen.tolist())) <= 1
    assert len(chosen) == 4
    assert (labels[chosen] == 0).all()
