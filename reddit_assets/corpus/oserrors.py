"""What the operating system says of a file, as a sentence, and whether the host is at fault."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from reddit_assets.errors import UnreadableFileError, WriteError, first_line

__all__ = ["is_away", "not_regular", "open_file", "reading", "unreadable", "vanished", "writing"]

_ROOM = "Make room; the job is tried again by itself."
_MOUNT = "Check the storage and how it is mounted; the job is tried again by itself."
_USER = "Let the worker's user read and write there."
# The host or its storage is at fault, and any other file would fare the same.
_HOST = {
    errno.ENOSPC: ("the disk is full", _ROOM),
    errno.EDQUOT: ("the quota is used up", _ROOM),
    errno.EROFS: ("the file system is read-only", "Mount it for writing."),
    errno.EIO: ("the device reports an error", _MOUNT),
    errno.ESTALE: ("the share was exported again under it", _MOUNT),
    errno.ENOTCONN: ("the share is not connected", _MOUNT),
    errno.ETIMEDOUT: ("the share does not answer", _MOUNT),
    errno.EHOSTDOWN: ("the share's server is down", _MOUNT),
    errno.EHOSTUNREACH: ("the share's server cannot be reached", _MOUNT),
    errno.ENOLINK: ("the link to the share is cut", _MOUNT),
    errno.EREMOTEIO: ("the share's server reports an error", _MOUNT),
    errno.ENODEV: ("the device is gone", _MOUNT),
    errno.ENXIO: ("the device is gone", _MOUNT),
    errno.EMFILE: ("this process has too many open files", "Raise the limit (ulimit -n)."),
    errno.ENFILE: ("the host has too many open files", "Raise the limit (fs.file-max)."),
    errno.ENOMEM: ("the host is out of memory", "Give it more, or start fewer workers."),
}
_FILE = {
    errno.EACCES: ("permission is denied", _USER),
    errno.EPERM: ("the operation is not permitted", _USER),
    errno.ENOENT: ("it or its folder has vanished", "Check that the storage is mounted."),
    errno.ENOTDIR: ("a part of its path is a file", "Move that file away."),
    errno.ELOOP: ("its links lead in a circle", "Remove the link."),
    errno.EISDIR: ("a folder has its name", "Move that folder away."),
    errno.EFBIG: ("the file is larger than allowed", "Raise the limit or split the file."),
    errno.ENAMETOOLONG: ("its name is too long", "Shorten the chain file's name."),
    errno.EINVAL: ("the file system refuses its name", "Rename the chain file."),
}


def _says(error: OSError) -> tuple[str, str, bool]:
    """The reason, what to do, and whether the host is at fault."""
    number = error.errno or 0
    if number in _HOST:
        return *_HOST[number], True
    said = (error.strerror or first_line(error)).rstrip(".")
    return *_FILE.get(number, (said, "Check the storage.")), False


def unreadable(path: Path | str, error: OSError) -> UnreadableFileError:
    """The error of a file that the operating system does not let us read."""
    reason, hint, host = _says(error)
    return UnreadableFileError(f"{path} cannot be read: {reason}.", hint=hint, host_fault=host)


def open_file(path: Path | str) -> BinaryIO:
    """Open a regular file to read it; a pipe is not waited for.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: it is a pipe, a socket or a device.
        OSError: the operating system refuses.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise not_regular(path, mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def not_regular(path: Path | str, mode: int) -> Exception:
    """The error of something that is no regular file. A folder's is the operating system's."""
    if stat.S_ISDIR(mode):
        return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return UnreadableFileError(
        f"{path} cannot be read: it is a pipe, socket or device instead of a file.",
        hint="Move it out of the tree.",
    )


def vanished(path: Path, root: Path) -> bool:
    """Whether nothing is there, although the tree ``root`` is. False where that cannot be known."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return not is_away(root)
    except OSError:
        return False
    return False


def is_away(root: Path) -> bool:
    """Whether a tree has no entries: a share that is not mounted leaves an empty folder."""
    try:
        with os.scandir(root) as entries:
            return next(entries, None) is None
    except OSError:
        return True


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn the operating system's refusals to read ``path`` into a sentence.

    Raises:
        FileNotFoundError: as it is.
        UnreadableFileError: any other ``OSError`` of the block.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write ``path`` into a sentence.

    Raises:
        WriteError: any ``OSError`` of the block; ``host_fault`` says whether the host is at fault.
    """
    try:
        yield
    except OSError as error:
        reason, hint, host = _says(error)
        # Our folder and our temporary file were there: only storage that fails takes them away.
        host = host or error.errno == errno.ENOENT
        raise WriteError(
            f"{path} cannot be written: {reason}.", hint=hint, host_fault=host
        ) from error
