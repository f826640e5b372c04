"""Phrases that may name a cluster: runs of words between marks, as people wrote them.

Without a tagger: a phrase begins and ends with a word that says something, and does not reach over
a punctuation mark. Inside, connecting words may stand ("history of science"). A part of a longer
phrase that hardly ever stands without the rest is no phrase ("Pacific" of "Pacific Ocean").
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from reddit_assets.engines.clustering.keywords import cleaned, says_something, stem, word_of

__all__ = ["Phrase", "Run", "phrases_of", "runs_of", "stems_of"]

#: Words of a phrase at most, connecting ones included.
MAX_WORDS = 4
#: Words of a text that are looked at, and of a typical text those whose phrases all count.
TEXT_WORDS, TITLE_WORDS = 300, 30
#: What may stand between two words of a phrase, and an article behind it.
CONNECTING = frozenset(["of", "and", "for", "in", "vs", "de", "la", "du", "von"])
ARTICLES = frozenset(["the", "a"])
#: Share of a phrase's places where it is a part of a longer one, from which on it is no phrase.
PART = 0.8
#: Share of lower-case spellings from which on a phrase is written so.
LOWER = 0.25
_MARK = re.compile(r"[.,;:!?()\[\]{}\"“”|/*_~<>=\n\r\t]+|\s[-–—]+\s|[-–—]{2,}|…")
_WORD = re.compile(r"[^\W_](?:[\w'’\-+#&]*[\w+#])?")


@dataclass(frozen=True)
class Run:
    """Words between two marks.

    Attributes:
        written: the words.
        lower: in lower case.
        stems: of those that say something; empty for others.
    """

    written: tuple[str, ...]
    lower: tuple[str, ...]
    stems: tuple[str, ...]


@lru_cache(maxsize=100_000)
def _word(written: str) -> tuple[str, str]:
    """A word in lower case, and its stem if it says something."""
    lower = word_of(written)
    return lower, stem(lower) if lower and says_something(lower) else ""


def runs_of(text: str, function_words: Collection[str] = ()) -> list[Run]:
    """The first words of a text.

    Args:
        function_words: in lower case, that say nothing either.
    """
    found = []
    left = TEXT_WORDS
    for part in _MARK.split(cleaned(text)):
        written = tuple(match.group() for match in _WORD.finditer(part))[:left]
        left -= len(written)
        words = [_word(word) for word in written]
        stems = tuple("" if lower in function_words else root for lower, root in words)
        found.append(Run(written, tuple(lower for lower, _ in words), stems))
        if left <= 0:
            break
    return found


def stems_of(runs: Sequence[Run]) -> set[str]:
    """The stems of a text's words that say something."""
    return {root for run in runs for root in run.stems if root}


@dataclass
class Phrase:
    """A phrase in the texts of a cluster.

    Attributes:
        stems: of its words that say something.
        texts: how many hold it.
        written: how it is written, and how often.
        parts: in how many places it is a part of a longer run of words.
        titled: whether a typical text begins with it.
    """

    stems: tuple[str, ...]
    texts: int = 0
    written: Counter[str] = field(default_factory=Counter)
    parts: int = 0
    titled: bool = False

    @property
    def whole(self) -> bool:
        """Whether it often enough stands by itself."""
        return self.parts < PART * self.written.total()

    @property
    def shown(self) -> str:
        """As it is written; in lower case where that is not rare, for titles capitalize words."""
        plain = {way: count for way, count in self.written.items() if way == way.lower()}
        ways = plain if sum(plain.values()) >= LOWER * self.written.total() else self.written
        return min(ways, key=lambda way: (-ways[way], way)).removesuffix("'s").removesuffix("’s")


def phrases_of(
    texts: Sequence[Sequence[Run]], typical: Collection[int], least: int
) -> dict[str, Phrase]:
    """The phrases of a cluster by their words in lower case.

    Args:
        texts: of the cluster.
        typical: which texts stand for it: every phrase at their beginning counts.
        least: texts that must hold any other phrase.
    """
    found: dict[str, Phrase] = {}
    for at, text in enumerate(texts):
        mine: set[str] = set()
        words = 0
        for run in text:
            titled = at in typical and words < TITLE_WORDS
            words += len(run.written)
            for start, stop in _spans(run):
                key = " ".join(run.lower[start:stop])
                phrase = found.get(key)
                if phrase is None:
                    phrase = found[key] = Phrase(tuple(filter(None, run.stems[start:stop])))
                phrase.written[" ".join(run.written[start:stop])] += 1
                phrase.parts += bool(
                    (start and run.stems[start - 1]) or (stop < len(run.stems) and run.stems[stop])
                )
                phrase.titled |= titled
                mine.add(key)
        for key in mine:
            found[key].texts += 1
    return {
        key: phrase
        for key, phrase in found.items()
        if phrase.whole and (phrase.texts >= least or phrase.titled)
    }


def _spans(run: Run) -> Iterator[tuple[int, int]]:
    """Begin and end of each phrase among the words of a run."""
    lower, stems = run.lower, run.stems
    for start in range(len(lower)):
        if not stems[start]:
            continue
        for last in range(start, min(start + MAX_WORDS, len(lower))):
            word = lower[last]
            if stems[last]:
                if last == start or word != lower[start]:
                    yield start, last + 1
            elif word not in CONNECTING and not (
                word in ARTICLES and lower[last - 1] in CONNECTING
            ):
                break
