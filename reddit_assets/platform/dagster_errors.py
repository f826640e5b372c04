"""Our errors as Dagster shows them: failed ticks and failed runs with a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dagster import Failure, SkipReason

from reddit_assets.errors import RedditAssetsError

__all__ = ["TickError", "run_errors", "skip", "tick_errors"]


class TickError(Exception):
    """A tick failed; the message says why and what to do."""


@contextmanager
def tick_errors() -> Iterator[None]:
    """In a tick: our errors become failed ticks with a sentence and no traceback of ours.

    Raises:
        TickError: instead of any RedditAssetsError.
    """
    try:
        yield
    except RedditAssetsError as error:
        raise TickError(str(error)) from None


@contextmanager
def run_errors() -> Iterator[None]:
    """In a run: our errors become Dagster's, not to be retried.

    Raises:
        Failure: instead of any RedditAssetsError, with its sentence as the description.
    """
    try:
        yield
    except RedditAssetsError as error:
        raise Failure(description=str(error), allow_retries=False) from None


def skip(parts: list[str]) -> SkipReason:
    """A tick's message made of sentences."""
    return SkipReason(" ".join(part for part in parts if part))
