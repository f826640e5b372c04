"""What a look says, and how one is guarded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from reddit_assets.errors import RedditAssetsError, first_line

__all__ = ["Finding", "Grade", "Look", "examine"]


class Grade(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"  # works, but not as it should
    FAULT = "fault"  # does not work
    SKIPPED = "skipped"  # nothing to look at here


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's.

    Attributes:
        topic: what was looked at.
        said: what was found, as a sentence.
        advice: what to do about it; empty if nothing.
    """

    topic: str
    grade: Grade
    said: str
    advice: str = ""


Look = Callable[[], Iterable[Finding]]


def examine(topic: str, look: Look) -> list[Finding]:
    """The findings of a look; an error that ends it is a finding, too."""
    found: list[Finding] = []
    try:
        found.extend(look())
    except RedditAssetsError as error:
        found.append(Finding(topic, Grade.FAULT, error.message, error.hint))
    except Exception as error:
        said = f"{type(error).__name__}: {first_line(error)}."
        found.append(Finding(topic, Grade.FAULT, said, "This was not expected: please report it."))
    return found
