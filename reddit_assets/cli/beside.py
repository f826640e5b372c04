"""Commands beside a running ``reddit-assets up``: they find its queue and its Dagster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reddit_assets.settings import Settings

__all__ = ["load_beside_up", "page_of_up", "use_dagster_of_up"]


def load_beside_up(**flags: Any) -> Settings:
    """Settings from flags and environment; the queue of the root's ``up`` if none is named.

    Raises:
        SettingsError: a value is not valid.
    """
    from reddit_assets.settings import load_settings

    settings = load_settings(**flags)
    facts = _facts(settings)
    if settings.redis_url is None and facts.get("redis_url"):
        flags["redis_url"] = facts["redis_url"]
    if settings.snapshot_dir is None and facts.get("dagster_home"):
        # What `up` has seen of the trees need not be looked at again.
        flags["snapshot_dir"] = Path(facts["dagster_home"]).parent / "snapshots"
    return load_settings(**flags)


def use_dagster_of_up(settings: Settings) -> None:
    """Sets DAGSTER_HOME to the instance of the root's ``up`` if it is not set.

    Raises:
        SettingsError: it is not set, and no ``up`` runs for the root.
    """
    from reddit_assets.errors import SettingsError

    if os.environ.get("DAGSTER_HOME"):
        return
    home = _facts(settings).get("dagster_home")
    if not home:
        raise SettingsError(
            "DAGSTER_HOME is not set, and no `reddit-assets up` is found.",
            hint="Name the root of a running one (--root, REDDIT_ROOT), or set DAGSTER_HOME to the "
            "folder of Dagster's dagster.yaml.",
        )
    os.environ["DAGSTER_HOME"] = str(home)


def page_of_up(settings: Settings) -> str:
    """The address of Dagster's page that the root's ``up`` serves; empty if none runs."""
    return str(_facts(settings).get("page", ""))


def _facts(settings: Settings) -> dict[str, Any]:
    """What the root's ``up`` has noted, if one runs here: it says in the tree where."""
    if settings.root is None:
        return {}
    from reddit_assets.corpus.layout import Layout
    from reddit_assets.local.state import StateDir, default_state_dir
    from reddit_assets.local.treelock import state_dir_of_up

    pointed = state_dir_of_up(Layout.from_settings(settings).embeddings)
    usual = settings.state_dir or default_state_dir(settings.root.absolute())
    for path in (usual, pointed):
        if path is not None and (state := StateDir(path)).in_use:
            return state.facts()
    return {}
