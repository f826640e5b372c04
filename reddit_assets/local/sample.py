"""The sample: a small corpus that looks like the real one, the same bytes every time.

14 subreddits, 60 chain files, more than 6,000 rows; one file without rows, one subreddit of three
rows, names and texts beyond ASCII, null and empty texts, and texts that their authors or moderators
have taken away, in the share that dumps have. Made from templates; nothing is downloaded.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reddit_assets.corpus.oserrors import writing
from reddit_assets.errors import StartupError
from reddit_assets.local.sample_themes import THEMES, Topic

__all__ = ["SampleFile", "sample_files", "sentences", "write_sample"]

SEED = 20_240_229
TINY = {"tinytown": (3,), "Kaffeeküche": (70, 50), "日本旅行": (60, 40)}
EMPTY = ("space", 4)
# Rows of a hundred: [deleted] by their authors, [removed] by moderators, copies of one text.
DELETED, REMOVED, COPIED = 6, 4, 3
COPY = "Welcome! Please read the rules in the sidebar before you post, and be kind to each other."
FILES_PER_SUBREDDIT = 5

SCHEMA = pa.schema(
    [
        ("id", pa.large_string()),
        ("parent_id", pa.large_string()),
        ("link_id", pa.large_string()),
        ("body", pa.large_string()),
        ("is_idea", pa.bool_()),
        ("subreddit", pa.large_string()),
        ("author", pa.large_string()),
        ("permalink", pa.large_string()),
        ("created_utc", pa.int64()),
        ("ups", pa.int64()),
        ("downs", pa.int64()),
        ("sanitized_prefix", pa.large_string()),
        ("cpu_filter_is_idea", pa.bool_()),
        ("nlp_top_score", pa.float64()),
    ]
)

_OPENINGS = (
    "I have been at {thing} for {n} years now, and {trouble}.",
    "Every single time with {thing} it is the same: {trouble}.",
    "Question about {topic}: {trouble}, and I do not know why.",
    "Am I the only one who struggles with {thing}? It seems that {trouble}.",
    "After {n} months of {topic} I still see that {trouble}.",
    "Yesterday I gave {thing} another try, but {trouble}.",
    "A friend told me that {thing} was easy. Well, {trouble}.",
)
_MIDDLES = (
    "What helped me with {thing} was simple: {remedy}.",
    "Most people here will tell you to {remedy}, and they are right.",
    "I would {remedy} before spending money on {thing}.",
    "It took me {n} attempts to understand it, but {remedy} and it gets better.",
    "When {trouble}, the usual answer is this: {remedy}.",
    "For {topic} there is one rule that never failed me: {remedy}.",
    "Somebody wrote that {trouble}; my own experience with {thing} is different.",
    "Also, {remedy}, and do it before you give up on {thing}.",
)
_ENDINGS = (
    "Any advice is welcome.",
    "Thanks in advance, this place has been a great help.",
    "Edit: solved, thank you all!",
    "I will report back in {n} weeks.",
    "Good luck, and do not let {topic} discourage you.",
    "That is all I know about {thing}.",
    "",
    "",
)
_PLAIN = (
    "{thing}: {trouble}。{remedy}。",
    "{trouble}。{thing}なら、{remedy}。",
    "{thing}、{remedy}。",
)
_GERMAN = (
    "Bei mir ist {thing} das Problem: {trouble}. Was hilft: {remedy}.",
    "Seit {n} Wochen dasselbe, {trouble}. Mein Rat: {remedy}.",
    "{thing} ist nicht schuld. Wenn es heißt, {trouble}, dann hilft nur eins: {remedy}.",
)


@dataclass(frozen=True)
class SampleFile:
    """One chain file of the sample: its path below ``chains/`` and its rows."""

    path: Path
    table: pa.Table


def sample_files() -> Iterator[SampleFile]:
    """All files of the sample in path order of their subreddits, each with its table."""
    for subreddit, topics in THEMES.items():
        shard = subreddit[:2].lower()
        dice = random.Random(f"{SEED}/{subreddit}")
        sizes = TINY.get(subreddit) or tuple(
            dice.randrange(88, 140) for _ in range(FILES_PER_SUBREDDIT)
        )
        for number, size in enumerate(sizes):
            rows = 0 if (subreddit, number) == EMPTY else size
            path = Path(shard) / subreddit / f"chains_chunk_{number}.parquet"
            yield SampleFile(path, _table(dice, subreddit, shard, topics, number, rows))


def write_sample(root: Path, progress: Callable[[SampleFile], None] | None = None) -> int:
    """Writes the sample below ``root/chains``; files that are there already are left alone.

    Args:
        root: the folder that gets ``chains/``; made when missing.
        progress: called after each file.

    Returns:
        The number of files written now.

    Raises:
        StartupError: ``root/chains`` holds other files: the sample would mix with them.
    """
    chains = root / "chains"
    files = list(sample_files())
    known = {file.path for file in files}
    foreign = sorted(
        path
        for path in chains.rglob("*.parquet")
        if path.is_file() and path.relative_to(chains) not in known
    )
    if foreign:
        raise StartupError(
            f"{chains} holds chain files already, {foreign[0].name} among them.",
            hint="Choose an empty folder for the sample.",
        )
    written = 0
    for file in files:
        target = chains / file.path
        if not target.exists():
            with writing(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.with_name(target.name + ".sample.tmp")
                pq.write_table(file.table, temporary, compression="zstd")
                temporary.replace(target)
            written += 1
        if progress is not None:
            progress(file)
    return written


def _table(
    dice: random.Random,
    subreddit: str,
    shard: str,
    topics: tuple[Topic, ...],
    number: int,
    rows: int,
) -> pa.Table:
    columns: dict[str, list[object]] = {name: [] for name in SCHEMA.names}
    for row in range(rows):
        topic = topics[dice.randrange(len(topics))]
        serial = number * 1_000 + row
        identity = f"{subreddit[:2].encode().hex()}{serial:05d}"
        link = identity if row % 4 == 0 else f"{subreddit[:2].encode().hex()}{serial - row % 4:05d}"
        values: dict[str, object] = {
            "id": identity,
            "parent_id": None if link == identity else f"t3_{link}",
            "link_id": f"t3_{link}",
            "body": _body(dice, subreddit, topic, row),
            "is_idea": row % 4 == 0,
            "subreddit": subreddit,
            "author": None if row % 11 == 0 else f"user_{dice.randrange(400):03d}",
            "permalink": f"https://reddit.example/r/{subreddit}/comments/{link}/",
            "created_utc": 1_700_000_000 + serial * 977 + dice.randrange(900),
            "ups": int(dice.paretovariate(1.1)),
            "downs": dice.randrange(5),
            "sanitized_prefix": shard,
            "cpu_filter_is_idea": row % 4 == 0,
            "nlp_top_score": round(dice.uniform(0.5, 1.0), 4),
        }
        for name, value in values.items():
            columns[name].append(value)
    return pa.table(columns, schema=SCHEMA)


def _body(dice: random.Random, subreddit: str, topic: Topic, row: int) -> str | None:
    if row and subreddit != "tinytown":
        if row % 83 == 0:
            return None
        if row % 89 == 0:
            return ""
        place = row * 61 % 100
        for share, text in ((DELETED, "[deleted]"), (REMOVED, "[removed]"), (COPIED, COPY)):
            if place < share:
                return text
            place -= share
    return " ".join(sentences(dice, subreddit, topic)).strip()


def sentences(dice: random.Random, subreddit: str, topic: Topic) -> Iterator[str]:
    """A post of a subreddit on a topic."""
    things, troubles, remedies = (
        text.split("|") for text in (topic.things, topic.troubles, topic.remedies)
    )

    def fill(templates: tuple[str, ...]) -> str:
        text = templates[dice.randrange(len(templates))].format(
            thing=things[dice.randrange(len(things))],
            trouble=troubles[dice.randrange(len(troubles))],
            remedy=remedies[dice.randrange(len(remedies))],
            topic=topic.name,
            n=dice.randrange(2, 15),
        )
        return text[:1].upper() + text[1:]

    if subreddit == "日本旅行":
        yield from (fill(_PLAIN) for _ in range(dice.randrange(1, 4)))
    elif subreddit == "Kaffeeküche":
        yield from (fill(_GERMAN) for _ in range(dice.randrange(1, 3)))
    else:
        yield fill(_OPENINGS)
        yield from (fill(_MIDDLES) for _ in range(dice.randrange(0, 4)))
        yield fill(_ENDINGS)
