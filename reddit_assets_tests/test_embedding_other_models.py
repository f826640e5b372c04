"""Encoders of other families: what their own configuration says is what is computed."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reddit_assets.engines.embedding.conformance import cosines
from reddit_assets.engines.embedding.model import ModelSpec, find_model
from reddit_assets.engines.embedding.reference import computed
from reddit_assets.engines.embedding.select import open_embedder
from reddit_assets.errors import ModelNotFoundError, NonconformantError

torch = pytest.importorskip("torch")
sentence_transformers = pytest.importorskip("sentence_transformers")

HIDDEN, KEPT = 64, 32
SIZES = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 130,
}
TEXTS = ["A first text.", "another, longer one " * 9, "", "日本語 and Ünïcode", "word " * 400]


def unigram(folder: Path) -> Any:
    """A tokenizer as XLM-R's: pieces of sentences, a mark for blanks, ``<s>`` and ``</s>``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in range(33, 127)]
    pieces = [*("<s>", "<pad>", "</s>", "<unk>"), "▁", *letters, "▁a", "er", "ing", "▁the"]
    tokenizer = Tokenizer(models.Unigram([(p, -float(i)) for i, p in enumerate(pieces)], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
    )


def made(kind: str, minilm: ModelSpec, folder: Path) -> Path:
    """A sentence-transformers model with random weights, as its library saves it."""
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as models

    torch.manual_seed(1)
    wordpiece = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(minilm.tokenizer_file),
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
    )
    prompts: dict[str, Any] = {}
    if kind == "modernbert":
        tokenizer = wordpiece
        config = transformers.ModernBertConfig(
            **SIZES,
            vocab_size=30_522,
            pad_token_id=0,
            cls_token_id=101,
            sep_token_id=102,
            bos_token_id=101,
            eos_token_id=102,
            global_attn_every_n_layers=2,  # type: ignore[call-arg]
            local_attention=16,
        )
        pooling = "cls"
    elif kind == "e5":
        tokenizer = unigram(folder)
        config = transformers.XLMRobertaConfig(
            **SIZES, vocab_size=len(tokenizer), pad_token_id=1, bos_token_id=0, eos_token_id=2
        )
        prompts = {
            "prompts": {"query": "query: ", "passage": "passage: "},
            "default_prompt_name": "passage",
        }
        pooling = "mean"
    else:
        tokenizer = wordpiece
        config = transformers.BertConfig(**SIZES, vocab_size=30_522)
        pooling = "mean"
    bare = folder / "bare"
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():  # Initial weights are so small that all texts would be alike.
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    model.save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    transformer = models.Transformer(str(bare), max_seq_length=96)
    parts = [transformer, models.Pooling(HIDDEN, pooling_mode=pooling), models.Normalize()]
    SentenceTransformer(modules=parts, device="cpu", **prompts).save(str(folder / kind))
    if kind == "matryoshka":
        path = folder / kind / "config_sentence_transformers.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "truncate_dim": KEPT}))
    return folder / kind


@pytest.mark.parametrize("kind", ["modernbert", "e5", "matryoshka"])
def test_another_family_is_computed_as_sentence_transformers_does(
    kind: str, minilm: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if kind != "e5":  # One of the three in a process of its own, as workers do it.
        monkeypatch.setattr(
            computed.subprocess,
            "run",
            lambda _, **given: computed._compute(*pickle.loads(given["input"])),
        )
    # Given a small model of another family, saved by sentence-transformers
    folder = made(kind, minilm, tmp_path)
    spec = find_model(folder, tmp_path)
    # Then its files say dimension, pooling, prompt, length and truncation
    wanted = {
        "modernbert": (HIDDEN, "cls", "", False),
        "e5": (HIDDEN, "mean", "passage: ", False),
        "matryoshka": (KEPT, "mean", "", True),
    }
    assert (spec.dimension, spec.pooling, spec.prompt, spec.truncated) == wanted[kind]
    assert spec.max_tokens == 96
    # If it is opened, a reference is made here by sentence-transformers, and kept
    with open_embedder(spec, backend="torch", device="cpu", precision="fp32", threads=1) as engine:
        conformance = engine.conformance or {}
        assert conformance["reference"] == "sentence-transformers"
        assert conformance["conformant"]
        assert conformance["same_tokens"]
        vectors = engine.encode(TEXTS)
    assert len(list((tmp_path / "cache").rglob(f"{spec.fingerprint}.parquet"))) == 1
    # Then the vectors are the library's, of length one
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    exact = model.encode(TEXTS, batch_size=1)[:, : spec.dimension]
    assert vectors.shape == exact.shape
    assert cosines(vectors, exact).min() > 0.99999
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    # and another model is refused against the kept reference
    reference = computed.computed_reference(spec)
    assert reference is not None
    monkeypatch.setattr(
        "reddit_assets.engines.embedding.reference.computed._read",
        lambda path, spec: replace(reference, vectors=reference.vectors[::-1]),
    )
    with pytest.raises(NonconformantError):
        open_embedder(spec, backend="torch", device="cpu", precision="fp32", threads=1)


def test_a_truncation_beyond_the_vectors_is_refused(minilm: ModelSpec, tmp_path: Path) -> None:
    folder = made("matryoshka", minilm, tmp_path)
    path = folder / "config_sentence_transformers.json"
    whole = find_model(folder, tmp_path).fingerprint
    path.write_text(json.dumps({**json.loads(path.read_text()), "truncate_dim": 16}))
    assert find_model(folder, tmp_path).fingerprint != whole
    path.write_text(json.dumps({**json.loads(path.read_text()), "truncate_dim": 1_000}))
    with pytest.raises(ModelNotFoundError, match="truncate_dim"):
        find_model(folder, tmp_path)
