"""Against a worker with other clustering settings than this host's: no subreddit goes in circles.

Such a worker would make a cluster that is stale at once, and get it again for ever.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from reddit_assets.corpus.scan import ClusterStatus, Reason, Scanner, SubredditStatus, Verdict

__all__ = ["HOLD_SECONDS", "HoldingScanner"]

# So long a cluster rests that was made with other settings after these were wanted.
HOLD_SECONDS = 600.0


class HoldingScanner(Scanner):
    """A scanner that lets a cluster wait which has just been made with other settings.

    Args:
        scanner: the scanner that it behaves like.
        wanted_since: when the wanted settings became so, seconds since the epoch.
    """

    def __init__(self, scanner: Scanner, wanted_since: float) -> None:
        # Shares everything, also the dead letters and the wanted model that were read already.
        self.__dict__.update(scanner.__dict__)
        self._wanted_since = wanted_since
        self.held: list[str] = []

    def scan(self, after: str | None = None) -> Iterator[SubredditStatus]:
        """As the scanner, but held clusters wait."""
        for status in super().scan(after):
            if status.cluster is not None and self._hold(status.cluster_key, status.cluster):
                self.held.append(status.cluster_key)
                status.cluster = replace(status.cluster, verdict=Verdict.WAITING)
            yield status

    def _hold(self, key: str, cluster: ClusterStatus) -> bool:
        if cluster.reason is not Reason.OTHER_SETTINGS:
            return False
        try:
            made_at = self.layout.cluster_path(key).stat().st_mtime
        except FileNotFoundError:
            return False
        return made_at > self._wanted_since and time.time() - made_at < HOLD_SECONDS

    def told(self) -> str:
        """A sentence about held clusters; nothing if there are none."""
        if not self.held:
            return ""
        return (
            f"{len(self.held)} skipped ({', '.join(self.held[:3])}, …): a worker has just made "
            "them with other clustering settings than this host's; give it the same settings."
        )
