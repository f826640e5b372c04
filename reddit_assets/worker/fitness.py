"""Whether a worker's engine is the one that the tree wants, at this moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.wanted import read_wanted_model
from reddit_assets.errors import BadFileError, ModelMismatchError, UnreadableFileError

__all__ = ["check_model"]


def check_model(layout: Layout, facts: Mapping[str, Any] | None) -> None:
    """Compare the loaded model with ``embeddings/.model.json``, which may change at any time.

    Args:
        facts: a task's; ``model`` is its fingerprint. Without one there is nothing to compare.

    Raises:
        ModelMismatchError: another model is wanted by now.
        UnreadableFileError: the statement cannot be read or understood, which is no job's fault.
    """
    model = (facts or {}).get("model")
    if model is None:
        return
    try:
        wanted = read_wanted_model(layout)
    except (BadFileError, UnreadableFileError) as error:
        raise UnreadableFileError(error.message, hint=error.hint, host_fault=True) from None
    if wanted is not None and wanted.fingerprint != model:
        raise ModelMismatchError(
            f"{wanted.name} ({wanted.fingerprint[:12]}) is wanted now; this "
            f"worker has another model ({str(model)[:12]}).",
            hint="Start it with the wanted model: `reddit-assets model show` says which.",
        )
