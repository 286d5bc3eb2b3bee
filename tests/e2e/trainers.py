"""Trains with every trainer in one process on the simulated Mac and writes what a comparison needs. Run by the tests:

    python -m tests.e2e.trainers SPEC.json

A spec is an object with the fields ``stack`` ("unsloth" or "trl"), ``model`` (folder), ``adapter`` and ``head`` (files
of start values), ``t5`` (folder), ``out`` (folder) and ``kinds`` (names of functions of `trainers_setup`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

SPEC = json.loads(Path(sys.argv[1]).read_text())

from patcher import patch_for_mac

patch_for_mac(simulate="M3 Max 36GB")
if SPEC["stack"] == "unsloth":
    import unsloth  # noqa: F401

# isort: split
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)

from patcher.errors import NotOnMac
from tests.e2e import trainers_setup

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class FirstGradients(TrainerCallback):
    """Keeps the gradients of the first step, before the optimizer uses them."""

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.gradients:
            named = kwargs["model"].named_parameters()
            self.gradients = {name: p.grad.detach().cpu().clone() for name, p in named if p.grad is not None}


class Batches:
    """A collator that keeps what the trainer's own collator returned."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate
        self.seen: list[Any] = []

    def __call__(self, examples: Any) -> Any:
        batch = self.collate(examples)
        if isinstance(batch, dict) or hasattr(batch, "items"):
            self.seen.append({k: v.clone() for k, v in batch.items() if isinstance(v, torch.Tensor)})
        return batch


def with_unsloth(labels: int | None) -> tuple[Any, Any]:
    """Model and tokenizer as an Unsloth script makes them."""
    from unsloth import FastLanguageModel

    classifier = {} if labels is None else {"num_labels": labels}
    model, tokenizer = FastLanguageModel.from_pretrained(
        SPEC["model"], max_seq_length=256, dtype=torch.float32, load_in_4bit=False, **classifier
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=8,
        lora_alpha=16,
        lora_dropout=0,
        bias="none",
        target_modules=MODULES,
        use_gradient_checkpointing=False,
        random_state=3407,
    )
    model._unsloth_forced_float32 = True
    return model, tokenizer


def with_peft(labels: int | None) -> tuple[Any, Any]:
    """The same with transformers and PEFT."""
    tokenizer = AutoTokenizer.from_pretrained(SPEC["model"])
    task = "CAUSAL_LM" if labels is None else "SEQ_CLS"
    config = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=MODULES, task_type=task)
    if labels is None:
        model = AutoModelForCausalLM.from_pretrained(SPEC["model"], dtype=torch.float32)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(
            SPEC["model"], num_labels=labels, dtype=torch.float32
        )
    return get_peft_model(model, config), tokenizer


def made_for(kind: str) -> tuple[Any, Any]:
    """A fresh model for this kind of trainer, with the start values of the spec."""
    if kind == "seq2seq":
        tokenizer = AutoTokenizer.from_pretrained(SPEC["t5"])
        return AutoModelForSeq2SeqLM.from_pretrained(SPEC["t5"], dtype=torch.float32), tokenizer
    labels = 1 if kind == "reward" else None
    model, tokenizer = (with_unsloth if SPEC["stack"] == "unsloth" else with_peft)(labels)
    start = load_file(SPEC["adapter"])
    if labels is not None:
        start |= load_file(SPEC["head"])
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if trained.keys() != start.keys():
        raise SystemExit(f"{kind}: trained parameters differ: {sorted(trained.keys() ^ start.keys())[:4]}")
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(start[name])
    return model, tokenizer


def count_fast_decoding() -> Calls:
    """Counts the linear layers that Unsloth's own decoding computes; nothing to count without Unsloth."""
    if SPEC["stack"] != "unsloth":
        return Calls(None)
    from unsloth.models import llama

    llama.fast_linear_forward = counted = Calls(
        getattr(llama.fast_linear_forward, "function", llama.fast_linear_forward)
    )
    return counted


class Calls:
    """A function that keeps what the wrapped one returned at its first call, and counts the calls."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.first: Any = None
        self.count = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self.function(*args, **kwargs)
        self.first = result if self.count == 0 else self.first
        self.count += 1
        return result


def run(kind: str) -> None:
    model, tokenizer = made_for(kind)
    trainer = getattr(trainers_setup, kind)(model, tokenizer, f"{SPEC['out']}/{kind}.trainer")
    trainer.data_collator = batches = Batches(trainer.data_collator)
    keep = FirstGradients()
    trainer.add_callback(keep)
    scored = fast = Calls(None)
    if kind in ("grpo", "rloo"):
        # It kept Unsloth from bf16; here it would mean that completions are scored in fp16.
        model._unsloth_forced_float32 = False
        scored = trainer._generate_and_score_completions = Calls(trainer._generate_and_score_completions)
        fast = count_fast_decoding()
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    result = {
        "device": next(trainer.model.parameters()).device.type,
        "class": type(trainer).__name__,
        "losses": [entry["loss"] for entry in history],
        "rewards": [entry["reward"] for entry in history if "reward" in entry],
        "batches": batches.seen[: len(history)],
        "scored": {k: v.cpu() for k, v in (scored.first or {}).items() if isinstance(v, torch.Tensor)},
        "fast_decoding": fast.count,
        "gradients": keep.gradients,
    }
    if kind == "seq2seq":
        result["evaluation"] = trainer.evaluate()
        result["predictions"] = trainer.predict(trainer.eval_dataset).predictions.tolist()
    torch.save(result, f"{SPEC['out']}/{kind}.pt")


def answers() -> dict[str, Any]:
    """What asking for vLLM is answered, and how many workers Unsloth starts when asked for 4."""
    refusals = []
    for configuration in (trainers_setup.GRPOConfig, trainers_setup.RLOOConfig):
        try:
            configuration(output_dir=SPEC["out"], use_vllm=True)
        except NotOnMac as error:
            refusals.append(str(error))
    if SPEC["stack"] != "unsloth":
        return {"vllm": refusals}
    from unsloth_zoo.dataset_num_proc import get_dataset_num_proc

    return {"vllm": refusals, "workers": get_dataset_num_proc(4)}


if __name__ == "__main__":
    for one in SPEC["kinds"]:
        run(one)
    Path(SPEC["out"], "answers.json").write_text(json.dumps(answers()))
