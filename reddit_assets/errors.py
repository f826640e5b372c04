"""Every error of the project: one base class, each with a sentence that says what to do next."""

from __future__ import annotations

__all__ = [
    "BackendUnavailableError",
    "BadFileError",
    "BadJobError",
    "BadKeyError",
    "ClusteringError",
    "LeaseLostError",
    "ModelMismatchError",
    "ModelNotFoundError",
    "NonconformantError",
    "QueueFullError",
    "QueueUnavailableError",
    "RedditAssetsError",
    "ReportingError",
    "SettingsError",
    "SourceChangedError",
    "StartupError",
    "WriteError",
]


class RedditAssetsError(Exception):
    """Base of all errors that a user can cause or mend.

    Args:
        message: what happened, naming the file or the job that it concerns.
        hint: the sentence that tells the user what to do next.

    Attributes:
        permanent: whether trying the same job again is useless. The queue sends a job with a
            permanent error to the dead letters at once; others are retried with backoff.
    """

    permanent: bool = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class SettingsError(RedditAssetsError):
    """A setting is missing or wrong."""


class StartupError(RedditAssetsError):
    """A command cannot start here: a port is taken, a folder is missing, another one runs."""


class BadKeyError(RedditAssetsError):
    """A file name or path cannot be a partition key."""

    permanent = True


class BadJobError(RedditAssetsError):
    """A queue entry is not a job: malformed, or it points outside the roots."""

    permanent = True


class BadFileError(RedditAssetsError):
    """An input file cannot be used: unreadable, truncated, without a text column, …."""

    permanent = True


class SourceChangedError(RedditAssetsError):
    """The source changed while it was read; the next attempt reads the new content."""


class WriteError(RedditAssetsError):
    """The output could not be written: disk full, read-only target, no permission."""


class LeaseLostError(RedditAssetsError):
    """The job's token is no longer valid: its lease expired and another worker may hold it."""


class QueueUnavailableError(RedditAssetsError):
    """Redis cannot be reached or refuses the connection."""


class QueueFullError(RedditAssetsError):
    """Redis refused a write because its memory limit is reached; nothing was written."""


class ModelNotFoundError(RedditAssetsError):
    """No model where the settings say it should be."""


class ModelMismatchError(RedditAssetsError):
    """This worker's model is not the one that the embeddings folder wants."""


class BackendUnavailableError(RedditAssetsError):
    """The chosen embedding backend or device cannot be used on this host."""


class NonconformantError(RedditAssetsError):
    """The backend's vectors differ from the fp32 reference by more than the bound."""


class ClusteringError(RedditAssetsError):
    """A subreddit's embeddings cannot be clustered together."""

    permanent = True


class ReportingError(RedditAssetsError):
    """Dagster did not take a report; the entry stays in the outbox."""
