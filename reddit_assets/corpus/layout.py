"""Where the three trees lie on this host, and keys ↔ paths in both directions."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from reddit_assets.corpus.keys import check_key, join_key
from reddit_assets.corpus.oserrors import is_away
from reddit_assets.errors import BadKeyError, SettingsError, UnreadableFileError
from reddit_assets.settings import Settings

__all__ = [
    "CLUSTERED_NAME",
    "CLUSTER_FILES",
    "MAP_NAME",
    "MAP_POSTS_NAME",
    "PICTURE_NAME",
    "STANDING_NAME",
    "SUFFIX",
    "TABLE_NAME",
    "Layout",
]

SUFFIX = ".parquet"
CLUSTERED_NAME = "clustered.parquet"
# Parquet too, both of them, but the earlier system reads every *.parquet beside it as posts.
TABLE_NAME = "clusters.table"
STANDING_NAME = "clusters.standing"
MAP_NAME = "map.html"
# The posts of a map that has too many of them for its page.
MAP_POSTS_NAME = "map.posts.js"
PICTURE_NAME = "map.png"
# Everything that a cluster job writes, in the order of publishing: the clustered file is last,
# since its presence says that the cluster is there.
CLUSTER_FILES = (
    TABLE_NAME,
    STANDING_NAME,
    MAP_POSTS_NAME,
    MAP_NAME,
    PICTURE_NAME,
    CLUSTERED_NAME,
)


@dataclass(frozen=True, slots=True)
class Layout:
    """The roots of the three trees on this host. They may differ between hosts; keys do not.

    Attributes:
        prefixes: folders by which other hosts know folders of this one, each with ours.
    """

    chains: Path
    embeddings: Path
    clusters: Path
    prefixes: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, root: Path) -> Layout:
        """The usual layout below one root folder."""
        return cls(root / "chains", root / "embeddings", root / "clusters")

    @classmethod
    def from_settings(cls, settings: Settings) -> Layout:
        """The layout that the settings name.

        Raises:
            SettingsError: neither REDDIT_ROOT nor the tree's own setting is there, or a prefix is
                not two absolute paths.
        """

        def tree(own: Path | None, name: str) -> Path:
            if own is not None:
                return own.absolute()
            return (settings.require_root() / name).absolute()

        return cls(
            tree(settings.chains_dir, "chains"),
            tree(settings.embeddings_dir, "embeddings"),
            tree(settings.clusters_dir, "clusters"),
            _prefixes(settings.path_prefixes),
        )

    def check_mounted(self) -> None:
        """
        Raises:
            UnreadableFileError: there are no chain files at all; the host is at fault.
        """
        if is_away(self.chains):
            raise UnreadableFileError(
                f"There is nothing in {self.chains}.",
                hint="Mount its storage; the jobs wait for it.",
                host_fault=True,
            )

    def require_chains(self) -> None:
        """
        Raises:
            SettingsError: the folder of chain files does not exist.
        """
        if not self.chains.is_dir():
            raise SettingsError(
                f"There is no folder {self.chains}.",
                hint="Set REDDIT_ROOT to the folder that holds chains/, or make it.",
            )

    # --- keys to paths -------------------------------------------------------------------
    def chain_path(self, key: str) -> Path:
        """The chain file of ``key``. Raises BadKeyError."""
        return self.chains / (check_key(key) + SUFFIX)

    def embedding_path(self, key: str) -> Path:
        """The embedding file of ``key``. Raises BadKeyError."""
        return self.embeddings / (check_key(key) + SUFFIX)

    def subreddit_path(self, cluster_key: str) -> Path:
        """The folder of a subreddit's embedding files. Raises BadKeyError."""
        return self.embeddings / check_key(cluster_key, parts=(1, 2))

    def cluster_dir(self, cluster_key: str) -> Path:
        """The folder of a subreddit's cluster outputs. Raises BadKeyError."""
        return self.clusters / check_key(cluster_key, parts=(1, 2))

    def cluster_path(self, cluster_key: str) -> Path:
        """The clustered file of a subreddit. Raises BadKeyError."""
        return self.cluster_dir(cluster_key) / CLUSTERED_NAME

    @property
    def corpus_map(self) -> Path:
        """The map of all subreddits' clusters."""
        return self.clusters / MAP_NAME

    def corpus_map_link(self, address: str | None) -> str | None:
        """Where the map of the corpus is read; ``None`` where there is none.

        Args:
            address: of `reddit-assets maps`; without one, it is the page's path.
        """
        if not self.corpus_map.is_file():
            return None
        return f"{address.rstrip('/')}/{MAP_NAME}" if address else str(self.corpus_map)

    def map_links(
        self, cluster_key: str, address: str | None, *, picture: bool | None = None
    ) -> dict[str, str]:
        """The ``map`` of a subreddit as a link, and its ``picture_url`` where there is a picture.

        Args:
            address: of `reddit-assets maps`; without one, ``map`` is the page's path.
            picture: whether there is one; looked for if not given.

        Raises:
            BadKeyError: it is not a key.
        """
        folder = self.cluster_dir(cluster_key)
        if not address:
            return {"map": str(folder / MAP_NAME)}
        base = f"{address.rstrip('/')}/{quote(cluster_key)}"
        links = {"map": f"{base}/{MAP_NAME}"}
        if (folder / PICTURE_NAME).exists() if picture is None else picture:
            links["picture_url"] = f"{base}/{PICTURE_NAME}"
        return links

    # --- paths to keys -------------------------------------------------------------------
    def key_of(self, path: Path) -> str:
        """The key of a chain or embedding file.

        Raises:
            BadKeyError: the path lies in neither tree or cannot be a key; it is named.
        """
        for root in (self.chains, self.embeddings):
            if path.is_relative_to(root):
                parts = path.relative_to(root).parts
                if path.suffix != SUFFIX:
                    raise BadKeyError(
                        f"{path} is not a {SUFFIX} file.", hint="Move it out of the tree."
                    )
                if len(parts) not in (2, 3):
                    raise BadKeyError(
                        f"{path} lies {len(parts)} levels below {root} instead of 2 or 3.",
                        hint="Files belong at <shard>/<subreddit>/<chunk>.parquet.",
                    )
                return join_key((*parts[:-1], path.stem), path=path)
        raise BadKeyError(f"{path} lies in neither {self.chains} nor {self.embeddings}.")

    def cluster_key_of_path(self, path: Path) -> str:
        """The cluster key of a subreddit's folder below embeddings/ or clusters/.

        Raises:
            BadKeyError: the path lies in neither tree or cannot be a key; it is named.
        """
        for root in (self.embeddings, self.clusters):
            if path.is_relative_to(root):
                parts = path.relative_to(root).parts
                if len(parts) not in (1, 2):
                    raise BadKeyError(f"{path} is not a subreddit's folder below {root}.")
                return join_key(parts, path=path)
        raise BadKeyError(f"{path} lies in neither {self.embeddings} nor {self.clusters}.")


def _prefixes(text: str) -> tuple[tuple[str, str], ...]:
    """From ``theirs=ours,…``, the longest first."""
    pairs = [entry.strip().partition("=")[::2] for entry in text.split(",") if entry.strip()]
    for theirs, ours in pairs:
        if not (os.path.isabs(theirs) and os.path.isabs(ours)):
            raise SettingsError(
                f"REDDIT_PATH_PREFIXES has {theirs}={ours}, which is not two absolute paths.",
                hint="Write it like /Volumes/data=/srv/corpus, with commas between several.",
            )
    normal = {(os.path.normpath(theirs), os.path.normpath(ours)) for theirs, ours in pairs}
    return tuple(sorted(normal, key=lambda pair: (-len(pair[0]), pair)))
