"""What sensors, ops and jobs work with: one typed resource, ``platform``.

Made when Dagster loads the definitions, filled when it is first used: loading reads nothing. A code
server keeps it between ticks; each run, a process of its own, has its own.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from reddit_assets.corpus.buckets import Buckets

if TYPE_CHECKING:
    from reddit_assets.platform.dumps import Dumps
    from reddit_assets.platform.services.dead_letters import DeadLetters
    from reddit_assets.platform.services.discover import Discover
    from reddit_assets.platform.services.glance import Glance
    from reddit_assets.platform.services.readiness import Readiness
    from reddit_assets.platform.services.reconcile import Reconcile
    from reddit_assets.platform.services.rescan import Rescan
    from reddit_assets.platform.services.watchdog import Watchdog
    from reddit_assets.workspace import Workspace

__all__ = ["Platform"]


class Platform:
    """The workspace and the services over it, which keep what they have seen.

    Args:
        workspace: another one than the environment's.
        buckets: those of the definitions; what is stated on the disk if not given.

    Each attribute raises SettingsError while a setting is missing or wrong.
    """

    def __init__(self, workspace: Workspace | None = None, buckets: Buckets | None = None) -> None:
        self._given = workspace
        self._buckets = buckets

    @cached_property
    def workspace(self) -> Workspace:
        """Settings, trees and queues."""
        from reddit_assets.workspace import Workspace

        return self._given or replace(Workspace.load(), defined=self._buckets)

    @cached_property
    def discover(self) -> Discover:
        """New and changed chain files."""
        from reddit_assets.platform.services.discover import Discover

        return Discover(self.workspace)

    @cached_property
    def dumps(self) -> Dumps:
        """New and changed public dumps."""
        from reddit_assets.platform.dumps import Dumps

        return Dumps(self.workspace)

    @cached_property
    def readiness(self) -> Readiness:
        """Subreddits that are ready to be clustered."""
        from reddit_assets.platform.services.readiness import Readiness

        return Readiness(self.workspace)

    @cached_property
    def reconcile(self) -> Reconcile:
        """Outputs that Dagster does not have."""
        from reddit_assets.platform.services.reconcile import Reconcile

        return Reconcile(self.workspace)

    @cached_property
    def glance(self) -> Glance:
        """The corpus at a glance."""
        from reddit_assets.platform.services.glance import Glance

        return Glance(self.workspace)

    @cached_property
    def rescan(self) -> Rescan:
        """Everything."""
        from reddit_assets.platform.services.rescan import Rescan

        return Rescan(self.workspace, self.discover, self.reconcile)

    @cached_property
    def watchdog(self) -> Watchdog:
        """Runs whose process died."""
        from reddit_assets.platform.services.watchdog import Watchdog

        return Watchdog(self.workspace)

    @cached_property
    def dead_letters(self) -> DeadLetters:
        """Dead letters as failed checks."""
        from reddit_assets.platform.services.dead_letters import DeadLetters

        return DeadLetters(self.workspace)
