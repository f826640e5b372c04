"""Which assets a subreddit belongs to: those of the whole tree, or those of a bucket.

In the sharded layout every subreddit lies in the bucket that its key hashes to, whatever it is
called: names would make parts of very unequal size. ``embeddings/.buckets.json`` states the
buckets, so that every host and every start has the same; without that file the layout is flat.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.oserrors import unreadable
from reddit_assets.errors import BadFileError

__all__ = ["FLAT", "LARGEST", "Buckets", "read_buckets", "state_buckets"]

_NAME = ".buckets.json"
# Digits of a subreddit's hash; a bucket's name is the beginning of the first hash in it.
_DIGITS = 16
_END = 16**_DIGITS

# Files per bucket at the beginning, on average, and the number above which a bucket is split.
_USUAL = 8_000
LARGEST = 25_000
_FEWEST, _MOST = 16, 256


def _hash(cluster_key: str) -> str:
    return hashlib.blake2b(cluster_key.encode(), digest_size=_DIGITS // 2).hexdigest()


@dataclass(frozen=True, slots=True)
class Buckets:
    """Buckets of the sharded layout: adjoining ranges of hashes.

    Attributes:
        names: in order, each the hexadecimal digits that its range begins with, two at least; none
            in the flat layout.
    """

    names: tuple[str, ...] = ()

    @classmethod
    def for_files(cls, number: int) -> Buckets:
        """Equal ranges, a power of two of them, for ``number`` files."""
        count = _FEWEST
        while count < _MOST and number > count * _USUAL:
            count *= 2
        return cls(tuple(f"{start:02x}" for start in range(0, 256, 256 // count)))

    @classmethod
    def parse(cls, names: Iterable[str]) -> Buckets:
        """From the names as they are recorded.

        Raises:
            ValueError: they are not the names of adjoining ranges.
        """
        found = tuple(names)
        fine = all(
            isinstance(name, str) and 2 <= len(name) <= _DIGITS and set(name) <= _HEX
            for name in found
        )
        if not fine or list(found) != sorted(set(found)) or (found and found[0] != "00"):
            raise ValueError("the names are not those of buckets")
        return cls(found)

    def of(self, cluster_key: str) -> str | None:
        """The bucket of a subreddit and its files; ``None`` in the flat layout."""
        if not self.names:
            return None
        return self.names[bisect_right(self.names, _hash(cluster_key)) - 1]

    @property
    def id(self) -> str:
        """The same for the same buckets only; empty in the flat layout."""
        return f"-{_hash(' '.join(self.names))}" if self.names else ""

    def fitted(self, files: Mapping[str, int]) -> Buckets:
        """These buckets, with each of more than :data:`LARGEST` files split.

        The lower half of a range keeps the name, so that half of its files stay where they are. A
        bucket that one subreddit fills stays whole: a subreddit's files belong together.

        Args:
            files: their number by cluster key.
        """
        members: dict[str | None, list[tuple[int, int]]] = {}
        for key, number in files.items():
            members.setdefault(self.of(key), []).append((int(_hash(key), 16), number))
        starts = [_start(name) for name in self.names]
        found: list[int] = []
        for name, low, high in zip(self.names, starts, [*starts[1:], _END], strict=True):
            found += [low, *_cuts(low, high, members.get(name, []))]
        return Buckets(tuple(_name(start) for start in found))


_HEX = frozenset("0123456789abcdef")
FLAT = Buckets()


def _start(name: str) -> int:
    return int(name.ljust(_DIGITS, "0"), 16)


def _name(start: int) -> str:
    digits = f"{start:0{_DIGITS}x}"
    return digits[:2] + digits[2:].rstrip("0")


def _cuts(low: int, high: int, members: list[tuple[int, int]]) -> list[int]:
    """Where to divide a range so that no part has too many files, from (hash, files)."""
    if len(members) < 2 or sum(number for _, number in members) <= LARGEST:
        return []
    middle = (low + high) // 2
    lower = [member for member in members if member[0] < middle]
    upper = [member for member in members if member[0] >= middle]
    cut = [middle] if lower and upper else []
    return [*_cuts(low, middle, lower), *cut, *_cuts(middle, high, upper)]


def read_buckets(layout: Layout) -> Buckets:
    """The buckets that are stated; none where nothing is stated.

    Raises:
        BadFileError: the statement cannot be read or understood.
    """
    path = layout.embeddings / _NAME
    try:
        return Buckets.parse(json.loads(path.read_bytes())["buckets"])
    except (FileNotFoundError, NotADirectoryError):
        return FLAT
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, KeyError, TypeError):
        raise BadFileError(
            f"{path} does not state the buckets of the sharded layout.",
            hint="Restore it from a backup, or delete it and restart Dagster's code server: the "
            "layout is then chosen again, and every output reported again.",
        ) from None


def state_buckets(layout: Layout, buckets: Buckets) -> None:
    """State the buckets; none for the flat layout.

    Raises:
        WriteError: the file cannot be written.
    """
    from reddit_assets.corpus.wanted import written  # here: Dagster loads without pyarrow

    path = layout.embeddings / _NAME
    with written(path, {"buckets": list(buckets.names)}) as temporary:
        os.replace(temporary, path)
