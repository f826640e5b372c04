"""A dump as blocks of whole lines, with the place of each in the text of the dump."""

from __future__ import annotations

import gzip
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

from reddit_assets.corpus.oserrors import open_file, reading
from reddit_assets.errors import BadFileError, first_line
from reddit_assets.ingest.store import STDIN

__all__ = ["LONGEST_LINE", "Block", "Damage", "blocks"]

BLOCK_BYTES = 32_000_000
LONGEST_LINE = 8_000_000
"""Bytes; a message has 40,000 characters at most, so a longer line is damage."""

_CHUNK = 1 << 17
_WINDOW = 1 << 31
_FRAME = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of a dump that is not there as lines.

    Attributes:
        offset: bytes of text before it.
        reason: why, with the place in the file.
        line: its first bytes.
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
    except FileNotFoundError:
        raise BadFileError(f"There is no file {path}.", hint="Check its name.") from None
    except OSError as error:
        raise BadFileError(f"{path} cannot be read: {error.strerror}.") from None
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
        held = bytearray()
        too_long = False
        for piece in self._pieces():
            if piece is None:  # damage: the line that it cuts is a malformed one
                if held:
                    yield self._block(bytes(held))
                    held.clear()
                continue
            held += piece
            if too_long:
                at = held.find(b"\n")
                drop = len(held) if at < 0 else at + 1
                self.text += drop
                del held[:drop]
                too_long = at < 0
            if len(held) < self.size:
                continue
            cut = held.rfind(b"\n") + 1
            if cut:
                yield self._block(bytes(held[:cut]))
                del held[:cut]
            elif len(held) > LONGEST_LINE:
                self.damage.append(Damage(self.text, "the line is too long", bytes(held[:200])))
                self.text += len(held)
                held.clear()
                too_long = True
        if held or self.damage:
            yield self._block(bytes(held))

    def _block(self, data: bytes) -> Block:
        block = Block(data, self.text, self.read, tuple(self.damage))
        self.text += len(data)
        self.damage = []
        return block

    # --- decompression -------------------------------------------------------------------
    def _pieces(self) -> Iterator[bytes | None]:
        head = self._take(_CHUNK)
        if self.path.name.endswith(".zst_blocks"):
            pieces = self._zst_blocks(head)
        elif head.startswith(_FRAME) or self.path.suffix == ".zst":
            pieces = self._zst(head)
        elif head.startswith(b"\x1f\x8b"):
            pieces = self._gzip(head)
        else:
            pieces = self._plain(head)
        yield from pieces

    def _take(self, size: int) -> bytes:
        data = self.file.read(size)
        self.read += len(data)
        return data

    def _plain(self, data: bytes) -> Iterator[bytes]:
        while data:
            yield data
            data = self._take(_CHUNK * 8)

    def _gzip(self, head: bytes) -> Iterator[bytes]:
        def chunks() -> Iterator[bytes]:
            data = head
            while data:
                yield data
                data = self._take(_CHUNK)

        try:
            with gzip.GzipFile(fileobj=_Joined(chunks())) as text:  # type: ignore[call-overload]
                while piece := text.read(_CHUNK * 8):
                    yield piece
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self._corrupt(self.read, first_line(error)) from None

    def _zst(self, data: bytes) -> Iterator[bytes | None]:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        frame, begun = decompressor.decompressobj(), False
        while data or begun:
            if not data and not (data := self._take(_CHUNK)):
                yield from self._bad("it ends in the middle of a frame")
                return
            try:
                piece = frame.decompress(data)
                begun = True
            except zstandard.ZstdError as error:
                yield from self._bad(first_line(error), len(data))
                data = self._next_frame(data)
                frame, begun = decompressor.decompressobj(), False
                continue
            if piece:
                yield piece
            data = b""
            if frame.eof:
                data = frame.unused_data
                frame, begun = decompressor.decompressobj(), False
                data = data or self._take(_CHUNK)

    def _next_frame(self, data: bytes) -> bytes:
        """What follows from the next frame on."""
        data = data[1:]
        while (at := data.find(_FRAME)) < 0:
            more = self._take(_CHUNK)
            if not more:
                return b""
            data = data[-3:] + more
        return data[at:]

    def _zst_blocks(self, data: bytes) -> Iterator[bytes | None]:
        """Each block: its size, then as zstandard the number of rows, their places, their text."""
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        while data:
            data += self._take(max(0, 4 - len(data)))
            size = struct.unpack_from("<I", data)[0] if len(data) >= 4 else 0
            while len(data) < 4 + size and (more := self._take(4 + size - len(data))):
                data += more
            block, data = data[4 : 4 + size], data[4 + size :]
            try:
                text = decompressor.decompressobj().decompress(block)
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


class _Joined:
    """A file of chunks, as much as gzip needs of one."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._held = chunks, b""

    def read(self, size: int = -1) -> bytes:
        while len(self._held) < size and (more := next(self._chunks, b"")):
            self._held += more
        taken, self._held = self._held[:size], self._held[size:]
        return taken
