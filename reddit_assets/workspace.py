"""What a command, a tick or a run works on: settings, trees, queues, and what scans have read.

May import ``corpus``, ``ledger``, ``engines.clustering.params``, ``settings`` and ``errors``.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from functools import cached_property

from reddit_assets.corpus.buckets import Buckets, read_buckets
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.look import LookPlan
from reddit_assets.corpus.scan import Scanner, ScanOptions
from reddit_assets.corpus.snapshot import Snapshot
from reddit_assets.corpus.subreddits import SubredditFilter
from reddit_assets.corpus.texts import text_rule
from reddit_assets.engines.clustering.params import ClusterParams
from reddit_assets.errors import SettingsError
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.settings import Settings, load_settings

__all__ = ["Workspace"]


@dataclass(frozen=True)
class Workspace:
    """Settings, trees and queues. Keep it to scan more than once: it holds the snapshot.

    Attributes:
        queues: none where only the trees matter.
        defined: the buckets that Dagster's definitions in this process were made for.
    """

    settings: Settings
    layout: Layout
    queues: dict[Kind, JobQueue] = field(default_factory=dict)
    defined: Buckets | None = None

    @classmethod
    def load(cls, settings: Settings | None = None) -> Workspace:
        """From the environment, as it is now.

        Raises:
            SettingsError: a setting is missing or wrong.
        """
        settings = settings or load_settings()
        client = connect(settings)
        queues = {kind: JobQueue(client, kind) for kind in Kind}
        layout = Layout.from_settings(settings)
        return cls(settings, layout, queues)

    @classmethod
    def of_trees(cls, settings: Settings, layout: Layout | None = None) -> Workspace:
        """Without queues, and so without Redis and dead letters.

        Raises:
            SettingsError: the trees are not named.
        """
        return cls(settings, layout or Layout.from_settings(settings))

    @cached_property
    def snapshot(self) -> Snapshot:
        """What looks at the trees have seen; opened when it is first asked for."""
        return Snapshot.of(self.layout, self.settings.snapshot_dir)

    @property
    def buckets(self) -> Buckets:
        """The buckets of Dagster's definitions, else those that are stated now.

        Raises:
            BadFileError: the statement cannot be read.
        """
        return read_buckets(self.layout) if self.defined is None else self.defined

    def require_defined(self) -> None:
        """Whether this process's definitions of Dagster's are still those of the tree.

        Raises:
            SettingsError: they were made for other buckets, such as before a share was mounted.
            BadFileError: the statement of the buckets cannot be read.
        """
        if self.defined is None:
            return
        stated = read_buckets(self.layout)
        if stated != self.defined and not self.layout.embeddings.is_dir():
            raise SettingsError(
                f"{self.layout.embeddings} is gone, which states the buckets of Dagster's assets.",
                hint="Mount its storage.",
            )
        if stated != self.defined or (self.settings.layout == "sharded" and not stated.names):
            raise SettingsError(
                "Dagster's code server was started when the tree stated other buckets, or was not "
                "there: its assets are not those of the tree.",
                hint="Start the code server again.",
            )

    @property
    def cluster_fingerprint(self) -> str:
        """Fingerprint of the wanted clustering settings."""
        return ClusterParams.from_settings(self.settings).fingerprint

    def scanner(
        self,
        *,
        deep: bool = False,
        dead: Container[str] | None = None,
        settle_seconds: float | None = None,
        whole: bool | None = None,
        budget_seconds: float | None = None,
        patience_seconds: float | None = None,
        max_age: float = 0.0,
    ) -> Scanner:
        """A scanner of the trees as the settings want them.

        Args:
            deep: read rows and columns of every output as well.
            dead: keys of dead letters; read from the queue if not given.
            settle_seconds: the least age of a chain file; the setting if not given.
            whole, budget_seconds, patience_seconds, max_age: how much its look at the trees looks
                at (:class:`~reddit_assets.corpus.look.LookPlan`).

        Raises:
            SettingsError: there is no folder of chain files.
            QueueUnavailableError: the dead letters cannot be read.
        """
        settings = self.settings
        options = ScanOptions(
            filter=SubredditFilter.parse(settings.subreddits),
            settle_seconds=settings.settle_seconds if settle_seconds is None else settle_seconds,
            adopt=settings.adopt,
            nonconformant=settings.allow_nonconformant,
            text_columns=text_rule(settings.text_columns),
            settings_fingerprint=self.cluster_fingerprint,
            deep=deep,
        )
        if dead is None:
            dead = self.queues[Kind.EMBED].dead_keys() if self.queues else ()
        plan = LookPlan(
            whole,
            settings.whole_look_files,
            settings.relist_seconds,
            budget_seconds,
            patience_seconds,
            max_age,
        )
        return Scanner(self.layout, options, dead=dead, snapshot=lambda: self.snapshot, plan=plan)
