"""Whether an embedding file holds the vectors that the fp32 reference makes of its texts.

The check at a worker's start looks at the backend; this looks at what was written: a sample of a
file's rows is embedded again by an exact backend and compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reddit_assets.corpus.provenance import EmbeddingProvenance, read_output
from reddit_assets.corpus.texts import TEXT_COLUMNS, parse_columns, texts_of
from reddit_assets.corpus.vectors import FLOAT16_BOUND, find_vectors
from reddit_assets.engines.embedding.conformance import BOUNDS, agreement
from reddit_assets.engines.embedding.engine import Embedder
from reddit_assets.errors import BadFileError, first_line

__all__ = ["Verification", "verify_file"]

_BATCH_ROWS = 2_048

ADOPTED_BOUND = min(BOUNDS.values())
"""For files of the earlier system, which do not say in which precision they were made."""


def beside_float16(bound: float) -> float:
    """The bound of vectors that were rounded to float16 besides: the two angles add up."""
    return math.cos(math.acos(bound) + math.acos(FLOAT16_BOUND))


@dataclass(frozen=True)
class Verification:
    """What computing a sample again found.

    Attributes:
        rows: rows compared.
        min_cosine: the worst row's; 1.0 if the file has no rows.
        mean_cosine: over the rows.
        bound: smallest cosine that the precision of the file may have.
        model: fingerprint of the file's model, or ``""`` if it does not say.
        adopted: whether the earlier system made the file.
        only_long_deviate: whether just the rows deviate whose texts are as long as the model
            reads, or longer: they were cut elsewhere.
    """

    rows: int
    min_cosine: float
    mean_cosine: float
    bound: float
    model: str
    adopted: bool
    only_long_deviate: bool = False

    @property
    def conformant(self) -> bool:
        """Whether every compared row keeps the bound."""
        return self.min_cosine >= self.bound


def verify_file(path: Path, reference: Embedder, rows: int, *, seed: int = 0) -> Verification:
    """Embed a sample of a file's rows again and compare.

    The rows come from one row group, drawn by its number of rows, so that a large file costs no
    more than a small one. A quarter of them are those of its longest texts.

    Args:
        path: the embedding file; its texts are in it.
        reference: an exact embedder of the same model.
        rows: rows compared at most.
        seed: of the draw.

    Raises:
        FileNotFoundError: there is no such file.
        BadFileError: it is not a whole embedding file.
    """
    output = read_output(path)
    provenance = output.provenance
    bound, model, text_column = ADOPTED_BOUND, "", ""
    if isinstance(provenance, EmbeddingProvenance):
        bound = BOUNDS.get(str(provenance.writer.get("precision")), ADOPTED_BOUND)
        model, text_column = provenance.model.fingerprint, provenance.text_column
    texts, vectors, half = _sample(path, text_column, rows, np.random.default_rng(seed))
    if half:
        bound = beside_float16(bound)
    adopted = provenance is None
    if not len(texts):
        return Verification(0, 1.0, 1.0, bound, model, adopted)
    if vectors.shape[1] != reference.dimension:
        raise BadFileError(
            f"{path} has vectors of {vectors.shape[1]} dimensions, the model {reference.dimension}."
        )
    unit = reference.spec.normalize and not adopted
    made = reference.encode_counted(texts)
    similar = agreement(vectors, made.vectors, unit=unit)
    deviates, long = similar < bound, made.tokens >= reference.spec.max_tokens
    return Verification(
        len(similar),
        float(similar.min()),
        float(similar.mean()),
        bound,
        model,
        adopted,
        bool(deviates.any() and not long.all() and long[deviates].all()),
    )


def _sample(
    path: Path, text_column: str, rows: int, random: np.random.Generator
) -> tuple[pa.Array, np.ndarray, bool]:
    """Texts, and vectors of shape (n, dimension), of up to ``rows`` rows of one row group; and
    whether the vectors were rounded to float16.
    """
    try:
        with pq.ParquetFile(path) as file:
            stored = find_vectors(file.schema_arrow, file.metadata)
            column = text_column or next(
                (name for name in TEXT_COLUMNS if name in file.schema_arrow.names), ""
            )
            if stored is None or not column:
                raise BadFileError(f"{path} has no text column or no vectors.")
            sizes = [
                file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)
            ]
            if not sum(sizes):
                none = np.empty((0, stored.dimension), np.float32)
                return pa.array([], pa.large_string()), none, stored.half
            group = int(random.choice(len(sizes), p=np.array(sizes) / sum(sizes)))
            read = dict.fromkeys(name for choice in parse_columns(column) for name in choice)
            chosen = _chosen(_lengths(file, group, column, [*read]), rows, random)
            table = _rows(file, group, [*read, *stored.read], chosen)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise BadFileError(f"{path} cannot be read: {first_line(error)}.") from None
    batch = table.combine_chunks().to_batches()[0]
    return texts_of(batch, column), stored.array(batch), stored.half


def _lengths(file: pq.ParquetFile, group: int, column: str, names: list[str]) -> np.ndarray:
    """Bytes of each text of a row group."""
    batches = file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=names)
    found = [pc.fill_null(pc.binary_length(texts_of(batch, column)), 0) for batch in batches]
    return np.concatenate([lengths.to_numpy(zero_copy_only=False) for lengths in found])


def _chosen(lengths: np.ndarray, rows: int, random: np.random.Generator) -> np.ndarray:
    """Some rows, ascending: those of the longest texts, and any others."""
    order = np.argsort(-lengths, kind="stable")
    longest, others = order[: rows // 4], order[rows // 4 :]
    count = min(rows - len(longest), len(others))
    return np.sort(np.concatenate([longest, random.choice(others, count, replace=False)]))


def _rows(file: pq.ParquetFile, group: int, columns: list[str], chosen: np.ndarray) -> pa.Table:
    """The chosen rows (ascending) of a row group, without holding all of it: it may be large."""
    parts, start = [], 0
    for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns):
        within = chosen[(chosen >= start) & (chosen < start + len(batch))] - start
        if len(within):
            parts.append(batch.take(pa.array(within)))
        start += len(batch)
    return pa.Table.from_batches(parts)
