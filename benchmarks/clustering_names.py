"""Names of clusters before and after: side by side, their coherence and diversity, a blind choice.

*Before* is the name that a cluster had until phrases were chosen: its three best keywords. Clusters
are drawn by seed from all subreddits of a tree that has been clustered.

    python benchmarks/clustering_names.py --root data --choice choice.md --key key.json
    python benchmarks/clustering_names.py --key key.json --answers answers.txt

The choice shows each cluster's typical posts and the two names as A and B in random order. The
answers are lines ``<number> A``, ``<number> B`` or ``<number> =``.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from clustering_common import RESULTS, arguments, surroundings, write

from reddit_assets.corpus.layout import TABLE_NAME, Layout
from reddit_assets.corpus.provenance import cluster_inputs
from reddit_assets.engines.clustering.phrases import runs_of, stems_of
from reddit_assets.tasks.inputs import open_inputs
from reddit_assets.tasks.posts import FilePosts, columns_of_texts
from reddit_assets.tasks.report import clusters_report

Cluster = dict[str, Any]


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--clusters", type=int, default=100, help="How many are drawn.")
    parser.add_argument("--seed", type=int, default=0, help="Of the draw and of the order.")
    parser.add_argument("--choice", type=Path, help="File for the blind choice.")
    parser.add_argument("--key", type=Path, help="File that says which name is which.")
    parser.add_argument("--answers", type=Path, help="Answers to count against the key.")
    given = parser.parse_args()
    if given.answers:
        count(given)
        return
    if given.root is None:
        raise SystemExit("--root names a tree with clusters: `reddit-assets cluster --root DIR`.")
    layout = Layout.of(given.root)
    clusters = all_clusters(layout)
    drawn = random.Random(given.seed).sample(clusters, min(given.clusters, len(clusters)))
    held = words_of_posts(layout)
    rows = [
        {
            **surroundings(),
            "names": which,
            "clusters": len(clusters),
            **quality(clusters, which, held),
        }
        for which in ("before", "after")
    ]
    write(RESULTS / "clustering_names_quality.csv", rows)
    shown = ("subreddit", "size", "before", "after")
    listed = [{name: one[name] for name in shown} for one in drawn]
    write(given.out or RESULTS / "clustering_names.csv", listed)
    if given.choice and given.key:
        ask(drawn, given)


def all_clusters(layout: Layout) -> list[Cluster]:
    """Every cluster of the tree with its two names, in a fixed order."""
    found: list[Cluster] = []
    for table in sorted(layout.clusters.glob(f"**/{TABLE_NAME}")):
        report = clusters_report(table)
        for row in sorted(report["clusters"], key=lambda row: row["cluster_id"]):
            found.append(
                {
                    "subreddit": report["key"],
                    "size": row["size"],
                    "before": ", ".join(row["keywords"][:3]) or row["name"],
                    "after": row["name"],
                    "posts": row["representative_texts"],
                }
            )
    return found


def words_of_posts(layout: Layout) -> list[set[str]]:
    """The stems of each post of the tree."""
    keys = sorted(layout.key_of(path) for path in layout.embeddings.glob("**/*.parquet"))
    files = cluster_inputs(layout, keys)
    inputs = open_inputs(files, keys)
    texts = FilePosts(inputs, columns_of_texts(files)).texts(np.arange(inputs.total))
    return [stems_of(runs_of("\n".join(said))) for said in texts]


def quality(clusters: list[Cluster], which: str, posts: list[set[str]]) -> dict[str, float]:
    """Mean NPMI of the words of a name (Bouma 2009; a post is a document), and diversity.

    Diversity is the share of different words among the words of all names, within a subreddit.
    """
    holding: dict[str, set[int]] = {}
    for at, stems in enumerate(posts):
        for root in stems:
            holding.setdefault(root, set()).add(at)
    coherence, different, words = [], 0, 0
    by_subreddit: dict[str, Counter[str]] = {}
    for one in clusters:
        mine = sorted(stems_of(runs_of(one[which])))
        by_subreddit.setdefault(one["subreddit"], Counter()).update(mine)
        pairs = [
            npmi(holding.get(a, set()), holding.get(b, set()), len(posts))
            for a, b in combinations(mine, 2)
        ]
        if pairs:
            coherence.append(sum(pairs) / len(pairs))
    for counter in by_subreddit.values():
        different, words = different + len(counter), words + counter.total()
    return {
        "npmi_coherence": round(sum(coherence) / max(len(coherence), 1), 4),
        "names_of_several_words": len(coherence),
        "diversity": round(different / max(words, 1), 4),
        "words_per_name": round(words / len(clusters), 2),
    }


def npmi(left: set[int], right: set[int], total: int) -> float:
    """Normalized pointwise mutual information of two words; −1 where no post holds both."""
    both = len(left & right) / total
    if not both:
        return -1.0
    if both == 1:
        return 1.0
    return math.log(both / (len(left) / total * len(right) / total)) / -math.log(both)


def ask(drawn: list[Cluster], given: argparse.Namespace) -> None:
    """Write the choice and its key; clusters whose names are equal are left out."""
    dice = random.Random(given.seed + 1)
    pairs = [one for one in drawn if one["before"].casefold() != one["after"].casefold()]
    lines = [
        "# Which name says better what the posts are about?\n",
        "Answer each number with A, B or = (neither is better).\n",
    ]
    key = {}
    for number, one in enumerate(pairs, 1):
        names = [("before", one["before"]), ("after", one["after"])]
        dice.shuffle(names)
        key[str(number)] = {letter: which for letter, (which, _) in zip("AB", names, strict=True)}
        name = one["subreddit"].rpartition("/")[2]
        lines.append(f"\n## {number}. A group of {one['size']} posts of r/{name}\n")
        lines += [f"- {text[:200]}" for text in one["posts"][:5]]
        lines += [f"\n    A: {names[0][1]}\n    B: {names[1][1]}"]
    given.choice.write_text("\n".join(lines) + "\n", encoding="utf-8")
    given.key.write_text(json.dumps(key, indent=1))
    print(f"{len(pairs)} pairs of {len(drawn)} clusters; the other names are the same.")


def count(given: argparse.Namespace) -> None:
    """How often the new name was preferred."""
    key = json.loads(given.key.read_text())
    counts: Counter[str] = Counter()
    for line in given.answers.read_text().split("\n"):
        number, _, letter = line.strip().partition(" ")
        if number.rstrip(".") in key:
            counts[key[number.rstrip(".")].get(letter.strip().upper(), "neither")] += 1
    decided = counts["before"] + counts["after"]
    share = counts["after"] / max(decided, 1)
    print(f"{dict(counts)}; of {decided} decided, the new name in {share:.0%}")


if __name__ == "__main__":
    main()
