"""A tiny checkpoint as a user's folder has it: model, tokenizer, and the rows that it is trained on."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch

VOCABULARY = 320
SENTENCES = [
    f"{subject} {verb} {thing}."
    for subject in ("The old engineer", "A patient reader", "My neighbour", "Nobody here")
    for verb in ("repairs", "describes", "remembers", "has measured")
    for thing in ("a small engine", "the green lamp", "seven letters", "an honest number")
]
PROMPT = "The old engineer"


def save_model(folder: Path) -> None:
    """Writes a Llama of two layers, 64 wide, with random weights of seed 0 in fp32, and its tokenizer."""
    transformers: Any = importlib.import_module("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        # Large enough for the logits, and so the gradients, to be far from uniform.
        initializer_range=0.08,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer(SENTENCES, VOCABULARY).save_pretrained(folder)


def tokenizer(sentences: list[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer of at most ``vocabulary`` tokens, trained on the sentences.

    Tokens 0, 1 and 2 are begin, end and padding. As a Llama's it gives no ``token_type_ids``, which transformers before
    5 has by default and ``generate`` refuses.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    transformers: Any = importlib.import_module("transformers")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|begin|>", "<|end|>", "<|pad|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        sentences, trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet)
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=special[0],
        eos_token=special[1],
        pad_token=special[2],
        model_input_names=["input_ids", "attention_mask"],
    )


def batches(encode: Any, steps: int, length: int) -> list[torch.Tensor]:
    """Token ids ``[2, length]`` for every step, from the sentences, the same at every call."""
    stream: list[int] = []
    while len(stream) < steps * 2 * length:
        for index in range(len(SENTENCES)):
            stream += encode(SENTENCES[(index * 29) % len(SENTENCES)], add_special_tokens=False)["input_ids"]
    return list(torch.tensor(stream[: steps * 2 * length]).view(steps, 2, length))
