"""Flat or sharded: which assets the definitions have, decided when a code server loads them.

A run loads what its code server has loaded, whatever is stated meanwhile. All others (reporters,
commands) go by what is stated beside the embeddings.
"""

from __future__ import annotations

import json
import logging

from dagster import Definitions
from dagster._core.definitions.definitions_load_context import (
    DefinitionsLoadContext,
    DefinitionsLoadType,
)

from reddit_assets.corpus.buckets import FLAT, Buckets, read_buckets, state_buckets
from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import RedditAssetsError, WriteError
from reddit_assets.settings import Settings

__all__ = ["FLAT_LIMIT", "buckets_to_define", "outgrowing", "remembering"]

log = logging.getLogger(__name__)

# Files in one set of assets up to which Dagster's pages are quick, and the share of it from which
# on we warn.
FLAT_LIMIT = 100_000
_WARN = 0.8

_KEY = "reddit_assets/buckets"


def buckets_to_define(settings: Settings) -> Buckets:
    """The buckets for the definitions that are being loaded.

    Raises:
        BadFileError: what is stated cannot be read.
        WriteError: REDDIT_LAYOUT asks for another layout, which cannot be stated.
    """
    context = DefinitionsLoadContext.get()
    if context.load_type is DefinitionsLoadType.RECONSTRUCTION:
        remembered = context.reconstruction_metadata.get(_KEY)
        if remembered is not None:
            return Buckets.parse(json.loads(remembered))
    if settings.root is None and settings.chains_dir is None:
        return FLAT
    layout = Layout.from_settings(settings)
    if context.load_type is DefinitionsLoadType.RECONSTRUCTION:
        return read_buckets(layout)
    return _decide(settings, layout)


def remembering(definitions: Definitions, buckets: Buckets) -> Definitions:
    """The definitions, so that runs which they start load the same buckets."""
    import warnings

    from dagster import PreviewWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PreviewWarning)
        return definitions.with_reconstruction_metadata({_KEY: json.dumps(buckets.names)})


def outgrowing(files: int, buckets: Buckets) -> str:
    """A warning where the flat layout is about to get slow, or has; empty if there is none."""
    if buckets.names or files < _WARN * FLAT_LIMIT:
        return ""
    if files <= FLAT_LIMIT:
        return (
            f"{files} files: above {FLAT_LIMIT} the layout becomes sharded when Dagster's code "
            "server is started again (REDDIT_LAYOUT)."
        )
    return (
        f"{files} files are more than the {FLAT_LIMIT} that Dagster shows quickly in one set of "
        "assets: with REDDIT_LAYOUT=auto or sharded, start Dagster's code server again."
    )


def _decide(settings: Settings, layout: Layout) -> Buckets:
    stated = read_buckets(layout)
    # Beside chain files it may be missing at first; without these, a share is not mounted yet.
    beside = layout.embeddings.parent == layout.chains.parent and layout.chains.is_dir()
    if not (beside or layout.embeddings.is_dir()):
        log.warning(
            "The layout is not decided: %s is not there. Mount it, or make it, and start Dagster's "
            "code server again.",
            layout.embeddings,
        )
        return stated
    wanted = FLAT if settings.layout == "flat" else _wanted(settings, layout, stated)
    if wanted == stated:
        return stated
    try:
        state_buckets(layout, wanted)
    except WriteError as error:
        if settings.layout != "auto":
            raise
        log.warning("The layout stays as it is: %s %s", error, error.hint)
        return stated
    log.info("The layout has %d buckets now, %d before.", len(wanted.names), len(stated.names))
    return wanted


def _wanted(settings: Settings, layout: Layout, stated: Buckets) -> Buckets:
    """Sharded if there are enough files, and then for good; large buckets are split."""
    from reddit_assets.corpus.census import Census, count_files
    from reddit_assets.corpus.subreddits import SubredditFilter

    try:
        census = count_files(layout, SubredditFilter.parse(settings.subreddits))
    except RedditAssetsError as error:
        log.warning("Chain files cannot be counted: %s", error)
        census = Census()
    buckets = stated
    if not stated.names:
        if settings.layout == "auto" and census.total <= FLAT_LIMIT:
            return FLAT
        buckets = Buckets.for_files(census.total)
    return buckets.fitted(census.files) if census.complete else buckets
