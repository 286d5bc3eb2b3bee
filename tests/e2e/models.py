"""Small randomly initialised models with a real tokenizer, saved as a user's checkpoint is."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from patcher.verify import text
from tests.e2e.text import SENTENCES

VOCABULARY = 512
TEMPLATE = (
    "{% for m in messages %}{{ bos_token }}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token }}assistant: {% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most 512 tokens with a chat template, trained on the test sentences."""
    fast = text.tokenizer(SENTENCES, VOCABULARY)
    fast.chat_template = TEMPLATE
    return fast


def config(family: str) -> PretrainedConfig:
    """The configuration of a 2-layer model of a family, 128 wide, with grouped key-value heads."""
    common = {
        "vocab_size": VOCABULARY,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        # Large enough for the logits, and so the gradients, to be far from uniform.
        "initializer_range": 0.08,
    }
    return {
        "llama": lambda: LlamaConfig(**common),
        "mistral": lambda: MistralConfig(**common, sliding_window=None),
        "qwen2": lambda: Qwen2Config(**common),
        "qwen3": lambda: Qwen3Config(**common, head_dim=32),
        "gemma": lambda: GemmaConfig(**common, head_dim=32),
        "gemma2": lambda: Gemma2Config(**common, head_dim=32, query_pre_attn_scalar=32, sliding_window=256),
    }[family]()


def save(family: str, folder: Path) -> Path:
    """Writes a model of the family with weights of seed 0 in fp32, and its tokenizer; gives the folder."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(family), dtype=torch.float32)
    target = folder / family
    model.save_pretrained(target)
    tokenizer().save_pretrained(target)
    return target
