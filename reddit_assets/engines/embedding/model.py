"""What a model is and where it lies: :func:`find_model` turns a name into a :class:`ModelSpec`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reddit_assets.engines.embedding import hub
from reddit_assets.engines.embedding.digests import file_digest, model_fingerprint, tokenizer_digest
from reddit_assets.errors import ModelNotFoundError

__all__ = ["SIDECAR", "ModelSpec", "find_model", "read_model_folder"]

SIDECAR = "reddit_assets.json"
"""File that an export writes beside ``model.onnx``: the spec of the weights it came from."""

ORIGINAL_MODEL = "all-minilm-l6-v2"
"""The model that the earlier system keeps in ``<model_dir>/onnx/minilm``, without a name."""
ORIGINAL_MAX_TOKENS = 256

POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "last",
}


@dataclass(frozen=True)
class ModelSpec:
    """A model as this host found it. Equal fingerprints mean equal vectors, wherever it lies.

    Attributes:
        name: the name it was asked for by, without an organisation.
        path: the folder found first.
        dimension: columns of a vector.
        max_tokens: tokens that are kept of a text, special tokens included.
        pooling: how token vectors become one: ``mean``, ``cls``, ``max``, or another name that
            only sentence-transformers implements.
        normalize: whether vectors are scaled to length one.
        fingerprint: SHA-256 (hex) over weights, tokenizer, pooling, normalisation and max tokens.
        weights_dir: folder with safetensors weights, where there is one on this host.
        onnx_file: ``model.onnx``, where there is one on this host.
        tokenizer_file: ``tokenizer.json``.
        architecture: the configuration's ``model_type`` (``bert``, …); empty when unknown.
        plain: whether it is a transformer, one pooling and at most a normalisation, so that
            other programs than sentence-transformers can compute it.
        lowercase: whether texts are lower-cased before they are tokenized.
        prompt: text put in front of every text (some models ask for ``query: `` or the like).
        truncated: whether only the first ``dimension`` numbers of the model's vectors are kept,
            and scaled to length one again (models trained for it: Matryoshka).
    """

    name: str
    path: Path
    dimension: int
    max_tokens: int
    pooling: str
    normalize: bool
    fingerprint: str
    tokenizer_file: Path
    weights_dir: Path | None = None
    onnx_file: Path | None = None
    architecture: str = ""
    plain: bool = True
    lowercase: bool = False
    prompt: str = ""
    truncated: bool = False

    def describe(self) -> dict[str, Any]:
        """What an output or a sidecar states of the model: nothing that depends on this host."""
        return {
            "model": self.name,
            "fingerprint": self.fingerprint,
            "dimension": self.dimension,
            "max_tokens": self.max_tokens,
            "pooling": self.pooling,
            "normalize": self.normalize,
            "architecture": self.architecture,
            "plain": self.plain,
            "lowercase": self.lowercase,
            "prompt": self.prompt,
            **({"truncated": True} if self.truncated else {}),
        }


def find_model(name_or_path: str | Path, model_dir: Path, *, download: bool = True) -> ModelSpec:
    """Find a model: a path, ``<model_dir>``, an installed weights package, the hub, in that order.

    The first place decides what the model is. Where it holds only an ONNX export or only the
    weights, the other half is taken from the later local places if it has the same fingerprint,
    so that every backend can be used.

    Args:
        name_or_path: ``all-MiniLM-L6-v2``, ``organisation/name``, or a folder.
        model_dir: folder of models; the earlier system's export is ``<model_dir>/onnx/minilm``.
        download: ask the hub for what is not on this host.

    Raises:
        ModelNotFoundError: it is nowhere, a folder is incomplete or was changed after export, or
            a package or the hub has something else by that name than what was published.
    """
    text = str(name_or_path)
    spec: ModelSpec | None = None
    as_path = Path(text).expanduser()
    if as_path.is_dir():
        folder = as_path / "onnx" if _only_onnx_inside(as_path) else as_path
        spec = read_model_folder(folder)
    elif as_path.is_absolute() or text.startswith((".", "~")):
        raise ModelNotFoundError(
            f"The model folder {text} does not exist.", hint=hub.HOW_TO_GET_A_MODEL
        )
    name = spec.name if spec is not None else text.rsplit("/", 1)[-1]
    for folder in _local_folders(name, text, Path(model_dir)):
        if spec is None:
            spec = replace(read_model_folder(folder), name=name)
        elif spec.weights_dir is None or spec.onnx_file is None:
            spec = _completed(spec, folder)
    if spec is None and not download:
        raise ModelNotFoundError(
            f"The model {text} is not on this host.", hint=hub.HOW_TO_GET_A_MODEL
        )
    if spec is None:
        folder = hub.download(text)
        hub.check_origin(name, folder)
        spec = replace(read_model_folder(folder), name=name)
    return spec


def read_model_folder(folder: Path) -> ModelSpec:
    """The model in one folder: sentence-transformers files, our export, or the earlier system's.

    Raises:
        ModelNotFoundError: files are missing, unreadable, or not those that were exported.
    """
    folder = Path(folder)
    if (folder / SIDECAR).is_file():
        return _read_export(folder)
    if hub.weight_files(folder):
        return _read_weights(folder)
    if (folder / "model.onnx").is_file():
        return _read_foreign_onnx(folder)
    raise ModelNotFoundError(
        f"No model in {folder}: neither model.safetensors nor model.onnx is there.",
        hint=hub.HOW_TO_GET_A_MODEL,
    )


def _only_onnx_inside(folder: Path) -> bool:
    """Whether ``folder`` is a hub-style model whose only usable file is ``onnx/model.onnx``."""
    return (
        not hub.weight_files(folder)
        and not (folder / "model.onnx").is_file()
        and (folder / "onnx" / "model.onnx").is_file()
    )


def _local_folders(name: str, text: str, model_dir: Path) -> Iterator[Path]:
    candidates = [model_dir / text, model_dir / name]
    if name.lower() == ORIGINAL_MODEL:
        candidates.append(model_dir / "onnx" / "minilm")
    candidates.append(model_dir / "onnx" / name)
    for sidecar in sorted((model_dir / "onnx").glob(f"*/{SIDECAR}")):
        try:
            if json.loads(sidecar.read_text())["model"] == name:
                candidates.append(sidecar.parent)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # It is only a candidate: reading it as the model is where it may fail.
    seen: set[Path] = set()
    for folder in candidates:
        usable = hub.weight_files(folder) or (folder / "model.onnx").is_file()
        if usable and folder.resolve() not in seen:
            seen.add(folder.resolve())
            yield folder
    for downloaded in (hub.installed_package(name), hub.cached_snapshot(text)):
        if downloaded is not None:
            hub.check_origin(name, downloaded)
            yield downloaded


def _completed(spec: ModelSpec, folder: Path) -> ModelSpec:
    try:
        other = read_model_folder(folder)
    except ModelNotFoundError:
        return spec  # A broken second copy does not matter: the first one is enough to work.
    if other.fingerprint != spec.fingerprint:
        return spec
    return replace(
        spec,
        weights_dir=spec.weights_dir or other.weights_dir,
        onnx_file=spec.onnx_file or other.onnx_file,
    )


def _json(path: Path, *, optional: bool = False) -> Any:
    if optional and not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(
            f"The model file {path} cannot be read: {error}.", hint=hub.HOW_TO_GET_A_MODEL
        ) from None


def _read_export(folder: Path) -> ModelSpec:
    stated = _json(folder / SIDECAR)
    onnx_file, tokenizer = folder / "model.onnx", folder / "tokenizer.json"
    try:
        unchanged = (
            file_digest(onnx_file) == stated["onnx_sha256"]
            and tokenizer_digest(tokenizer) == stated["tokenizer_sha256"]
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelNotFoundError(
            f"The export in {folder} is incomplete: {error}.",
            hint="Make it again with `reddit-assets export-onnx`.",
        ) from None
    if not unchanged:
        raise ModelNotFoundError(
            f"The files in {folder} are not the ones that {SIDECAR} describes.",
            hint=f"Export again, or delete {SIDECAR} if you put another model there on purpose.",
        )
    return ModelSpec(
        name=stated["model"],
        path=folder,
        dimension=int(stated["dimension"]),
        max_tokens=int(stated["max_tokens"]),
        pooling=stated["pooling"],
        normalize=bool(stated["normalize"]),
        fingerprint=stated["fingerprint"],
        tokenizer_file=tokenizer,
        onnx_file=onnx_file,
        architecture=stated.get("architecture", ""),
        plain=bool(stated.get("plain", True)),
        lowercase=bool(stated.get("lowercase", False)),
        prompt=stated.get("prompt", ""),
        truncated=bool(stated.get("truncated", False)),
    )


def _read_weights(folder: Path) -> ModelSpec:
    config = _json(folder / "config.json")
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise ModelNotFoundError(
            f"The model in {folder} has no tokenizer.json.",
            hint="Save its tokenizer in the fast format: "
            "transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder).",
        )
    kinds, pooling_folder, dense_folder = _modules(folder)
    pooling_config = _json(pooling_folder / "config.json", optional=True) if pooling_folder else {}
    pooling = _pooling(pooling_config)
    dense = _json(dense_folder / "config.json", optional=True) if dense_folder else {}
    dimension = int(
        dense.get("out_features")
        or pooling_config.get("word_embedding_dimension")
        or pooling_config.get("embedding_dimension")
        or config["hidden_size"]
    )
    sentence = _json(folder / "sentence_bert_config.json", optional=True)
    tokenizer_config = _json(folder / "tokenizer_config.json", optional=True)
    limits = [
        int(value)
        for value in (
            tokenizer_config.get("model_max_length"),
            config.get("max_position_embeddings"),
        )
        if isinstance(value, int | float) and 0 < value < 10**6
    ]
    max_tokens = int(sentence.get("max_seq_length") or min(limits, default=512))
    normalize = "Normalize" in kinds
    stated = _json(folder / "config_sentence_transformers.json", optional=True)
    prompt = (stated.get("prompts") or {}).get(stated.get("default_prompt_name") or "", "")
    kept = int(stated.get("truncate_dim") or dimension)
    if not 0 < kept <= dimension:
        raise ModelNotFoundError(
            f"The model in {folder} has vectors of {dimension} numbers, of which truncate_dim of "
            f"config_sentence_transformers.json keeps {kept}.",
            hint="Correct or remove truncate_dim.",
        )
    whole_prompt = bool(pooling_config.get("include_prompt", True)) or not prompt
    lowercase = bool(sentence.get("do_lower_case", False))
    weights = [(file.relative_to(folder), file) for file in hub.weight_files(folder)]
    return ModelSpec(
        name=folder.name,
        path=folder,
        dimension=kept,
        max_tokens=max_tokens,
        pooling=pooling,
        normalize=normalize,
        fingerprint=model_fingerprint(
            weights=[(str(name), file_digest(file)) for name, file in weights],
            tokenizer=tokenizer_digest(tokenizer),
            pooling=pooling,
            normalize=normalize,
            max_tokens=max_tokens,
            text={
                "lowercase": lowercase,
                "prompt": prompt,
                **({"truncate_dim": kept} if kept != dimension else {}),
                **({} if whole_prompt else {"include_prompt": False}),
            },
        ),
        tokenizer_file=tokenizer,
        weights_dir=folder,
        architecture=str(config.get("model_type", "")),
        plain=set(kinds) <= {"Transformer", "Pooling", "Normalize"}
        and kinds.count("Pooling") == 1
        and whole_prompt,
        lowercase=lowercase,
        prompt=prompt,
        truncated=kept != dimension,
    )


def _modules(folder: Path) -> tuple[list[str], Path | None, Path | None]:
    """Module kinds in order, and the folders of the pooling and the last dense module."""
    listing = _json(folder / "modules.json", optional=True)
    if not listing:  # sentence-transformers treats a bare transformer as mean pooling.
        return ["Transformer", "Pooling"], None, None
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in listing]
    folders = {kind: folder / module["path"] for kind, module in zip(kinds, listing, strict=True)}
    return kinds, folders.get("Pooling"), folders.get("Dense")


def _pooling(config: dict[str, Any]) -> str:
    if isinstance(config.get("pooling_mode"), str):
        return str(config["pooling_mode"])
    chosen = [name for key, name in POOLINGS.items() if config.get(key)]
    return "+".join(chosen) or "mean"


def _read_foreign_onnx(folder: Path) -> ModelSpec:
    """The earlier system's folder: ``model.onnx`` and ``tokenizer.json``, and nothing else.

    It is taken to be what that system takes it for: mean pooling, vectors of length one, and the
    256 tokens that its model is defined with. Its fingerprint is of its own files, so it differs
    from that of the weights it was once exported from; export again to share a tree with torch.
    """
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        tokenizer = folder.parent / "tokenizer.json"  # As hub repositories lay it out.
    if not tokenizer.is_file():
        raise ModelNotFoundError(
            f"{folder} holds model.onnx but no tokenizer.json.", hint=hub.HOW_TO_GET_A_MODEL
        )
    parts = [file for file in sorted(folder.glob("model.onnx*")) if file.is_file()]
    return ModelSpec(
        name=folder.name,
        path=folder,
        dimension=_onnx_dimension(folder / "model.onnx"),
        max_tokens=ORIGINAL_MAX_TOKENS,
        pooling="mean",
        normalize=True,
        fingerprint=model_fingerprint(
            weights=[(file.name, file_digest(file)) for file in parts],
            tokenizer=tokenizer_digest(tokenizer),
            pooling="mean",
            normalize=True,
            max_tokens=ORIGINAL_MAX_TOKENS,
            text={"lowercase": False, "prompt": ""},
        ),
        tokenizer_file=tokenizer,
        onnx_file=folder / "model.onnx",
    )


def _onnx_dimension(path: Path) -> int:
    try:
        import onnx

        graph = onnx.load(str(path), load_external_data=False).graph
        sizes = graph.output[0].type.tensor_type.shape.dim
        width = int(sizes[-1].dim_value) if sizes else 0
    except Exception as error:
        raise ModelNotFoundError(
            f"{path} is not a readable ONNX model: {error}.", hint=hub.HOW_TO_GET_A_MODEL
        ) from None
    if width <= 0:  # An export with symbolic sizes: the position table has the same width.
        widths = [t.dims[-1] for t in graph.initializer if "word_embeddings" in t.name]
        width = int(widths[0]) if widths else 0
    if width <= 0:
        raise ModelNotFoundError(
            f"{path} does not say how wide its output is.",
            hint="Make it again with `reddit-assets export-onnx`.",
        )
    return width
