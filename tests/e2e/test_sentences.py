"""sentence-transformers, alone and through Unsloth's FastSentenceTransformer, on the simulated Mac, against the CPU.

A small BERT with mean pooling; each stack trains in one process from the same start values.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Pooling, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from tests.e2e.text import SENTENCES
from tests.process import run_module

pytestmark = pytest.mark.slow

KINDS = ("full", "lora", "lora_16bit", "lora_4bit")
EXACT = ("full", "lora", "lora_4bit")
STACKS = ("mps", "unsloth")
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}

LOSS = 1e-4
"""Relative, over 5 steps of AdamW in fp32; measured: 1.3e-6 at most."""
EMBEDDING = 1e-4
"""Absolute, for values up to 3: AdamW moves a weight by its gradient's sign, also near zero; measured: 1.4e-5."""
BF16 = 0.026
"""Relative, in bf16. The loss is the mean of (cosine - score)^2 and 0.09 or more: a cosine that is off by 2^-8 moves it
by 2 * 2^-8 / 0.09 ** 0.5 of itself. Measured: 7e-4."""
BF16_EMBEDDING = 3 * 2**-7
"""Absolute: an adapter is in bf16 when it is loaded again; neighbouring values of bf16 are at most 2^-7 relative apart,
and values are up to 3. Measured: 0.011."""


def word_pieces() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer of at most 512 tokens, trained on the test sentences."""
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.normalizer, pieces.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    names = list(SPECIAL.values())
    pieces.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=512, special_tokens=names))
    marks = [(name, names.index(name)) for name in ("[CLS]", "[SEP]")]
    pieces.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    return PreTrainedTokenizerFast(tokenizer_object=pieces, model_max_length=64, **SPECIAL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentenceTransformer of a random BERT, and start values of LoRA."""
    folder = tmp_path_factory.mktemp("sentences")
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.08}
    bert = BertModel(BertConfig(vocab_size=512, max_position_embeddings=64, **shape, **quiet))
    bert.save_pretrained(folder / "bert")
    word_pieces().save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert"), max_seq_length=64), Pooling(128, pooling_mode="mean")]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder / "model"))
    lora = get_peft_model(bert, LoraConfig(r=8, target_modules=["query", "key", "value", "dense"]))
    start = {name: torch.randn_like(p) * 0.05 for name, p in lora.named_parameters() if p.requires_grad}
    save_file(start, folder / "adapter.safetensors")
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, dict[str, Any]]:
    """What each stack did, by stack and kind; the CPU comes last, because it takes the values of the 4-bit weights."""
    results: dict[str, dict[str, Any]] = {}
    for stack in (*STACKS, "cpu"):
        kinds = EXACT if stack == "cpu" else KINDS
        out = folder / stack
        out.mkdir()
        files = {name: str(folder / f"{name}.safetensors") for name in ("adapter", "dense")}
        spec = {"stack": stack, "model": str(folder / "model"), "out": str(out), "kinds": kinds, **files}
        (folder / f"{stack}.json").write_text(json.dumps(spec))
        run_module("tests.e2e.sentences", folder / f"{stack}.json", UNSLOTH_COMPILE_LOCATION=str(folder / "compiled"))
        results[stack] = {kind: torch.load(out / f"{kind}.pt", weights_only=False) for kind in kinds}
    return results


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("kind", EXACT)
def test_training_equals_the_cpu(runs: dict[str, Any], stack: str, kind: str) -> None:
    """Losses, embeddings before and after, and the evaluator's rank correlation."""
    result, expected = runs[stack][kind], runs["cpu"][kind]
    assert (result["device"], expected["device"]) == ("mps", "cpu")
    assert len(expected["losses"]) == 5
    assert result["losses"] == pytest.approx(expected["losses"], rel=LOSS)
    assert (result["before"] - expected["before"]).abs().max() <= EMBEDDING
    assert (result["after"] - expected["after"]).abs().max() <= EMBEDDING
    assert (result["after"] - result["before"]).abs().max() > 100 * EMBEDDING
    assert result["evaluation"] == pytest.approx(expected["evaluation"], abs=1e-6)


@pytest.mark.parametrize("stack", STACKS)
def test_training_in_bf16_is_near_that_in_fp32(runs: dict[str, Any], stack: str) -> None:
    """The same adapters on a base of 16 bit, which is what Unsloth chooses."""
    result = runs[stack]["lora_16bit"]
    assert "torch.bfloat16" in result["dtypes"]
    assert result["losses"] == pytest.approx(runs["cpu"]["lora"]["losses"], rel=BF16)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_gives_the_same_when_loaded(runs: dict[str, Any], stack: str, kind: str) -> None:
    """On the device, whole models and adapters."""
    result = runs[stack][kind]
    exact = kind != "lora_16bit"
    assert (result["again"] - result["after"]).abs().max() <= (EMBEDDING if exact else BF16_EMBEDDING)


def test_unsloth_takes_its_fast_encoder(runs: dict[str, Any]) -> None:
    """In every kind; the 4-bit one holds 4-bit weights."""
    assert all(runs["unsloth"][kind]["fast"] for kind in KINDS)
    assert all(("Params4bit" in runs["unsloth"][kind]["kinds"]) == (kind == "lora_4bit") for kind in KINDS)


@pytest.mark.parametrize("kind", ["lora", "lora_4bit"])
def test_a_merged_model_gives_the_same_on_the_cpu(runs: dict[str, Any], kind: str) -> None:
    """Without PEFT, bitsandbytes and Unsloth."""
    result = runs["unsloth"][kind]
    merged = SentenceTransformer(result["merged"], device="cpu")
    assert {type(p).__name__ for p in merged.parameters()} == {"Parameter"}
    found = merged.encode(SENTENCES[:8], convert_to_tensor=True)
    assert (found - result["after"]).abs().max() <= EMBEDDING


def test_the_4_bit_reference_is_not_the_original(runs: dict[str, Any], folder: Path) -> None:
    """What the CPU computed with are 16 values for each block of 64."""
    dense, original = (
        load_file(path) for path in (folder / "dense.safetensors", folder / "bert" / "model.safetensors")
    )
    name = "encoder.layer.0.attention.self.query.weight"
    blocks = dense[name].view(-1, 64)
    assert all(len(block.unique()) <= 16 for block in blocks)
    assert 0 < (dense[name] - original[name]).abs().max() < original[name].abs().max() / 4
