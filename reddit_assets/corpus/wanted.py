"""The model that a tree of embeddings wants: ``embeddings/.model.json``.

Two models never mix in one tree: the first worker states its model there, a worker with another
one refuses, and ``reddit-assets model set`` changes it, upon which every file of the former model
counts as stale.
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass

from pydantic import ValidationError

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.output import writing
from reddit_assets.corpus.provenance import ModelIdentity
from reddit_assets.errors import BadFileError, ModelMismatchError

__all__ = ["WantedModel", "claim_wanted_model", "read_wanted_model", "set_wanted_model"]

_NAME = ".model.json"


@dataclass(frozen=True, slots=True)
class WantedModel:
    """The wanted model, and when it was stated (nanoseconds, as a file's mtime)."""

    identity: ModelIdentity
    since_ns: int


def read_wanted_model(layout: Layout) -> WantedModel | None:
    """The wanted model; ``None`` while no worker has stated one.

    Raises:
        BadFileError: the file cannot be understood.
    """
    path = layout.embeddings / _NAME
    try:
        with open(path, "rb") as file:
            since = os.fstat(file.fileno()).st_mtime_ns
            identity = ModelIdentity.model_validate_json(file.read())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise BadFileError(
            f"{path} does not state a model ({error.error_count()} problems).",
            hint="Run `reddit-assets model set NAME` to write it anew.",
        ) from None
    return WantedModel(identity, since)


def set_wanted_model(layout: Layout, identity: ModelIdentity) -> None:
    """State another wanted model; files of the former one become stale.

    Raises:
        WriteError: the file cannot be written.
    """
    path = layout.embeddings / _NAME
    temporary = path.with_name(f"{_NAME}.{secrets.token_hex(8)}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(_text(identity), encoding="utf-8")
            os.replace(temporary, path)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()


def claim_wanted_model(layout: Layout, identity: ModelIdentity) -> WantedModel:
    """State ``identity`` if none is stated yet; check it against the stated one otherwise.

    Raises:
        ModelMismatchError: another model is wanted here.
        WriteError: the file cannot be written.
    """
    path = layout.embeddings / _NAME
    stated = read_wanted_model(layout)
    if stated is None:
        temporary = path.with_name(f"{_NAME}.{secrets.token_hex(8)}.tmp")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_text(_text(identity), encoding="utf-8")
                # A link fails when the name exists: of two first workers, one states the model.
                with suppress(FileExistsError):
                    os.link(temporary, path)
            finally:
                with suppress(FileNotFoundError):
                    temporary.unlink()
        stated = read_wanted_model(layout)
        assert stated is not None
    wanted = stated.identity
    if wanted.fingerprint != identity.fingerprint:
        raise ModelMismatchError(
            f"This worker's model is {identity.name} ({identity.fingerprint[:12]}), but {path} "
            f"wants {wanted.name} ({wanted.fingerprint[:12]}).",
            hint="Start the worker with the wanted model, or run `reddit-assets model set` to "
            "re-embed the whole tree with this one.",
        )
    return stated


def _text(identity: ModelIdentity) -> str:
    return json.dumps(identity.model_dump(), indent=2, sort_keys=True) + "\n"
