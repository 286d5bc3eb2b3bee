"""Trains a LoRA in a process of its own and writes what a comparison needs. Run by the tests:

    python -m tests.e2e.train SPEC.json

SPEC: ``stack`` ("unsloth": the patched stack on the simulated Mac; "mps": transformers, PEFT and TRL alone on it;
"cpu": the same on the CPU without patches), ``model``, ``dtype``, ``adapter`` (initial adapter, None to make and save
one), ``out``, ``sentences`` (longest row), ``max_length``, ``steps``, ``checkpointing``.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

SPEC: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
if SPEC["stack"] != "cpu":
    from patcher import patch_for_mac

    HANDLE = patch_for_mac(simulate="M3 Max 36GB")
if SPEC["stack"] == "unsloth":
    import unsloth  # noqa: F401

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from tests.e2e.text import rows

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROMPTS = ["The old engineer", "Nobody here will not sell the quiet"]


class FirstGradients(TrainerCallback):
    """Keeps the gradients of every adapter tensor at the first optimizer step."""

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if not self.gradients:
            self.gradients = adapter(model, lambda parameter: parameter.grad)


def adapter(model: Any, part: Any = lambda parameter: parameter) -> dict[str, torch.Tensor]:
    """The adapter's tensors by name, as fp32 copies on the CPU."""
    return {
        name: part(parameter).detach().float().cpu().clone()
        for name, parameter in model.named_parameters()
        if "lora_" in name
    }


def with_unsloth(spec: dict[str, Any], dtype: torch.dtype) -> tuple[Any, Any]:
    """Model and tokenizer as an Unsloth script makes them."""
    from unsloth import FastLanguageModel

    model, tokenizer = FastLanguageModel.from_pretrained(
        spec["model"], max_seq_length=spec["max_length"], dtype=dtype, load_in_4bit=False
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=8,
        lora_alpha=16,
        lora_dropout=0,
        bias="none",
        target_modules=MODULES,
        use_gradient_checkpointing="unsloth" if spec["checkpointing"] else False,
        random_state=3407,
    )
    # Else Unsloth trains a model of fp32 weights under bf16 autocast, as it does on CUDA (its generated trainers).
    model._unsloth_forced_float32 = dtype == torch.float32
    return model, tokenizer


def with_peft(spec: dict[str, Any], dtype: torch.dtype) -> tuple[Any, Any]:
    """The same with transformers and PEFT; adapter weights in fp32, as Unsloth keeps them."""
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    attention = "eager" if "gemma2" in spec["model"] else "sdpa"
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=dtype, attn_implementation=attention)
    config = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=MODULES, task_type="CAUSAL_LM")
    model = get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    return model, tokenizer


def fused_paths(model: Any, tokenizer: Any) -> list[str]:
    """The names of Unsloth's fused LoRA functions in the autograd graph of one forward without checkpointing."""
    from unsloth import FastLanguageModel

    FastLanguageModel.for_training(model, use_gradient_checkpointing=False)
    inputs = tokenizer("The green lamp", return_tensors="pt").to("mps")
    with torch.autocast("mps", dtype=next(p for p in model.parameters() if not p.requires_grad).dtype):
        output = model(**inputs, labels=inputs["input_ids"])
    seen: dict[int, str] = {}
    waiting = [output.loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and id(node) not in seen:
            seen[id(node)] = node.name()
            waiting += [next_node for next_node, _ in node.next_functions]
    return sorted({name for name in seen.values() if "LoRA" in name or "Fast" in name})


def train(spec: dict[str, Any], model: Any, tokenizer: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of every step, and the gradients of the first."""
    keep = FirstGradients()
    texts = rows(32, spec["sentences"])
    ids = tokenizer(texts, truncation=True, max_length=spec["max_length"])["input_ids"]
    dataset = Dataset.from_dict({"input_ids": ids})
    trainer = trainer_for(spec, model, tokenizer, dataset)
    trainer.add_callback(keep)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], keep.gradients


def trainer_for(spec: dict[str, Any], model: Any, tokenizer: Any, dataset: Dataset) -> Trainer:
    """TRL's SFTTrainer as Unsloth patches it; transformers' Trainer for the reference: TRL 1.15 needs Triton for it."""
    common: dict[str, Any] = {
        "output_dir": spec["out"] + "/trainer",
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_steps": spec["steps"],
        "learning_rate": 1e-3,
        "warmup_steps": 2,
        "logging_steps": 1,
        "optim": "adamw_torch",
        "lr_scheduler_type": "linear",
        "seed": 3407,
        "bf16": spec["dtype"] == "bfloat16",
        "fp16": spec["dtype"] == "float16",
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": spec["stack"] == "cpu",
        "gradient_checkpointing": spec["checkpointing"],
        "disable_tqdm": True,
    }
    if spec["stack"] == "unsloth":
        from trl import SFTConfig, SFTTrainer

        arguments = SFTConfig(max_length=spec["max_length"], packing=False, **common)
        return SFTTrainer(model=model, processing_class=tokenizer, args=arguments, train_dataset=dataset)
    return Trainer(
        model=model,
        args=TrainingArguments(**common),
        train_dataset=dataset,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )


def greedy(spec: dict[str, Any], model: Any, tokenizer: Any) -> list[list[int]]:
    """The tokens that the trained model adds to the prompts, greedily."""
    if spec["stack"] == "unsloth":
        from unsloth import FastLanguageModel

        FastLanguageModel.for_inference(model)
    else:
        model.eval()
    device = "cpu" if spec["stack"] == "cpu" else "mps"
    model.to(device)
    answers = []
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt").to(device)
        tokens = model.generate(**inputs, max_new_tokens=24, do_sample=False, use_cache=True)
        answers.append(tokens[0, inputs["input_ids"].shape[1] :].tolist())
    return answers


def run(spec: dict[str, Any]) -> None:
    out = Path(spec["out"])
    out.mkdir(parents=True, exist_ok=True)
    set_seed(3407)
    dtype = getattr(torch, spec["dtype"])
    model, tokenizer = (with_unsloth if spec["stack"] == "unsloth" else with_peft)(spec, dtype)
    tokenizer.padding_side = "right"
    if spec["adapter"] is None:
        save_file(adapter(model), out / "initial.safetensors")
    else:
        load_adapter(model, load_file(spec["adapter"]))
    paths = fused_paths(model, tokenizer) if spec["stack"] == "unsloth" else []
    losses, gradients = train(spec, model, tokenizer)
    save_file(gradients, out / "gradients.safetensors")
    save_file(adapter(model), out / "trained.safetensors")
    result = {"losses": losses, "paths": paths, "tokens": greedy(spec, model, tokenizer)}
    (out / "result.json").write_text(json.dumps(result))


def load_adapter(model: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Gives the adapter the tensors' values; every one must have its place."""
    places = {name: parameter for name, parameter in model.named_parameters() if "lora_" in name}
    if places.keys() != tensors.keys():
        raise SystemExit(f"adapters differ: {sorted(places.keys() ^ tensors.keys())[:4]}")
    with torch.no_grad():
        for name, parameter in places.items():
            parameter.copy_(tensors[name])


if __name__ == "__main__":
    gc.freeze()  # Unsloth collects garbage a dozen times for each model, with all modules
    for one in SPEC["runs"]:
        run({**SPEC, **one})
