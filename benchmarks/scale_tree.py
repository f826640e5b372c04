"""A large tree of tiny files that every scan takes for a real one.

``python benchmarks/scale_tree.py /data/tree --files 100000``; the other scale benchmarks import it.

Chain files are the bytes of one template. Outputs are another template's, into whose footers the
provenance of each is spliced: all contents, times, keys and hashes agree. Shards are the first two
letters of the subreddits' names and as unequal as those of real names.
"""

from __future__ import annotations

import argparse
import bisect
import hashlib
import itertools
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reddit_assets.corpus.fingerprints import (
    Stamp,
    cluster_version,
    embedding_version,
    set_hash,
)
from reddit_assets.corpus.layout import CLUSTERED_NAME, SUFFIX, Layout
from reddit_assets.corpus.provenance import (
    PROVENANCE_KEY,
    ClusterProvenance,
    EmbeddingProvenance,
    ModelIdentity,
    SourceIdentity,
)
from reddit_assets.corpus.wanted import set_wanted_model
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.settings import Settings

__all__ = [
    "Shape",
    "add_chains",
    "cluster_keys",
    "keys_of",
    "make_tree",
    "write_clusters",
    "write_outputs",
]

_ROWS = 3
# Every chain file has this time, outputs the ones after it: seconds since the epoch.
_WRITTEN = 1_700_000_000
_EMBEDDED = _WRITTEN + 1_000
_CLUSTERED = _WRITTEN + 2_000
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a tree is like.

    Attributes:
        files: number of chain files.
        per_subreddit: chain files in each subreddit.
        adopted: outputs without provenance, as of the earlier system; older than the model.
        dimension: vector columns of outputs and of the wanted model.
        seed: of names.
    """

    files: int
    per_subreddit: int = 10
    adopted: bool = False
    dimension: int = 4
    seed: int = 0

    @property
    def model(self) -> ModelIdentity:
        """The wanted model."""
        return ModelIdentity(
            name="scale-model",
            fingerprint=hashlib.blake2b(b"scale", digest_size=16).hexdigest(),
            dimension=self.dimension,
            max_tokens=256,
            pooling="mean",
        )


# --- names -------------------------------------------------------------------------------
def _prefixes() -> tuple[list[str], list[float]]:
    """Two-letter beginnings and the running sum of their shares: the first has a twentieth."""
    pairs = ["".join(pair) for pair in itertools.product(_LETTERS, repeat=2)]
    pairs.sort(key=lambda pair: hashlib.blake2b(pair.encode()).digest())
    pairs = ["th", "as", *(pair for pair in pairs if pair not in ("th", "as"))]
    weights = [1 / (rank + 3) for rank in range(len(pairs))]
    return pairs, list(itertools.accumulate(weight / sum(weights) for weight in weights))


_PREFIXES, _SHARES = _prefixes()


def _digest(shape: Shape, number: int) -> bytes:
    return hashlib.blake2b(f"{shape.seed}/{number}".encode(), digest_size=24).digest()


def _share(digest: bytes) -> float:
    return int.from_bytes(digest[:6], "big") / 2**48


def _cluster_key(digest: bytes) -> str:
    place = bisect.bisect_left(_SHARES, _share(digest))
    prefix = _PREFIXES[min(place, len(_PREFIXES) - 1)]
    return f"{prefix}/{prefix}{digest[6:14].hex()}"


def cluster_keys(shape: Shape) -> Iterator[str]:
    """The subreddits of a tree, in the order of making."""
    for number in range(-(-shape.files // shape.per_subreddit)):
        yield _cluster_key(_digest(shape, number))


def keys_of(cluster_key: str, number: int) -> list[str]:
    """The keys of a subreddit's first ``number`` chain files."""
    return [f"{cluster_key}/chains_chunk_{chunk:04d}" for chunk in range(number)]


def _done(digest: bytes, files: int) -> tuple[int, bool]:
    """How many of a subreddit's files have outputs, and whether it is clustered.

    Nine files of ten in all: 84 of 100 subreddits are complete, ten have six files of ten, and
    six have none. A tenth of the complete ones has no cluster yet.
    """
    place = _share(digest[14:20])
    if place < 0.84:
        return files, place < 0.756
    return (files * 6 // 10, False) if place < 0.94 else (0, False)


# --- bytes -------------------------------------------------------------------------------
def _parquet(table: pa.Table, provenance: bytes | None = None) -> bytes:
    sink = BytesIO()
    with pq.ParquetWriter(sink, table.schema, store_schema=False, use_dictionary=False) as writer:
        writer.write_table(table)
        if provenance is not None:
            writer.add_key_value_metadata({PROVENANCE_KEY: provenance})
    return sink.getvalue()


def _chain_table() -> pa.Table:
    return pa.table(
        {
            "id": [f"t1_{number}" for number in range(_ROWS)],
            "body": [f"What is the best bread number {number}?" for number in range(_ROWS)],
            "ups": pa.array(range(_ROWS), pa.int64()),
        }
    )


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class _Bytes:
    """The bytes of every file of a tree."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.chain = _parquet(_chain_table())
        self.source = hashlib.blake2b(self.chain, digest_size=16).hexdigest()
        self.version = embedding_version(self.source, shape.model.fingerprint)
        table = _chain_table()
        for index in range(shape.dimension):
            values = [float(index == 0)] * _ROWS
            table = table.append_column(f"emb_{index:03d}", pa.array(values, pa.float32()))
        self._outputs = [_parquet(table)] if shape.adopted else self._with_place(table)
        made = EmbeddingProvenance(
            key="KEY",
            data_version=self.version,
            source=SourceIdentity(
                fingerprint=self.source,
                size=len(self.chain),
                mtime_ns=_WRITTEN * 10**9,
                rows=_ROWS,
            ),
            model=shape.model,
            writer={"backend": "onnx", "device": "cpu", "precision": "fp32", "host": "scale"},
            tokens=24,
            seconds=0.5,
            text_column="body",
            job_id="0123456789abcdef",
            written_at=_EMBEDDED,
        )
        self._provenance = made.model_dump_json().split('"KEY"')
        self.settings = ClusterParams.from_settings(Settings()).fingerprint

    @staticmethod
    def _with_place(table: pa.Table) -> list[bytes]:
        """An output's bytes before the provenance, behind it, and its footer's length without."""
        place = b"{" + b"x" * 98 + b"}"
        whole = _parquet(table, place)
        at = whole.rindex(place)
        assert whole[at - 1] == len(place)
        footer = int.from_bytes(whole[-8:-4], "little") - len(place) - 1
        return [whole[: at - 1], whole[at + len(place) : -8], footer.to_bytes(4, "little")]

    def _spliced(self, text: bytes) -> bytes:
        if self.shape.adopted:
            return self._outputs[0]
        before, behind, footer = self._outputs
        length = _varint(len(text))
        total = int.from_bytes(footer, "little") + len(length) + len(text)
        return b"".join((before, length, text, behind, total.to_bytes(4, "little"), b"PAR1"))

    def embedding(self, key: str) -> bytes:
        """The embedding file of ``key``."""
        before, behind = self._provenance
        return self._spliced(f'{before}"{key}"{behind}'.encode())

    def cluster(self, cluster_key: str, keys: Sequence[str]) -> bytes:
        """The clustered file made of the embedding files of ``keys``."""
        if self.shape.adopted:
            return self._outputs[0]
        versions = dict.fromkeys(keys, self.version)
        hashed = set_hash(versions)
        made = ClusterProvenance(
            key=cluster_key,
            data_version=cluster_version(hashed, self.settings),
            inputs=versions,
            inputs_hash=hashed,
            inputs_stamp=set_hash(
                {key: Stamp(len(self.embedding(key)), _EMBEDDED * 10**9) for key in keys}
            ),
            settings_fingerprint=self.settings,
            summary={"rows": _ROWS * len(keys), "clusters": 3, "noise_share": 0.25},
            seconds=0.5,
            job_id="0123456789abcdef",
            written_at=_CLUSTERED,
        )
        return self._spliced(made.model_dump_json().encode())


# --- files -------------------------------------------------------------------------------
def _write(path: str, content: bytes, seconds: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(descriptor, content)
        os.utime(descriptor, (seconds, seconds))
    finally:
        os.close(descriptor)


def _write_chains(layout: Layout, made: _Bytes, keys: Iterable[str]) -> None:
    for key in keys:
        _write(f"{layout.chains}/{key}{SUFFIX}", made.chain, _WRITTEN)


def write_outputs(layout: Layout, shape: Shape, keys: Iterable[str]) -> None:
    """Write the embedding files of chain files of this tree."""
    made = _Bytes(shape)
    for key in keys:
        os.makedirs(f"{layout.embeddings}/{key.rpartition('/')[0]}", exist_ok=True)
        _write(f"{layout.embeddings}/{key}{SUFFIX}", made.embedding(key), _EMBEDDED)


def write_clusters(layout: Layout, shape: Shape, keys: dict[str, list[str]]) -> None:
    """Write clustered files, each with its inputs' keys."""
    made = _Bytes(shape)
    for cluster_key, inputs in keys.items():
        os.makedirs(f"{layout.clusters}/{cluster_key}", exist_ok=True)
        path = f"{layout.clusters}/{cluster_key}/{CLUSTERED_NAME}"
        _write(path, made.cluster(cluster_key, inputs), _CLUSTERED)


def _make_part(layout: Layout, shape: Shape, part: range) -> None:
    made = _Bytes(shape)
    for number in part:
        digest = _digest(shape, number)
        cluster_key = _cluster_key(digest)
        files = min(shape.per_subreddit, shape.files - number * shape.per_subreddit)
        keys = keys_of(cluster_key, files)
        done, clustered = _done(digest, files)
        os.makedirs(f"{layout.chains}/{cluster_key}", exist_ok=True)
        _write_chains(layout, made, keys)
        if done:
            os.makedirs(f"{layout.embeddings}/{cluster_key}", exist_ok=True)
        for key in keys[:done]:
            _write(f"{layout.embeddings}/{key}{SUFFIX}", made.embedding(key), _EMBEDDED)
        if clustered:
            os.makedirs(f"{layout.clusters}/{cluster_key}", exist_ok=True)
            path = f"{layout.clusters}/{cluster_key}/{CLUSTERED_NAME}"
            _write(path, made.cluster(cluster_key, keys), _CLUSTERED)


def make_tree(root: Path, shape: Shape, *, processes: int = 2) -> Layout:
    """Make a tree below ``root``, nine tenths of which are done; its layout.

    A scan calls the outputs fresh (adopted, if so asked) and the rest missing.
    """
    layout = Layout.of(root)
    for tree in (layout.chains, layout.embeddings, layout.clusters):
        tree.mkdir(parents=True, exist_ok=True)
    number = -(-shape.files // shape.per_subreddit)
    step = max(1, min(2_000, -(-number // processes)))
    parts = [range(start, min(start + step, number)) for start in range(0, number, step)]
    if processes == 1:
        for part in parts:
            _make_part(layout, shape, part)
    else:
        with ProcessPoolExecutor(processes) as pool:
            for future in [pool.submit(_make_part, layout, shape, part) for part in parts]:
                future.result()
    set_wanted_model(layout, shape.model)
    return layout


def add_chains(
    layout: Layout, shape: Shape, subreddits: Iterable[str], chunk: str = "new_0000"
) -> list[str]:
    """Add one chain file to each of these subreddits, old enough to be read; their keys."""
    keys = [f"{cluster_key}/{chunk}" for cluster_key in subreddits]
    for key in keys:
        os.makedirs(f"{layout.chains}/{key.rpartition('/')[0]}", exist_ok=True)
    _write_chains(layout, _Bytes(shape), keys)
    return keys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--per-subreddit", type=int, default=10)
    parser.add_argument("--dimension", type=int, default=4)
    parser.add_argument("--adopted", action="store_true")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    shape = Shape(options.files, options.per_subreddit, options.adopted, options.dimension)
    began = time.perf_counter()
    make_tree(options.root, shape, processes=options.processes)
    print(f"{options.files:,} chain files in {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
