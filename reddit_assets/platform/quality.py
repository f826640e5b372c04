"""What the asset checks look at: whether embeddings are valid, conformant, clusters healthy."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.oserrors import open_file
from reddit_assets.corpus.provenance import (
    ClusterProvenance,
    EmbeddingProvenance,
    OutputFile,
    read_output,
)
from reddit_assets.corpus.scan import Reason, Scanner
from reddit_assets.corpus.texts import MOSTLY
from reddit_assets.corpus.vectors import find_vectors
from reddit_assets.engines.vectors import NORM_TOLERANCE
from reddit_assets.errors import BadFileError

__all__ = [
    "Findings",
    "check_clusters",
    "check_conformance",
    "check_embeddings",
    "check_stable",
    "sample_keys",
]

_ROWS_READ = 2_000
_NOISE_LIMIT = 0.9
# What a quick look sees of a file that is not whole.
_BROKEN = (Reason.EMPTY, Reason.DAMAGED, Reason.INCOMPLETE)
# Below this many rows, noise alone says nothing.
_FEW_ROWS = 200
_DAY = 86_400


@dataclass
class Findings:
    """What a check found.

    Attributes:
        problems: sentences by partition key.
        warnings: likewise, of less weight.
    """

    looked_at: int = 0
    rows: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """One sentence."""
        text = f"{self.looked_at} outputs looked at, {len(self.problems)} with problems"
        if self.warnings:
            text += f", {len(self.warnings)} with warnings"
        return text + "."


def sample_keys(scanner: Scanner, number: int, seed: int | None = None) -> list[str]:
    """Keys of embedding files: broken ones, then the newest for half of the rest, others drawn."""
    broken: list[str] = []
    done: list[tuple[int, str]] = []
    for status in scanner.scan():
        for file in status.files:
            if file.reason in _BROKEN:
                broken.append(file.key)
            elif file.verdict.done and file.output_stamp:
                done.append((file.output_stamp.mtime_ns, file.key))
    broken = broken[:number]
    keys = [key for _, key in sorted(done, reverse=True)]
    half = (number - len(broken)) // 2
    rest = keys[half:]
    drawn = random.Random(seed).sample(rest, min(len(rest), number - len(broken) - half))
    return sorted([*broken, *keys[:half], *drawn])


def check_embeddings(layout: Layout, keys: Sequence[str], budget_seconds: float = 30.0) -> Findings:
    """Schema, rows, unit norms and NaN of embedding files (the first 2,000 rows' vectors)."""
    found = Findings()
    deadline = time.monotonic() + budget_seconds
    for key in keys:
        if time.monotonic() > deadline:
            break
        try:
            problem, rows = _embedding_problem(layout, key)
        except FileNotFoundError:
            continue  # vanished since the sample was drawn
        found.looked_at += 1
        found.rows += rows
        if problem:
            found.problems[key] = problem
        elif warning := _empty_texts(layout, key):
            found.warnings[key] = warning
    return found


def _empty_texts(layout: Layout, key: str) -> str:
    made = read_output(layout.embedding_path(key)).provenance
    if not isinstance(made, EmbeddingProvenance) or made.empty_texts <= MOSTLY:
        return ""
    return (
        f"{made.empty_texts:.0%} of its texts are empty ({made.text_column}). Is the text in "
        "another column? REDDIT_TEXT_COLUMNS names it."
    )


def _embedding_problem(layout: Layout, key: str) -> tuple[str, int]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = layout.embedding_path(key)
    try:
        output = read_output(path)
        with open_file(layout.chain_path(key)) as chain:
            chain_rows = pq.read_metadata(chain).num_rows
        with open_file(path) as opened, pq.ParquetFile(opened) as file:
            schema = file.schema_arrow
            stored = find_vectors(schema, file.metadata)
            if stored is None:
                return "It has no vectors: no emb_… columns and no list `emb`.", output.rows
            batch = next(file.iter_batches(batch_size=_ROWS_READ, columns=list(stored.read)), None)
    except BadFileError as error:
        return error.message, 0
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        return f"It cannot be read: {error}", 0
    if output.rows != chain_rows:
        return f"It has {output.rows} rows, its chain file {chain_rows}.", output.rows
    if not (output.adopted or stored.kinds in ({pa.float32()}, {pa.float16()})):
        kinds = ", ".join(sorted(map(str, stored.kinds)))
        return f"Its vectors are {kinds}, not float or halffloat.", output.rows
    provenance = output.provenance
    if isinstance(provenance, EmbeddingProvenance):
        wanted = provenance.model.dimension
        if wanted != output.dimension:
            return f"Its vectors have {output.dimension} of {wanted} dimensions.", output.rows
    if batch is None or batch.num_rows == 0:
        return "", output.rows
    vectors = stored.array(batch)
    if not np.isfinite(vectors).all():
        return "It has NaN or infinite values.", output.rows
    away = float(np.abs(np.linalg.norm(vectors, axis=1) - 1).max())
    if away > NORM_TOLERANCE:
        return f"A norm differs from 1 by {away:.4f}.", output.rows
    return "", output.rows


def check_conformance(layout: Layout, keys: Sequence[str]) -> Findings:
    """Whether the files were written by conformant backends, by their provenance."""
    found = Findings()
    for key in keys:
        try:
            output = read_output(layout.embedding_path(key))
        except (FileNotFoundError, BadFileError):
            continue
        found.looked_at += 1
        found.rows += output.rows
        provenance = output.provenance
        if not isinstance(provenance, EmbeddingProvenance):
            found.warnings[key] = "Made by the earlier system; how is not known."
        elif not provenance.conformant:
            writer = provenance.writer
            found.problems[key] = (
                f"Made by the nonconformant backend {writer.get('backend')} "
                f"({writer.get('precision')})."
            )
    return found


def check_clusters(
    scanner: Scanner, keys: Sequence[str] | None = None, budget_seconds: float = 60.0
) -> Findings:
    """Rows equal to the inputs', at least one cluster, and not nearly all of it noise.

    Args:
        keys: the subreddits to look at; all that are clustered if not given.
    """
    found = Findings()
    deadline = time.monotonic() + budget_seconds
    for key, output in _clusters(scanner, keys):
        if time.monotonic() > deadline:
            break
        found.looked_at += 1
        found.rows += output.rows
        provenance = output.provenance
        if not isinstance(provenance, ClusterProvenance):
            continue
        try:
            rows = sum(
                read_output(scanner.layout.embedding_path(k)).rows for k in provenance.inputs
            )
        except (FileNotFoundError, BadFileError):
            continue  # its inputs have just changed: it is made again
        if rows != output.rows:
            found.problems[key] = f"It has {output.rows} rows, its inputs {rows}."
            continue
        if output.rows < _FEW_ROWS:
            continue
        noise = float(provenance.summary.get("noise_share", 0.0))
        if not int(provenance.summary.get("clusters", 1)):
            found.warnings[key] = f"No cluster in {output.rows} rows."
        elif noise > _NOISE_LIMIT:
            found.warnings[key] = f"{noise:.0%} of {output.rows} rows are noise."
    return found


def check_stable(
    scanner: Scanner,
    most: float,
    keys: Sequence[str] | None = None,
    budget_seconds: float = 60.0,
) -> Findings:
    """Whether few rows changed their cluster in the last night of a subreddit.

    Args:
        most: share of the rows that may change theirs.
        keys: the subreddits to look at; all that were clustered in the last day if not given.
    """
    found = Findings()
    deadline = time.monotonic() + budget_seconds
    recently = 0.0 if keys is not None else time.time() - _DAY
    for key, output in _clusters(scanner, keys, recently):
        if time.monotonic() > deadline:
            break
        provenance = output.provenance
        if not isinstance(provenance, ClusterProvenance):
            continue
        found.looked_at += 1
        found.rows += output.rows
        moved = (provenance.summary.get("changes") or {}).get("moved_share") or 0.0
        if output.rows >= _FEW_ROWS and moved > most:
            how = (
                "new rows placed" if provenance.summary.get("placed_rows") else "a full clustering"
            )
            found.warnings[key] = (
                f"{moved:.0%} of its rows have another cluster than before ({how}); "
                f"REDDIT_MOVED_SHARE allows {most:.0%}."
            )
    return found


def _clusters(
    scanner: Scanner, keys: Sequence[str] | None, since: float = 0.0
) -> Iterator[tuple[str, OutputFile]]:
    for key in scanner.subreddits() if keys is None else keys:
        path = scanner.layout.cluster_path(key)
        try:
            if path.stat().st_mtime >= since:
                yield key, read_output(path)
        except (OSError, BadFileError):
            continue  # none yet, it is made again, or its place says why in the scan
