"""The model that a tree of embeddings wants: ``embeddings/.model.json``.

Two models never mix in one tree: the first worker states its model there, a worker with another
one refuses, and ``reddit-assets model set`` changes the statement, after which every file of the
previous model is stale.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.oserrors import unreadable, writing
from reddit_assets.corpus.output import temporary_path
from reddit_assets.corpus.provenance import ModelIdentity
from reddit_assets.errors import BadFileError, ModelMismatchError

__all__ = ["claim_wanted_model", "read_wanted_model", "set_wanted_model", "written"]

_NAME = ".model.json"
# What file systems without hard links answer (FAT, some FUSE and SMB mounts).
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}


def read_wanted_model(layout: Layout) -> ModelIdentity | None:
    """The wanted model; ``None`` while no worker has stated one.

    Raises:
        BadFileError: the file cannot be read or understood.
    """
    path = layout.embeddings / _NAME
    try:
        return ModelIdentity.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(path, error) from error
    except ValidationError as error:
        raise BadFileError(
            f"{path} does not state a model ({error.error_count()} problems).",
            hint="Run `reddit-assets model set NAME` to write it again.",
        ) from None


def set_wanted_model(layout: Layout, identity: ModelIdentity) -> None:
    """State another wanted model; files of the previous one become stale.

    Raises:
        WriteError: the file cannot be written.
    """
    path = layout.embeddings / _NAME
    with written(path, identity.model_dump()) as temporary:
        os.replace(temporary, path)


def claim_wanted_model(layout: Layout, identity: ModelIdentity) -> ModelIdentity:
    """State ``identity`` if none is stated yet; check it against the stated one otherwise.

    Raises:
        ModelMismatchError: another model is wanted here.
        WriteError: the file cannot be written.
    """
    path = layout.embeddings / _NAME
    wanted = read_wanted_model(layout)
    if wanted is None:
        # It fails when the name exists: of two first workers, one states the model.
        with written(path, identity.model_dump()) as temporary, suppress(FileExistsError):
            _link(temporary, path)
        wanted = _read_soon(layout) or identity
    if wanted.fingerprint != identity.fingerprint:
        raise ModelMismatchError(
            f"This worker's model is {identity.name} ({identity.fingerprint[:12]}), but {path} "
            f"wants {wanted.name} ({wanted.fingerprint[:12]}).",
            hint="Start the worker with the wanted model, or run `reddit-assets model set` to "
            "re-embed the whole tree with this one.",
        )
    return wanted


@contextmanager
def written(path: Path, record: Mapping[str, Any]) -> Iterator[Path]:
    """A record as JSON in a temporary file beside ``path``, deleted when the block ends.

    Raises:
        WriteError: the file cannot be written.
    """
    temporary = temporary_path(path, secrets.token_hex(8))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            text = json.dumps(record, indent=2, sort_keys=True) + "\n"
            temporary.write_text(text, encoding="utf-8")
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


def _link(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with open(path, "xb") as file:
            file.write(temporary.read_bytes())


def _read_soon(layout: Layout) -> ModelIdentity | None:
    """Without hard links, another worker's file may be there before its content is."""
    for _ in range(20):
        try:
            return read_wanted_model(layout)
        except BadFileError:
            time.sleep(0.05)
    return read_wanted_model(layout)
