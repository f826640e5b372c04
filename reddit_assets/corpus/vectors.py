"""Where a file keeps its vectors: as ``emb_…`` columns, as the list ``emb``, or as both.

Columns in float32 are the wire format. A list costs a file of few rows next to nothing, where 384
columns cost more than the vectors. Every reader takes every form; what a vector is does not depend
on where it is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from reddit_assets.errors import BadFileError
from reddit_assets.settings import Settings

__all__ = [
    "FLOAT16_BOUND",
    "VECTOR_LIST",
    "StoredVectors",
    "VectorFormat",
    "as_float16",
    "embedding_names",
    "find_vectors",
    "is_embedding_column",
    "leaves_of",
]

#: The list column's name.
VECTOR_LIST = "emb"
# Other programs' files, where they have no other vectors.
_FOREIGN_LIST = "embedding"

_ROUNDING = 1e-3
FLOAT16_BOUND = 1 - _ROUNDING**2 / 2
"""Smallest cosine of a vector in float16 to the same in float32. float16 keeps 11 bits of each
number, so that a vector moves by 2⁻¹¹ of its length at most (cosine 1 − 1.2e-7); twice that is
allowed, for the tiny numbers, which keep fewer."""


def is_embedding_column(name: str) -> bool:
    """Whether ``name`` is one of ``emb_000``, ``emb_001``, …."""
    return len(name) >= 7 and name.startswith("emb_") and name[4:].isdigit()


def embedding_names(dimension: int) -> list[str]:
    """``emb_000`` … of a model's dimension."""
    return [f"emb_{index:03d}" for index in range(dimension)]


def as_float16(vectors: NDArray[np.float32]) -> NDArray[np.float16]:
    """The nearest float16 numbers, of the same shape (n, dimension).

    Raises:
        BadFileError: a vector would move by more than :data:`FLOAT16_BOUND` allows: it is not
            finite, or its numbers are too large or too small.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = vectors.astype(np.float16)
        moved = vectors - rounded
        error = np.einsum("ij,ij->i", moved, moved, dtype=np.float64)
        length = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    outside = ~(error <= _ROUNDING**2 * length)
    if outside.any():
        raise BadFileError(
            f"{int(outside.sum()):,} of {len(vectors):,} vectors cannot be kept in float16.",
            hint="Set REDDIT_VECTOR_DTYPE=float32.",
        )
    return rounded


@dataclass(frozen=True, slots=True)
class VectorFormat:
    """How vectors are written.

    Attributes:
        layout: as columns, as a list, or as both.
        dtype: of the numbers. Beside a list, columns are float32 always: they are there for
            programs that know the wire format alone.
    """

    layout: Literal["columns", "list", "both"] = "columns"
    dtype: Literal["float32", "float16"] = "float32"

    @classmethod
    def from_settings(cls, settings: Settings) -> VectorFormat:
        """The wanted one."""
        return cls(settings.vector_layout, settings.vector_dtype)

    def __str__(self) -> str:
        return f"{self.layout} {self.dtype}"

    @property
    def _kinds(self) -> tuple[pa.DataType | None, pa.DataType | None]:
        """The types of the columns and of the list's numbers; ``None`` where there are none."""
        kind = pa.float16() if self.dtype == "float16" else pa.float32()
        columns = {"columns": kind, "list": None, "both": pa.float32()}[self.layout]
        return columns, None if self.layout == "columns" else kind

    def fields(self, dimension: int) -> tuple[pa.Field, ...]:
        """The fields of vectors of ``dimension`` numbers; none can be null."""
        return _fields(*self._kinds, dimension)

    def arrays(self, vectors: NDArray[np.float32]) -> list[pa.Array]:
        """The columns of :meth:`fields` for vectors of shape (n, dimension).

        Raises:
            BadFileError: they cannot be kept in float16.
        """
        columns, items = self._kinds
        half = as_float16(vectors) if self.dtype == "float16" else None
        made: list[pa.Array] = []
        rows, dimension = vectors.shape
        if columns is not None:
            # Slices of one array: making 384 arrays takes longer than writing a small file's rows.
            numbers = half if half is not None and columns == pa.float16() else vectors
            flat = pa.array(np.ascontiguousarray(numbers.T).reshape(-1), columns)
            made.extend(flat.slice(index * rows, rows) for index in range(dimension))
        if items is not None:
            numbers = vectors if half is None else half
            flat = pa.array(np.ascontiguousarray(numbers).reshape(-1), items)
            kind = self.fields(dimension)[-1].type
            made.append(pa.FixedSizeListArray.from_arrays(flat, type=kind))
        return made


@lru_cache(maxsize=8)
def _fields(
    columns: pa.DataType | None, items: pa.DataType | None, dimension: int
) -> tuple[pa.Field, ...]:
    """Kept: making 384 takes as long as reading a small file."""
    names = embedding_names(dimension) if columns is not None else []
    fields = [pa.field(name, columns, nullable=False) for name in names]
    if items is not None:
        kind = pa.list_(pa.field("element", items, nullable=False), dimension)
        fields.append(pa.field(VECTOR_LIST, kind, nullable=False))
    return tuple(fields)


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """Where a file has its vectors.

    Attributes:
        columns: ``emb_…`` in order; they are read where there are any.
        list: the list column's name, or empty.
        dimension: numbers per vector; 0 where only the rows can say it.
        kinds: types of the numbers that are read; of one writer's file it is one.
        list_kind: type of the list's numbers.
    """

    columns: tuple[str, ...]
    list: str
    dimension: int
    kinds: frozenset[pa.DataType]
    list_kind: pa.DataType | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that hold vectors; the others are the chain file's."""
        return (*self.columns, self.list) if self.list else self.columns

    @property
    def read(self) -> tuple[str, ...]:
        """The columns to read for :meth:`array`."""
        return self.columns or (self.list,)

    @property
    def half(self) -> bool:
        """Whether what is read was rounded to float16."""
        return pa.float16() in self.kinds

    def is_as(self, wanted: VectorFormat) -> bool:
        """Whether the vectors are kept as ``wanted``, the columns' names and order included."""
        columns, items = wanted._kinds
        return (
            (self.kinds == {columns} if self.columns else columns is None)
            and self.list_kind == items
            and self.list in ("", VECTOR_LIST)
            and self.columns in ((), tuple(embedding_names(len(self.columns))))
        )

    def array(self, batch: pa.RecordBatch) -> NDArray[np.float32]:
        """The vectors of a batch that has the columns :attr:`read`, float32 (n, dimension).

        A vector that is null, or of another length than the file's, is NaN.
        """
        if self.columns:
            block = np.empty((len(self.columns), batch.num_rows), np.float32)
            for index, name in enumerate(self.columns):
                block[index] = batch.column(name).to_numpy(zero_copy_only=False)
            return block.T
        column = batch.column(self.list)
        lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False)
        flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        whole = lengths == self.dimension
        if whole.all():
            return flat.reshape(-1, self.dimension)
        result = np.full((len(lengths), self.dimension), np.nan, np.float32)
        result[whole] = flat[np.repeat(whole, np.maximum(lengths, 0))].reshape(-1, self.dimension)
        return result


def find_vectors(
    schema: pa.Schema, metadata: pq.FileMetaData | None = None
) -> StoredVectors | None:
    """Where a file with this schema keeps its vectors; ``None`` if it has none.

    Columns count before a list. Besides our own forms it takes numbers of any width, and lists
    without a fixed size, called ``emb`` or ``embedding``.

    Args:
        metadata: of the file; tells the dimension of lists without a fixed size.
    """
    columns = tuple(sorted(filter(is_embedding_column, schema.names)))
    kinds = frozenset(schema.field(name).type for name in columns)
    for name in (VECTOR_LIST,) if columns else (VECTOR_LIST, _FOREIGN_LIST):
        item = _numbers_in(schema, name)
        if item is None:
            continue
        kind = schema.field(name).type
        size = kind.list_size if pa.types.is_fixed_size_list(kind) else _longest(metadata, name)
        if not columns:
            return StoredVectors((), name, size, frozenset({item}), item)
        if size == len(columns):
            return StoredVectors(columns, name, size, kinds, item)
    return StoredVectors(columns, "", len(columns), kinds) if columns else None


def _numbers_in(schema: pa.Schema, name: str) -> pa.DataType | None:
    """The type of the floating numbers in a list column; ``None`` if it is no such column."""
    if schema.names.count(name) != 1:
        return None
    kind = schema.field(name).type
    lists = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)
    if any(is_kind(kind) for is_kind in lists) and pa.types.is_floating(kind.value_type):
        return kind.value_type
    return None


def _longest(metadata: pq.FileMetaData | None, name: str) -> int:
    """Numbers per row of a list without a fixed size, as the file's row groups count them."""
    sizes = [0]
    if metadata is None:
        return 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        for at in range(group.num_columns if group.num_rows else 0):
            column = group.column(at)
            if column.path_in_schema.startswith(f"{name}."):
                sizes.append(-(-column.num_values // group.num_rows))
    return max(sizes)


def leaves_of(fields: Iterable[pa.Field]) -> list[str]:
    """Parquet's names of the columns that fields are stored in."""
    return [leaf for field in fields for leaf in _leaves(field.name, field.type)]


def _leaves(path: str, kind: pa.DataType) -> list[str]:
    if pa.types.is_struct(kind):
        return [leaf for child in kind for leaf in _leaves(f"{path}.{child.name}", child.type)]
    if pa.types.is_map(kind):
        return [
            leaf
            for part, type_ in (("key", kind.key_type), ("value", kind.item_type))
            for leaf in _leaves(f"{path}.key_value.{part}", type_)
        ]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _leaves(f"{path}.list.element", kind.value_type)
    return [path]
