"""What a tick or a run needs of the world: settings, trees, queues. Read when used, not before."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.provenance import ProvenanceCache
from reddit_assets.corpus.scan import Scanner, ScanOptions
from reddit_assets.corpus.subreddits import SubredditFilter
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.platform.reporting.assets import parse_shards
from reddit_assets.platform.run_logic import Lease
from reddit_assets.settings import Settings, load_settings

__all__ = ["Workspace"]

# The code server keeps it between ticks: a footer is opened again only when its file changes.
_PROVENANCES = ProvenanceCache()


@dataclass(frozen=True)
class Workspace:
    """Settings, trees and queues of one tick or run."""

    settings: Settings
    layout: Layout
    queues: dict[Kind, JobQueue]

    @classmethod
    def load(cls, settings: Settings | None = None) -> Workspace:
        """From the environment, as it is now.

        Raises:
            SettingsError: a setting is missing or wrong.
        """
        settings = settings or load_settings()
        client = connect(settings)
        return cls(
            settings,
            Layout.from_settings(settings),
            {kind: JobQueue(client, kind) for kind in Kind},
        )

    @property
    def shards(self) -> tuple[str, ...]:
        """Shards with assets of their own."""
        return parse_shards(self.settings.shards)

    @property
    def cluster_fingerprint(self) -> str:
        """Fingerprint of the wanted clustering settings."""
        return ClusterParams.from_settings(self.settings).fingerprint

    def lease(self, kind: Kind, run: str) -> Lease:
        """The lease of a run that waits for one queue's jobs."""
        return Lease(self.queues[kind], run, self.settings.run_lease_seconds)

    def scanner(self, *, deep: bool = False, dead: Container[str] | None = None) -> Scanner:
        """A scanner of the trees as the settings want them.

        Args:
            deep: open every footer.
            dead: keys of dead letters; read from the queue if not given.

        Raises:
            SettingsError: there is no folder of chain files.
            QueueUnavailableError: the dead letters cannot be read.
        """
        options = ScanOptions(
            filter=SubredditFilter.parse(self.settings.subreddits),
            settle_seconds=self.settings.settle_seconds,
            adopt=self.settings.adopt,
            settings_fingerprint=self.cluster_fingerprint,
            deep=deep,
        )
        if dead is None:
            dead = self.queues[Kind.EMBED].dead_keys()
        return Scanner(self.layout, options, dead=dead, provenances=_PROVENANCES)
