"""The proof, at each start, that a fast tokenizer gives the ids of the reference.

The texts are what tokenizers stumble over: every character of Unicode's scripts in several
surroundings, every word of the vocabulary, the model's own tokens inside texts, words and texts
around the limits, marks that join or vanish. They are the same at each start; some strings at
random, other ones each time, come on top.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reddit_assets.engines.embedding.reference import golden
from reddit_assets.engines.embedding.tokenizer_backends import ReferenceTokenizer, TokenizerBackend

__all__ = ["difference", "proof_texts", "prove", "random_texts"]

CHARACTERS = (
    (0x0000, 0x3400, 1),
    (0x3400, 0xA000, 61),  # Ideographs: one is like the next.
    (0xA000, 0xAC00, 1),
    (0xAC00, 0xD800, 61),  # Hangul syllables; surrogates follow.
    (0xE000, 0xF900, 61),  # Private use.
    (0xF900, 0x10000, 1),
    (0x10000, 0x20000, 7),
    (0x20000, 0x32000, 1021),
    (0xE0000, 0xE0200, 1),
)
"""First code point, the one after the last, and the step: all scripts in use, one by one."""
TOGETHER = 64
"""Characters or words in a text."""
RANDOM_TEXTS = 500
EDGES = [
    "",
    " ",
    "\t\n\r\x0b\x0c\x1c\x85\u00a0\u1680\u2028\u2029\u3000",
    "a\tb\nc\rd\x0be\x0cf\x1cg\x85h\u00a0i\u2028j\u3000k\u200bl\ufeffm\u00adn\x00o\x7fp",
    "ΟΔΥΣΣΕΥΣ ΣΑΣ Σ ς ͅᾼ ᾳ ΐ",
    "İstanbul ISPARTA ıi Ǆ ǅ ǆ ﬁ ﬀ ß ẞ ŉ ﬗ",
    "한국어 \u1112\u1161\u11ab\u1100\u116e\u11a8 각\u11a8",
    "क्षि ক্ষ క్ష ಕ್ಷ ക്ഷ ක්‍ෂ ခ္က ក្ក ๆเก็ ບໍ່ ཀྵ",
    "שָׁלוֹם مَرْحَبًا ﷺ لا ﻻ \u200fא\u202eb\u202c \u2067ג\u2069",
    "👩‍👩‍👧‍👦🏳️‍🌈🇫🇷🇩🇪1️⃣👍🏽☺︎☺️ ©️ ™",
    "字a字 b字字c 。、「」々〆ヵゟ゠ｱﾞ ㌔ ㍿ 𠮷野家 𪚥",
    "Z\u0351\u036b\u0343a\u0335\u0321l\u0334g\u0335o\u0336 e\u0301\u0301\u0327 \u0301a \u0301",
    "don't can''t o'clock rock-'n'-roll a--b ... ?!?! @user #tag $1,000.50 x=y+z a_b `c` ~d~ ^^",
    "https://www.example.com/a?b=c&d=%20#e user@example.com C:\\x\\y ￥ € ¥ ₿ № † ‰ ′ ″ ‹› «»",
    "\ufffd \ufffe \uffff \U0001fffe \U0010ffff \ud7ff\ue000",
]


def prove(fast: TokenizerBackend, reference: ReferenceTokenizer, max_tokens: int) -> str | None:
    """Compare all texts whole, and the long ones when they are cut to ``max_tokens`` as well.

    Returns:
        The first difference; ``None``: there is none.
    """
    whole = [*proof_texts(reference), *random_texts(reference, RANDOM_TEXTS)]
    long = [*golden().texts.to_pylist(), *_around(max_tokens)]
    return difference(fast, reference, [*whole, *long], None) or difference(
        fast, reference, long, max_tokens
    )


def proof_texts(reference: ReferenceTokenizer) -> list[str]:
    """Texts for a tokenizer's own vocabulary and special tokens; always the same."""
    characters = [chr(code) for first, end, step in CHARACTERS for code in range(first, end, step)]
    return [
        *EDGES,
        *_together([f"{c} a{c}b {c}{c} E{c}" for c in characters], " "),
        *_together(characters, ""),
        *_together(reference.words(), " "),
        *_around_special(reference.special),
    ]


def random_texts(
    reference: ReferenceTokenizer, count: int, seed: int | None = None
) -> Iterator[str]:
    """Strings of characters of a few scripts each, words, pieces of words, marks and blanks.

    Args:
        reference: whose vocabulary and special tokens are mixed in.
        count: how many.
        seed: of the draw; ``None`` draws others each time.
    """
    random = np.random.default_rng(seed)
    words, special = reference.words(), reference.special or [""]
    blocks = [
        (block, min(block + 128, end))
        for first, end, step in CHARACTERS
        for block in range(first, end, 128 if step < 61 else 2_048)
    ]
    between = np.array([*("", " ", " ") * 2, *"\n\t\u00a0\u200d\u0301.-'"])
    for size in random.geometric(0.03, count):
        kinds = random.random(size)
        chosen = [blocks[i] for i in random.integers(0, len(blocks), 3)]
        parts = []
        for kind, gap in zip(kinds, random.choice(between, size), strict=True):
            if kind < 0.45:
                first, end = chosen[int(kind * 6.6)]
                parts.append("".join(map(chr, random.integers(first, end, 1 + int(kind * 9)))))
            elif kind < 0.95:
                word = words[int(random.integers(len(words)))]
                parts.append(word.removeprefix("##") if kind < 0.8 else word.upper())
            elif kind < 0.99:
                parts.append(str(random.integers(10**6)))
            else:
                parts.append(special[int(random.integers(len(special)))])
            parts.append(str(gap))
        yield "".join(parts)


def difference(
    fast: TokenizerBackend,
    reference: TokenizerBackend,
    texts: list[str],
    max_tokens: int | None,
) -> str | None:
    """What is the first text that two tokenizers split differently; ``None``: there is none.

    Args:
        fast: the tokenizer in doubt.
        reference: the one that is right.
        texts: what both split.
        max_tokens: kept of each text; ``None`` keeps all.
    """
    try:
        found = fast.encode(texts, max_tokens)
    except Exception as error:
        return f"{fast.name} fails: {error}"
    wanted = reference.encode(texts, max_tokens)
    if np.array_equal(found.cu_seqlens, wanted.cu_seqlens) and np.array_equal(
        found.ids, wanted.ids
    ):
        return None
    for row, text in enumerate(texts):
        ours = found.row(row) if row < len(found) else None
        if ours is None or not np.array_equal(ours, wanted.row(row)):
            return f"{fast.name} gives other ids than {reference.name} for {text[:60]!r}"
    return f"{fast.name} gives {len(found):,} texts for {len(texts):,}"


def _together(parts: list[str], between: str) -> Iterator[str]:
    for start in range(0, len(parts), TOGETHER):
        yield between.join(parts[start : start + TOGETHER])


def _around_special(tokens: list[str]) -> Iterator[str]:
    """The model's own tokens where they are parted from texts, and where they are not."""
    for token in tokens[:64]:  # Some models have hundreds, of one kind.
        for form in (token, token.lower(), token.upper(), token[:-1], token[1:]):
            yield f"{form}a {form} b{form} {form}{form} {form}. ,{form} é{form} {form}\u0301字"


def _around(max_tokens: int) -> Iterator[str]:
    for size in (98, 99, 100, 101, 102, 199, 200, 201):  # Of a word, in characters.
        yield " ".join(part * size for part in ("x", "é", "字", "ab", "e\u0301"))
    for count in range(max(max_tokens - 5, 0), max_tokens + 3):
        yield "word " * count
        yield "😀" * count
        yield "unbelievably " * count
