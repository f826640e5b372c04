"""Names in Dagster: asset keys, partitions, tags. In the sharded layout each bucket has a set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from dagster import AssetKey, DynamicPartitionsDefinition

from reddit_assets.corpus.buckets import Buckets
from reddit_assets.corpus.fingerprints import FORMAT_VERSION
from reddit_assets.platform.reporting.assets import asset_path, bucket_of

__all__ = [
    "ASSET_TAG",
    "BUCKETS",
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
# One partition per bucket; only in the sharded layout. Reporters over REST read its partitions.
BUCKETS = AssetKey(["buckets"])

# Tag of the partitioned assets: chains, embeddings or clusters, whatever the shard.
ASSET_TAG = "reddit_assets/asset"

# The check of each partition that fails while its job is a dead letter.
DEAD_LETTERS = "no_dead_letters"


@dataclass(frozen=True)
class AssetSet:
    """The three assets of the whole tree, or of one bucket.

    Attributes:
        bucket: ``None``: the assets of the whole tree.
    """

    bucket: str | None = None

    def _key(self, name: str) -> AssetKey:
        return AssetKey([name] if self.bucket is None else [name, self.bucket])

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
        return name if self.bucket is None else f"{name}_{self.bucket}"

    def named(self, base: str) -> str:
        """``base`` for the whole tree, else with the bucket's name: of ops and groups."""
        return base if self.bucket is None else f"{base}_{self.bucket}"


def asset_sets(buckets: Buckets) -> list[AssetSet]:
    """The set of the whole tree, or one per bucket."""
    return [AssetSet(name) for name in buckets.names or (None,)]


def set_of(asset: str, partition: str, buckets: Buckets) -> AssetSet:
    """The set that a partition of ``chains``, ``embeddings`` or ``clusters`` belongs to."""
    return AssetSet(bucket_of(asset, partition, buckets))


def key_of_result(asset: str, partition: str, buckets: Buckets) -> AssetKey:
    """The asset that a result belongs to."""
    return AssetKey(list(asset_path(asset, partition, buckets)))
