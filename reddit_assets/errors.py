"""Every error of the project: one base class, each with a sentence that says what to do next."""

from __future__ import annotations

import json
import socket
import traceback as tracebacks
from dataclasses import asdict, dataclass, field

__all__ = [
    "BackendUnavailableError",
    "BadFileError",
    "BadJobError",
    "BadKeyError",
    "ClusteringError",
    "ElsewhereError",
    "Failure",
    "LeaseLostError",
    "ModelMismatchError",
    "ModelNotFoundError",
    "NonconformantError",
    "NotFoundError",
    "QueueFullError",
    "QueueUnavailableError",
    "RedditAssetsError",
    "ReportingError",
    "SettingsError",
    "SourceChangedError",
    "StartupError",
    "UnreadableFileError",
    "WriteError",
]


class RedditAssetsError(Exception):
    """Base of all errors that a user can cause or correct.

    Args:
        message: what happened, naming the file or the job that it concerns.
        hint: a sentence that says what to do next.

    Attributes:
        permanent: whether trying the same job again is useless. The queue sends a job with a
            permanent error to the dead letters at once; others are retried with backoff.
        host_fault: whether the host is at fault and not the job: a full disk, a share that is
            away, settings that are not the wanted ones. A worker gives the job back unharmed and
            waits.
    """

    permanent: bool = False
    host_fault: bool = False

    def __init__(self, message: str, *, hint: str = "", host_fault: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if host_fault is not None:
            self.host_fault = host_fault
        if self.host_fault:
            self.permanent = False

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class SettingsError(RedditAssetsError):
    """A setting is missing or wrong."""


class StartupError(RedditAssetsError):
    """A command cannot start here: a port is taken, a folder is missing, another one runs."""


class NotFoundError(RedditAssetsError):
    """Nothing has the name that a command was given: no subreddit, no clusters, no dead letter."""


class BadKeyError(RedditAssetsError):
    """A file name or path cannot be a partition key."""

    permanent = True


class BadJobError(RedditAssetsError):
    """A queue entry is not a job: malformed, or it points outside the roots."""

    permanent = True


class ElsewhereError(BadJobError):
    """A queue entry names a file below a root unknown to this host, and the file is not here.

    All entries with the same message become one dead letter.
    """


class BadFileError(RedditAssetsError):
    """A file cannot be used: missing, unreadable, truncated, without a text column, …."""

    permanent = True


class UnreadableFileError(BadFileError):
    """The operating system does not let us read a file: no permission, a device that fails, …."""


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

    host_fault = True


class BackendUnavailableError(RedditAssetsError):
    """The chosen embedding backend or device cannot be used on this host."""


class NonconformantError(RedditAssetsError):
    """The backend's vectors differ from the fp32 reference by more than the bound."""


class ClusteringError(RedditAssetsError):
    """A subreddit's embeddings cannot be clustered together."""

    permanent = True


class ReportingError(RedditAssetsError):
    """Dagster did not take a report; the entry stays in the outbox."""


def first_line(error: BaseException) -> str:
    """What an exception of a library says, in one line without a full stop."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


def printable(text: str) -> str:
    """The text with surrogates (from names that are not UTF-8) written as escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed, in a form that travels between processes and hosts.

    Attributes:
        error, hint: the sentences.
        type: name of the exception's class.
        permanent, host_fault: as of :class:`RedditAssetsError`.
        traceback: its last 8,000 characters.
    """

    error: str
    hint: str = ""
    type: str = ""
    permanent: bool = False
    host_fault: bool = False
    host: str = field(default_factory=socket.gethostname)
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """From an exception: ours are sentences already, others are named."""
        trace = printable("".join(tracebacks.format_exception(error))[-8000:])
        name = type(error).__name__
        if isinstance(error, RedditAssetsError):
            return cls(
                printable(error.message),
                printable(error.hint),
                name,
                error.permanent,
                error.host_fault,
                traceback=trace,
            )
        return cls(printable(f"{name}: {error}"), "", name, traceback=trace)

    def to_json(self) -> str:
        """The failure as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


def without_login(url: str) -> str:
    """An address as people may see it: without user and password."""
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}" if separator else url
