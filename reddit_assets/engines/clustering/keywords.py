"""Keywords of clusters: class-based TF-IDF (Grootendorst 2022, BERTopic) over sensible tokens.

A cluster's texts are one document. A term's weight is the share of the cluster's texts that hold
it, less one text, times log(1 + A / f), with f the texts of all clusters that hold it and A the
texts per cluster on average. Texts are counted, not occurrences, so that one long text does not
name a cluster.

Not scikit-learn's CountVectorizer: its token pattern keeps URLs, numbers and plurals beside their
singular, and it would hold all texts' counts at once; ours counts one cluster after the other.
"""

from __future__ import annotations

import html
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise

from reddit_assets.engines.clustering.words import STOP_WORDS

__all__ = [
    "Keyword",
    "class_keywords",
    "cleaned",
    "says_something",
    "stem",
    "tokens",
    "word_of",
]

# Bounded: a long run without spaces is looked at from each of its beginnings.
_URL = re.compile(
    r"(?:https?://|www\.)\S+|\b\S{1,200}\.(?:com|org|net|io|gg|co)\b\S*", re.IGNORECASE
)
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_MENTION = re.compile(r"(?<!\w)/?[ur]/\w+")
_WORD = re.compile(r"[^\W_](?:[\w'’\-+#]*[\w+#])?")
#: Characters of a text that are looked at.
MAX_CHARACTERS = 4_000
#: A term counts for a cluster if at least this share, and this many, of its texts hold the term:
#: what two texts of fifty have in common is chance.
MIN_SHARE, MIN_TEXTS = 0.06, 2

#: A term and its weight.
Keyword = tuple[str, float]


def tokens(text: str) -> list[str]:
    """Lower-case words of a text: no URLs, mentions, markup, numbers or one-letter words.

    Stop words are kept here, so that neighbours in the text stay neighbours.
    """
    words = (word_of(match.group()) for match in _WORD.finditer(cleaned(text)))
    return [word for word in words if word]


def cleaned(text: str) -> str:
    """The beginning of a text without URLs, mentions and markup of links."""
    text = html.unescape(html.unescape(text[:MAX_CHARACTERS]))
    return _MENTION.sub(" ", _URL.sub(" ", _LINK.sub(r"\1", text)))


def word_of(written: str) -> str:
    """A word in lower case, without a possessive; empty for what is no word."""
    word = written.lower().replace("’", "'").removesuffix("'s")
    if 1 < len(word) <= 30 and any(character.isalpha() for character in word):
        return word
    return ""


def says_something(word: str) -> bool:
    """Whether a word in lower case is no stop word and not just two letters."""
    return word not in STOP_WORDS and not (len(word) == 2 and word.isascii() and word.isalpha())


def _terms(text: str, function_words: Collection[str]) -> set[str]:
    words = tokens(text)
    single = {word for word in words if says_something(word) and word not in function_words}
    pairs = {
        f"{left} {right}"
        for left, right in pairwise(words)
        if left != right and left in single and right in single
    }
    return single | pairs


def stem(word: str) -> str:
    """A rough stem that puts plural and singular together."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _choose(weighted: list[tuple[float, int, str]], limit: int) -> list[Keyword]:
    """The best terms; no plural beside its singular, no word beside the pair that holds it."""
    chosen: list[Keyword] = []
    stems: set[str] = set()
    for weight, _, term in sorted(weighted, key=lambda entry: (-entry[0], entry[2])):
        parts = [stem(part) for part in term.split()]
        if any(part in stems for part in parts):
            continue
        stems.update(parts)
        chosen.append((term, round(weight, 5)))
        if len(chosen) == limit:
            break
    return chosen


def class_keywords(
    texts: Iterable[tuple[int, str]],
    clusters: int,
    limit: int = 10,
    *,
    function_words: Sequence[Collection[str]] | None = None,
) -> list[list[Keyword]]:
    """The keywords of each cluster, best first.

    Args:
        texts: cluster number (0 … clusters − 1) and text, one after the other; not held.
        clusters: how many clusters there are.
        limit: keywords per cluster at most.
        function_words: of each cluster's language, beside the stop words.
    """
    left_out = function_words or [()] * clusters
    counts: list[Counter[str]] = [Counter() for _ in range(clusters)]
    sizes = [0] * clusters
    for number, text in texts:
        sizes[number] += 1
        counts[number].update(_terms(text, left_out[number]))
    everywhere: Counter[str] = Counter()
    for counter in counts:
        everywhere.update(counter)
    average = sum(sizes) / max(1, clusters)
    result = []
    for counter, size in zip(counts, sizes, strict=True):
        least = min(max(MIN_TEXTS, math.ceil(MIN_SHARE * size)), max(1, size // 2))
        weighted = []
        for term, count in counter.items():
            if count < least:
                continue
            # Shrunk for few witnesses: 1/2 for two texts, 9/10 for ten.
            weight = (count - 1) / size * math.log(1 + average / everywhere[term])
            weight = max(weight, 1e-6)
            # A pair that is nearly always there when its words are says more than the words.
            weighted.append((weight * (1.1 if " " in term else 1.0), count, term))
        result.append(_choose(weighted, limit))
    return result
