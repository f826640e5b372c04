"""Our errors as Dagster shows them: failed ticks and failed runs with a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dagster import Failure, SkipReason

from reddit_assets.errors import RedditAssetsError

__all__ = ["TickError", "as_failure", "sentences", "skip"]


class TickError(Exception):
    """A tick failed; the message says why and what to do."""


@contextmanager
def sentences() -> Iterator[None]:
    """In a tick: our errors become failed ticks with a sentence and no traceback of ours.

    Raises:
        TickError: instead of any RedditAssetsError.
    """
    try:
        yield
    except RedditAssetsError as error:
        raise TickError(str(error)) from None


def as_failure(error: RedditAssetsError) -> Failure:
    """In a run: our error as Dagster's, its sentence as the description, not to be retried."""
    return Failure(description=str(error), allow_retries=False)


def skip(parts: list[str]) -> SkipReason:
    """A tick's message made of sentences."""
    return SkipReason(" ".join(part for part in parts if part))
