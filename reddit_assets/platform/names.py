"""Names in Dagster: asset keys, partitions, tags. Each shard may have a set of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property

from dagster import AssetKey, DynamicPartitionsDefinition

from reddit_assets.corpus.fingerprints import FORMAT_VERSION
from reddit_assets.corpus.keys import parse_shards
from reddit_assets.platform.reporting.assets import asset_path

__all__ = [
    "ASSET_TAG",
    "CODE_VERSION",
    "CORPUS",
    "DEAD_LETTERS",
    "DUMPS",
    "DUMP_FILES",
    "LOCATION",
    "MODEL",
    "NIGHTLY",
    "OWNERS",
    "REPOSITORY",
    "SETTINGS",
    "AssetSet",
    "asset_sets",
    "key_of_result",
    "set_of",
]

# The code version of every asset: what changes the meaning of the files.
CODE_VERSION = str(FORMAT_VERSION)

# As `workspace.yaml` names them, for links to jobs.
LOCATION, REPOSITORY = "reddit_assets", "__repository__"

# The job, its schedule and the command have one name.
NIGHTLY = "nightly"

# Who looks after the assets, as Dagster shows it.
OWNERS = ("team:reddit-assets",)

# Unpartitioned assets: the wanted model, the clustering settings, the overview.
MODEL = AssetKey(["model"])
SETTINGS = AssetKey(["cluster_settings"])
CORPUS = AssetKey(["corpus"])
# Public dumps, for those who have any.
DUMPS = AssetKey(["dumps"])
DUMP_FILES = DynamicPartitionsDefinition(name="dump_files")

# Tag of the partitioned assets: chains, embeddings or clusters, whatever the shard.
ASSET_TAG = "reddit_assets/asset"

# The check of each partition that fails while its job is a dead letter.
DEAD_LETTERS = "no_dead_letters"


@dataclass(frozen=True)
class AssetSet:
    """The three assets of one shard, or of everything that is in no such shard.

    Attributes:
        shard: ``None``: the assets of the whole tree.
    """

    shard: str | None = None

    def _key(self, name: str) -> AssetKey:
        return AssetKey([name] if self.shard is None else [name, self.shard])

    @cached_property
    def chains(self) -> AssetKey:
        """Input files."""
        return self._key("chains")

    @cached_property
    def embeddings(self) -> AssetKey:
        """Embedding files."""
        return self._key("embeddings")

    @cached_property
    def clusters(self) -> AssetKey:
        """Clustered files."""
        return self._key("clusters")

    @cached_property
    def files(self) -> DynamicPartitionsDefinition:
        """Partitions of ``chains`` and ``embeddings``."""
        return DynamicPartitionsDefinition(name=self._partitions("chain_files"))

    @cached_property
    def subreddits(self) -> DynamicPartitionsDefinition:
        """Partitions of ``clusters``."""
        return DynamicPartitionsDefinition(name=self._partitions("subreddits"))

    def _partitions(self, name: str) -> str:
        return name if self.shard is None else f"{name}_{self.shard}"

    def named(self, base: str) -> str:
        """``base`` for the whole tree, else with the shard's name: of ops, sensors and jobs."""
        return base if self.shard is None else f"{base}_{identifier(self.shard)}"


def identifier(text: str) -> str:
    """``text`` as Dagster allows it in names of ops and jobs."""
    return "".join(c if c.isascii() and (c.isalnum() or c == "_") else f"_{ord(c):x}" for c in text)


def asset_sets(shards: str) -> list[AssetSet]:
    """The set of the whole tree, then one per shard of the setting ``shards``."""
    return [AssetSet(), *(AssetSet(shard) for shard in parse_shards(shards))]


def set_of(key: str, shards: Collection[str]) -> AssetSet:
    """The set that a file's or a cluster's key belongs to."""
    _, *shard = asset_path("", key, shards)
    return AssetSet(shard[0] if shard else None)


def key_of_result(asset: str, partition: str, shards: Iterable[str]) -> AssetKey:
    """The asset that a result belongs to."""
    return AssetKey(list(asset_path(asset, partition, tuple(shards))))
