"""Trains sentence embeddings in one process and writes what a comparison needs. Run by the tests:

    python -m tests.e2e.sentences SPEC.json

A spec is an object with the fields ``stack`` ("cpu" without patches, "mps" or "unsloth" on the simulated Mac),
``model`` (folder of a SentenceTransformer), ``adapter`` (file of start values), ``dense`` (file of the values of the
4-bit weights: written by "mps", read by "cpu"), ``out`` (folder) and ``kinds`` ("full", "lora", "lora_16bit",
"lora_4bit").
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

SPEC = json.loads(Path(sys.argv[1]).read_text())

if SPEC["stack"] != "cpu":
    from patcher import patch_for_mac

    patch_for_mac(simulate="M3 Max 36GB")
if SPEC["stack"] == "unsloth":
    from unsloth import FastSentenceTransformer

# isort: split
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from datasets import Dataset
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
)
from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator
from transformers import BitsAndBytesConfig

from tests.e2e.text import SENTENCES

STEPS, BATCH, RATE = 5, 8, 1e-3
TARGETS = ["query", "key", "value", "dense"]
FOUR_BIT = {
    "quantization_config": BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=torch.float32,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
    )
}


def pairs() -> Dataset:
    """Sentences in two columns; what stands in a row belongs together."""
    return Dataset.from_dict({"anchor": SENTENCES[::7][: STEPS * BATCH], "positive": SENTENCES[3::7][: STEPS * BATCH]})


def scored() -> Dataset:
    """Pairs with the share of words that they have in common."""
    first, second = pairs()["anchor"], [SENTENCES[(11 * i) % len(SENTENCES)] for i in range(STEPS * BATCH)]
    words = [(set(a.split()), set(b.split())) for a, b in zip(first, second, strict=True)]
    return Dataset.from_dict({"sentence1": first, "sentence2": second, "score": [len(a & b) / 8 for a, b in words]})


def with_unsloth(kind: str) -> Any:
    """The model as an Unsloth script makes it; 16 bit is what it chooses."""
    four = kind == "lora_4bit"
    model = FastSentenceTransformer.from_pretrained(
        SPEC["model"],
        max_seq_length=64,
        dtype=None if kind == "lora_16bit" else torch.float32,
        load_in_4bit=four,
        load_in_16bit=not four,
        full_finetuning=kind == "full",
    )
    if kind == "full":
        return model
    return FastSentenceTransformer.get_peft_model(model, r=8, lora_alpha=16, target_modules=TARGETS)


def with_peft(kind: str) -> Any:
    """The same with sentence-transformers, transformers and PEFT."""
    four = kind == "lora_4bit"
    keywords = FOUR_BIT if four and SPEC["stack"] != "cpu" else {}
    dtype = torch.bfloat16 if kind == "lora_16bit" else torch.float32
    model = SentenceTransformer(SPEC["model"], model_kwargs={"dtype": dtype, **keywords})
    model.max_seq_length = 64
    encoder = model[0].auto_model
    if four and SPEC["stack"] == "cpu":
        encoder.load_state_dict(load_file(SPEC["dense"]))
    elif four:
        save_file(values(encoder), SPEC["dense"])
    if kind != "full":
        config = LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS, task_type=TaskType.FEATURE_EXTRACTION)
        model[0].model = get_peft_model(encoder, config)
    return model


def values(encoder: Any) -> dict[str, torch.Tensor]:
    """Its parameters as dense fp32 on the CPU."""
    dense = {}
    for name, parameter in encoder.named_parameters():
        state = getattr(parameter, "quant_state", None)
        value = parameter.data if state is None else dequantize_4bit(parameter.data, state)
        dense[name] = value.float().cpu().contiguous()
    return dense


def loaded(kind: str) -> Any:
    """The model that is trained, with the start values of the spec."""
    model = (with_unsloth if SPEC["stack"] == "unsloth" else with_peft)(kind)
    if kind != "full":
        start = load_file(SPEC["adapter"])
        with torch.no_grad():
            for name, parameter in model[0].auto_model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(start.pop(name))
        if start:
            raise SystemExit(f"start values that no parameter took: {sorted(start)[:4]}")
    return model


def trainer_for(kind: str, model: Any) -> Any:
    """Ranking of pairs for the whole model, cosine similarity for adapters."""
    arguments = SentenceTransformerTrainingArguments(
        output_dir=f"{SPEC['out']}/{kind}.trainer",
        per_device_train_batch_size=BATCH,
        max_steps=STEPS,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        warmup_steps=0,
        max_grad_norm=0.0,
        weight_decay=0.0,
        logging_steps=1,
        optim="adamw_torch",
        bf16=kind == "lora_16bit",
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        train_sampling_strategy="sequential",
    )
    ranking, table = kind == "full", scored()
    return SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=pairs() if ranking else table,
        loss=losses.MultipleNegativesRankingLoss(model) if ranking else losses.CosineSimilarityLoss(model),
        evaluator=EmbeddingSimilarityEvaluator(table["sentence1"], table["sentence2"], table["score"], name="own"),
    )


def encoded(model: Any) -> torch.Tensor:
    return model.encode(SENTENCES[:8], convert_to_tensor=True)


def run(kind: str) -> None:
    model = loaded(kind)
    trainer = trainer_for(kind, model)
    before = encoded(model)
    trainer.train()
    result = {
        "device": before.device.type,
        "fast": getattr(model, "_unsloth_fast_encoder", False),
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "before": before.float().cpu(),
        "after": encoded(model).float().cpu(),
        "evaluation": trainer.evaluate()["eval_own_spearman_cosine"],
        "kinds": {type(p).__name__ for p in model.parameters()},
        "dtypes": {str(p.dtype) for p in model.parameters()},
    }
    if SPEC["stack"] != "cpu":
        result |= stored(kind, model)
    torch.save(result, f"{SPEC['out']}/{kind}.pt")


def stored(kind: str, model: Any) -> dict[str, Any]:
    """What a model gives after being saved and loaded again here, and the folder of its merged form."""
    folder, adapter = f"{SPEC['out']}/{kind}", kind != "full"
    model.save_pretrained(folder)
    if SPEC["stack"] == "unsloth" and adapter:
        # Unsloth puts the base model's configuration beside the adapter; transformers then looks for its weights there.
        Path(folder, "config.json").unlink()
    dtype = torch.bfloat16 if kind == "lora_16bit" else torch.float32
    again = SentenceTransformer(folder, model_kwargs={"dtype": dtype, **(FOUR_BIT if kind == "lora_4bit" else {})})
    result = {"again": encoded(again).float().cpu()}
    if SPEC["stack"] == "unsloth" and adapter:
        result["merged"] = f"{folder}-merged"
        model.save_pretrained_merged(result["merged"])
    return result


if __name__ == "__main__":
    gc.freeze()  # Unsloth collects garbage a dozen times for each model, with all modules
    for one in SPEC["kinds"]:
        run(one)
