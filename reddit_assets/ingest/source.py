"""A dump as blocks of whole lines, with the place of each in the text of the dump."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from reddit_assets.corpus.oserrors import open_file, reading, unreadable
from reddit_assets.errors import BadFileError, first_line
from reddit_assets.ingest.engine import zstandard
from reddit_assets.ingest.store import STDIN

__all__ = ["LONGEST_LINE", "Block", "Damage", "blocks"]

BLOCK_BYTES = 24_000_000
LONGEST_LINE = 8_000_000
"""Bytes; a message has 40,000 characters at most, so a longer line is damage."""

_CHUNK = 1 << 17
_WINDOW = 1 << 31
_ZST, _GZIP = b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08"
_REFUSED = {
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\0": "an xz file",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "a parquet file without that name",
}


@dataclass(frozen=True, slots=True)
class Damage:
    """A line that is no message, or a part of a dump that is not there as lines.

    Attributes:
        offset: bytes of text before it; of a Parquet file, rows.
        reason: why; of a part, with the place in the file.
        line: the line, or the part's first bytes.
    """

    offset: int
    reason: str
    line: bytes = b""


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines.

    Attributes:
        data: ends with a newline, except for the last line of a dump.
        offset: of its first byte in the (decompressed) text.
        read: bytes of the file read so far.
        damage: what was left out before it.
    """

    data: bytes
    offset: int
    read: int
    damage: tuple[Damage, ...] = ()


def blocks(path: Path, *, skip_corrupt: bool = False, size: int = BLOCK_BYTES) -> Iterator[Block]:
    """The lines of a dump.

    Args:
        path: a file, or ``-`` for standard input; its compression is seen from its first bytes.
        skip_corrupt: go on behind a part that cannot be decompressed, where another one begins.
        size: of a block, about.

    Raises:
        BadFileError: it cannot be read, or is damaged; with the place.
    """
    try:
        file = sys.stdin.buffer if path == STDIN else open_file(path)
    except OSError as error:
        raise unreadable(path, error) from None
    with closing(file), reading(path):
        yield from _Lines(path, file, skip_corrupt, size)


class _Lines:
    """Cuts the text at newlines."""

    def __init__(self, path: Path, file: BinaryIO, skip: bool, size: int) -> None:
        self.path, self.file, self.skip, self.size = path, file, skip, size
        self.read = 0  # of the file
        self.text = 0  # bytes of text before what is in hand
        self.damage: list[Damage] = []

    def __iter__(self) -> Iterator[Block]:
        held: list[bytes] = []  # pieces, joined once
        length = 0
        too_long = False
        for piece in self._pieces():
            if piece is None:  # damage: the line that it cuts is a malformed one
                if held:
                    yield self._block(b"".join(held))
                held, length = [], 0
                continue
            if too_long:
                at = piece.find(b"\n")
                drop = len(piece) if at < 0 else at + 1
                self.text += drop
                piece, too_long = piece[drop:], at < 0
            held.append(piece)
            length += len(piece)
            if length < self.size:
                continue
            cut = piece.rfind(b"\n") + 1
            if cut:
                held[-1] = piece[:cut]
                yield self._block(b"".join(held))
                held, length = [piece[cut:]], len(piece) - cut
            elif length > LONGEST_LINE:
                start = b"".join(held)[:200]
                self.damage.append(Damage(self.text, "the line is too long", start))
                self.text += length
                held, length, too_long = [], 0, True
        if length or self.damage:
            yield self._block(b"".join(held))

    def _block(self, data: bytes) -> Block:
        block = Block(data, self.text, self.read, tuple(self.damage))
        self.text += len(data)
        self.damage = []
        return block

    # --- decompression -------------------------------------------------------------------
    def _pieces(self) -> Iterator[bytes | None]:
        """Text; ``None`` where a part of it is missing."""
        head = self._take(_CHUNK)
        if not head:
            raise BadFileError(f"{self.path} is empty.", hint="Fetch it again.")
        for sign, name in _REFUSED.items():
            if head.startswith(sign):
                raise BadFileError(
                    f"{self.path} is {name}, which is not read.",
                    hint="Unpack it into ingest's standard input: … | reddit-assets ingest - "
                    "--name RC_2012-05.jsonl.",
                )
        if self.path.name.endswith(".zst_blocks"):
            return self._zst_blocks(head)
        if head.startswith(_ZST) or self.path.suffix == ".zst":
            return self._frames(head, _ZST, _zst_frames())
        if head.startswith(_GZIP):
            return self._frames(head, _GZIP, lambda: zlib.decompressobj(wbits=31))
        return self._plain(head)

    def _take(self, size: int) -> bytes:
        data = self.file.read(size)
        self.read += len(data)
        return data

    def _plain(self, data: bytes) -> Iterator[bytes]:
        while data:
            yield data
            data = self._take(_CHUNK * 8)

    def _frames(
        self, data: bytes, sign: bytes, new: Callable[[], _Decompressor]
    ) -> Iterator[bytes | None]:
        """Frames of zstandard, members of gzip.

        Args:
            sign: what each begins with.
            new: a decompressor of one.
        """
        frame, begun = new(), False
        while data or begun:
            if not data and not (data := self._take(_CHUNK)):
                yield from self._bad("it ends in the middle of a frame")
                return
            if not begun and not data.strip(b"\0"):
                data = self._take(_CHUNK)  # padding
                continue
            try:
                piece = frame.decompress(data)
                begun = True
            except (zstandard.ZstdError, zlib.error) as error:
                yield from self._bad(first_line(error), len(data))
                data = self._next_frame(data, sign)
                frame, begun = new(), False
                continue
            if piece:
                yield piece
            data = b""
            if frame.eof:
                data = frame.unused_data or self._take(_CHUNK)
                frame, begun = new(), False

    def _next_frame(self, data: bytes, sign: bytes) -> bytes:
        """What follows from the next frame on."""
        data = data[1:]
        while (at := data.find(sign)) < 0:
            more = self._take(_CHUNK)
            if not more:
                return b""
            data = data[1 - len(sign) :] + more
        return data[at:]

    def _zst_blocks(self, data: bytes) -> Iterator[bytes | None]:
        """Each block: its size, then as zstandard the number of rows, their places, their text."""
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        while data:
            data += self._take(max(0, 4 - len(data)))
            size = struct.unpack_from("<I", data.ljust(4, b"\0"))[0]
            if len(data) < 4 + size:
                data += self._take(4 + size - len(data))
            block, data = data[4 : 4 + size], data[4 + size :]
            if not size or len(block) < size:
                yield from self._bad("it ends in the middle of a block")
                return
            frame = decompressor.decompressobj()
            try:
                text = frame.decompress(block)
                if not frame.eof:
                    raise zstandard.ZstdError("a block is not whole")
                count = struct.unpack_from("<I", text)[0]
                places = struct.unpack_from(f"<{2 * count}I", text, 4)
                body = memoryview(text)[4 + 8 * count :]
                rows = zip(places[::2], places[1::2], strict=True)
                yield b"".join(
                    bytes(body[at : at + length]).rstrip(b"\n") + b"\n" for at, length in rows
                )
            except (zstandard.ZstdError, struct.error) as error:
                yield from self._bad(first_line(error), len(data))
            data = data or self._take(_CHUNK)

    def _bad(self, why: str, unused: int = 0) -> Iterator[None]:
        at = self.read - unused
        if not self.skip:
            raise self._corrupt(at, why)
        self.damage.append(Damage(self.text, f"corrupt at byte {at:,} of the file: {why}"))
        yield None

    def _corrupt(self, at: int, why: str) -> BadFileError:
        return BadFileError(
            f"{self.path} is corrupt near byte {at:,} (after {self.text:,} bytes of text): {why}.",
            hint="Fetch it again, or read what can be read: --skip-corrupt (REDDIT_SKIP_CORRUPT).",
        )


class _Decompressor(Protocol):
    """Of one frame."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _zst_frames() -> Callable[[], _Decompressor]:
    context = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    return lambda: context.decompressobj(write_size=_CHUNK * 8)
