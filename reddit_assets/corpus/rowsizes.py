"""How large a Parquet file's values may be, from its metadata and the headers of first pages.

A dictionary page holds each value once, and a few bytes then stand for it in every row: 500 bytes
of a file may be gigabytes in memory. Its size bounds the longest of its values.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import pyarrow.parquet as pq

__all__ = ["Largest", "bounded_rows", "largest_pages"]

DECODED_BYTES = 128_000_000
"""Most bytes of a batch, decompressed: batches have as few rows as that takes."""

_HEADER = 32


class Largest(NamedTuple):
    """Bytes, decompressed.

    Attributes:
        row: a row's mean, in the row group where that is largest.
        page: the largest first page of a column.
        dictionary: the largest dictionary page.
    """

    row: int
    page: int
    dictionary: int


def largest_pages(descriptor: int, metadata: pq.FileMetaData) -> Largest:
    """What a file's metadata and first pages say.

    Args:
        descriptor: the open file; its position is neither used nor moved.
    """
    row = page = dictionary = 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        row = max(row, group.total_byte_size // max(group.num_rows, 1))
        for at in range(group.num_columns):
            column = group.column(at)
            if column.physical_type not in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"):
                continue
            start = column.dictionary_page_offset
            if column.has_dictionary_page and start:
                dictionary = max(dictionary, _page_size(descriptor, start))
            else:
                page = max(page, _page_size(descriptor, column.data_page_offset))
    return Largest(row, page, dictionary)


def bounded_rows(descriptor: int, metadata: pq.FileMetaData, most: int) -> int:
    """Rows of a batch, at most ``most``, that surely fit into memory."""
    row, _, dictionary = largest_pages(descriptor, metadata)
    return max(1, min(most, DECODED_BYTES // max(row, dictionary, 1)))


def _page_size(descriptor: int, offset: int) -> int:
    """A page's size when decompressed; 0 where its header is not as expected.

    A header begins, in Thrift's compact protocol, with field 1 (i32): the kind of page, and field
    2 (i32): this size, each a zigzag varint.
    """
    if offset < 0:
        return 0
    header = os.pread(descriptor, _HEADER, offset)
    if len(header) < 4 or header[0] != 0x15 or header[2] != 0x15:
        return 0
    size = shift = 0
    for byte in header[3:8]:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return size >> 1
