"""Folders and sockets that no other account of this host can use.

Neither the embedded queue nor Dagster's code server asks for a password, and anyone who reaches the
latter can run code as this account. Both listen on sockets in folders that only this account can
enter.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Container, Sequence
from contextlib import suppress
from pathlib import Path

from reddit_assets.errors import StartupError

__all__ = ["FORGET", "private_folder", "private_opener", "socket_folder"]

FORGET = (
    "Remove the state folder that holds it: nothing is lost, since the next start reads what is "
    "done off the disk and shows it in Dagster again."
)

# The longest path of a Unix socket is 107 bytes on Linux and 103 on macOS.
SOCKET_PATH_BYTES = 100


def private_folder(path: Path) -> Path:
    """Makes a folder that only this account can enter, or closes one that others could.

    Raises:
        StartupError: it is a link, not a folder, or another account's.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_folder(path, (os.geteuid(),)):
        raise StartupError(
            f"{path} is a link or belongs to another account.",
            hint=f"{FORGET} Or set REDDIT_STATE_DIR to a folder of this account.",
        )
    path.chmod(0o700)
    return path


def private_opener(path: str, flags: int) -> int:
    """For ``open(..., opener=private_opener)``: what it creates is this account's alone."""
    return os.open(path, flags, 0o600)


def socket_folder(inside: Path, name: str, owners: Sequence[int] = ()) -> Path:
    """The folder for a socket: ``inside``, or one below the temporary folder, made when missing.

    The latter is used only where the socket's path would be too long. It gets a random name, which
    a file beside ``inside`` keeps; the folder is used again only if it is still a folder of this
    account and not a link.

    Args:
        name: of the socket's file.
        owners: other accounts that it may belong to.
    """
    if len(os.fsencode(inside / name)) <= SOCKET_PATH_BYTES:
        return inside
    kept = inside.with_name(f"{inside.name}.where")
    with suppress(OSError):
        known = Path(kept.read_text(encoding="utf-8"))
        if _is_folder(known, (os.geteuid(), *owners)):
            return known
    inside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="reddit-assets-"))
    kept.write_text(str(made), encoding="utf-8")
    return made


def _is_folder(path: Path, owners: Container[int]) -> bool:
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid in owners
