"""Trains with every distillation trainer in one process and writes what a comparison needs. Run by the tests:

    python -m tests.e2e.distillation SPEC.json

A spec is an object with the fields ``stack`` ("cpu" without patches, "trl" or "unsloth" on the simulated Mac),
``model`` and ``teacher`` (folders), ``adapter`` (file of start values), ``out`` (folder) and ``kinds`` (functions of
`distillation_setup`).
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
from pathlib import Path

SPEC = json.loads(Path(sys.argv[1]).read_text())

if SPEC["stack"] != "cpu":
    from patcher import patch_for_mac

    patch_for_mac(simulate="M3 Max 36GB")
if SPEC["stack"] == "unsloth":
    import unsloth

# isort: split
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.e2e import distillation_setup

PARTS_FOR_SERVERS = (
    ("async_rollout_worker", "AsyncRolloutWorker", ()),
    ("weight_transfer", "WeightTransferClient", (None, {})),
)
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def loaded() -> tuple[Any, Any, Any]:
    """Student, teacher and tokenizer, as a script for this stack makes them."""
    if SPEC["stack"] == "unsloth":
        student, tokenizer = unsloth.FastLanguageModel.from_pretrained(
            SPEC["model"], max_seq_length=256, dtype=torch.float32, load_in_4bit=False
        )
        student = unsloth.FastLanguageModel.get_peft_model(
            student, r=8, lora_alpha=16, target_modules=MODULES, use_gradient_checkpointing=False, random_state=3407
        )
        student._unsloth_forced_float32 = True
    else:
        tokenizer = AutoTokenizer.from_pretrained(SPEC["model"])
        config = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=MODULES, task_type="CAUSAL_LM")
        student = get_peft_model(AutoModelForCausalLM.from_pretrained(SPEC["model"], dtype=torch.float32), config)
    start = load_file(SPEC["adapter"])
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(start.pop(name))
    if start:
        raise SystemExit(f"start values that no parameter took: {sorted(start)[:4]}")
    tokenizer.padding_side = "left"
    teacher = AutoModelForCausalLM.from_pretrained(SPEC["teacher"], dtype=torch.float32)
    return student, teacher, tokenizer


class Inputs:
    """A loss that keeps the tensors that it was given."""

    def __init__(self, loss: Any) -> None:
        self.loss = loss
        self.seen: list[dict[str, torch.Tensor]] = []

    def __call__(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self.seen.append({k: v.cpu().clone() for k, v in inputs.items() if isinstance(v, torch.Tensor)})
        return self.loss(model, inputs, *args, **kwargs)


def run(kind: str) -> None:
    trainer = getattr(distillation_setup, kind)(*loaded(), f"{SPEC['out']}/{kind}.trainer")
    trainer.compute_loss = inputs = Inputs(trainer.compute_loss)
    trainer.train()
    result = {
        "device": next(trainer.model.parameters()).device.type,
        "class": type(trainer).__name__,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "inputs": inputs.seen,
    }
    torch.save(result, f"{SPEC['out']}/{kind}.pt")


def answers() -> dict[str, Any]:
    """What asking for vLLM is answered, and whose the operator of `DistillationTrainer` is."""
    if SPEC["stack"] == "cpu":
        return {}
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    from patcher.errors import NotOnMac

    refusals, servers = {}, {}
    for name in ("Distillation", "GOLD", "IWOPD", "SDFT", "SDPO", "SSD"):
        configuration = getattr(distillation_setup, f"{name}Config")
        try:
            configuration(output_dir=SPEC["out"], use_vllm=True)
        except NotOnMac as error:
            refusals[name] = str(error)
    for kind in ("async_grpo", "async_distillation"):
        for module, name, arguments in PARTS_FOR_SERVERS:
            part = getattr(importlib.import_module(f"trl.experimental.{kind}.{module}"), name)
            try:
                part(*arguments)
            except NotOnMac as error:
                servers[f"{kind}.{name}"] = str(error)
    functions = (ChunkedDivergenceFunction.forward, ChunkedDivergenceFunction.backward)
    return {"vllm": refusals, "servers": servers, "divergence": [function.__module__ for function in functions]}


if __name__ == "__main__":
    gc.freeze()  # Unsloth collects garbage a dozen times for each model, with all modules
    for one in SPEC["kinds"]:
        run(one)
    Path(SPEC["out"], "answers.json").write_text(json.dumps(answers()))
