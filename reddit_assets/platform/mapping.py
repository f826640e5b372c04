"""Which subreddit a file belongs to, as a partition mapping that crosses the code-location border.

Dagster drops a custom mapping there, unless it subclasses a built-in one and is whitelisted, and
webserver and daemon have imported it before they load the location (``plugins`` sees to that).
Unsupported officially: ``test_platform_contracts.py`` says when an upgrade breaks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from dagster import PartitionsDefinition, SpecificPartitionsPartitionMapping
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.definitions.partitions.mapping import UpstreamPartitionsResult
from dagster._serdes import whitelist_for_serdes

from reddit_assets.corpus.keys import cluster_key_of

__all__ = ["FileToSubredditMapping"]


@whitelist_for_serdes
class FileToSubredditMapping(SpecificPartitionsPartitionMapping):
    """A subreddit's cluster needs exactly the files whose keys lie below its own key."""

    def __new__(cls, partition_keys: Sequence[str] = ()) -> FileToSubredditMapping:
        return super().__new__(cls, partition_keys=partition_keys)

    @property
    def description(self) -> str:
        """As shown in the UI."""
        return "Each file belongs to the subreddit whose folder it lies in."

    def get_upstream_mapped_partitions_result_for_partitions(
        self,
        downstream_partitions_subset: Any,
        downstream_partitions_def: PartitionsDefinition | None,
        upstream_partitions_def: PartitionsDefinition,
        current_time: datetime | None = None,
        dynamic_partitions_store: Any = None,
    ) -> UpstreamPartitionsResult:
        """The files of the given subreddits."""
        with partition_loading_context(current_time, dynamic_partitions_store):
            wanted = set(downstream_partitions_subset.get_partition_keys())
            keys = [
                key
                for key in upstream_partitions_def.get_partition_keys()
                if cluster_key_of(key) in wanted
            ]
            return UpstreamPartitionsResult(
                partitions_subset=upstream_partitions_def.subset_with_partition_keys(keys),
                required_but_nonexistent_subset=upstream_partitions_def.empty_subset(),
            )

    def get_downstream_partitions_for_partitions(
        self,
        upstream_partitions_subset: Any,
        upstream_partitions_def: PartitionsDefinition,
        downstream_partitions_def: PartitionsDefinition,
        current_time: datetime | None = None,
        dynamic_partitions_store: Any = None,
    ) -> Any:
        """The subreddits of the given files."""
        with partition_loading_context(current_time, dynamic_partitions_store):
            found = {cluster_key_of(key) for key in upstream_partitions_subset.get_partition_keys()}
            known = downstream_partitions_def.get_partition_keys()
            return downstream_partitions_def.subset_with_partition_keys(
                [key for key in known if key in found]
            )
