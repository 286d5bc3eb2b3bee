"""Trains with every trainer in one process on the simulated Mac and writes what a comparison needs. Run by the tests:

    python -m tests.e2e.trainers SPEC.json

A spec is an object with the fields ``stack`` ("unsloth" and "trl" on the simulated Mac, "cpu": TRL on the CPU without
patches), ``folder`` (of the models and start values, as `trainers_reference.prepare` makes it), ``out`` (folder) and
``runs``: pairs of a kind, the name of a function of `trainers_setup`, and a precision. "float32" computes in fp32;
"bfloat16" and "float16" have a base in that dtype and autocast to it; "nf4" has a base in 4 bit and computes in fp32;
"nf4-bfloat16" has a base in 4 bit and bf16 autocast. A run that fails leaves its traceback instead of its results.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

SPEC = json.loads(Path(sys.argv[1]).read_text())

if SPEC["stack"] != "cpu":
    from patcher import patch_for_mac

    patch_for_mac(simulate="M3 Max 36GB")
if SPEC["stack"] == "unsloth":
    import unsloth  # noqa: F401

# isort: split
import gc
import os
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback

from patcher.errors import NotOnMac
from tests.e2e import trainers_setup
from tests.e2e.trainers_reference import (
    MODULES,
    checkpoint,
    compute_as_on_a_gpu,
    dtype_of,
    loaded,
    with_adapter,
    with_start_values,
)

UNSLOTH, ON_CPU = SPEC["stack"] == "unsloth", SPEC["stack"] == "cpu"
FOLDER = Path(SPEC["folder"])


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


def with_unsloth(kind: str, precision: str) -> tuple[Any, Any]:
    """Model and tokenizer as an Unsloth script makes them."""
    from unsloth import FastLanguageModel

    classifier = {"num_labels": 1} if kind == "reward" else {}
    dtype = dtype_of(precision)
    model, tokenizer = FastLanguageModel.from_pretrained(
        str(checkpoint(FOLDER, kind, precision)),
        max_seq_length=256,
        dtype=dtype,
        load_in_4bit=precision.startswith("nf4"),
        **classifier,
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=8,
        lora_alpha=16,
        lora_dropout=0,
        bias="none",
        target_modules=MODULES,
        use_gradient_checkpointing=SPEC.get("checkpointing", False),
        random_state=3407,
    )
    say_that_it_computes_in_fp32(model, dtype == torch.float32)
    return model, tokenizer


def say_that_it_computes_in_fp32(model: Any, forced: bool) -> None:
    """Else Unsloth trains fp32 weights under bf16 autocast; its releases before August 2026 ask the variable alone."""
    variable = "UNSLOTH_FORCE_FLOAT32"
    if variable in os.environ or not hasattr(model, "_unsloth_forced_float32"):
        os.environ[variable] = str(int(forced))
    model._unsloth_forced_float32 = forced


def made_for(kind: str, precision: str) -> tuple[Any, Any]:
    """A fresh model for this kind of trainer, with the start values; T5 is made by transformers and PEFT.

    Where the trainer makes the adapter, it has none yet.
    """
    if UNSLOTH and kind != "seq2seq":
        model, tokenizer = with_unsloth(kind, precision)
    else:
        model, tokenizer = loaded(FOLDER, kind, precision)
        if ON_CPU:
            compute_as_on_a_gpu(model)
        if kind.endswith("_peft_config"):
            return model, tokenizer
        model = with_adapter(model, kind)
    return with_start_values(FOLDER, kind, model), tokenizer


def count_fast_decoding() -> Calls:
    """Counts the linear layers that Unsloth's own decoding computes; nothing to count without Unsloth."""
    if not UNSLOTH:
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


def linear_layers(model: Any) -> dict[str, str]:
    """Of every linear layer of the base: its class and the dtype of its weight."""
    named = model.named_modules()
    layers = {name: module for name, module in named if isinstance(module, torch.nn.Linear) and "lora_" not in name}
    return {name: f"{type(layer).__name__} {layer.weight.dtype}" for name, layer in layers.items()}


def in_fp32(model: Any) -> None:
    """TRL by itself keeps the adapters of 4-bit models in bf16, with which no comparison could be exact.

    And it keeps a new head in the dtype of the base; torch's GradScaler takes no gradients in fp16.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def run(kind: str, precision: str, after: Callable[[Any, Any, str], dict[str, Any]]) -> dict[str, Any]:
    # Trainers write it for themselves, and it would decide for the next one.
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)
    model, tokenizer = made_for(kind, precision)
    out = f"{SPEC['out']}/{kind}-{precision}.trainer"
    more: dict[str, Any] = {"bf16": precision.endswith("bfloat16"), "fp16": precision == "float16", "use_cpu": ON_CPU}
    if kind in trainers_setup.ONLINE and precision != "float32":
        more |= {"max_steps": 14, "learning_rate": 1e-2}
    if UNSLOTH and kind == "grpo_even":
        more["bf16"] = False  # it takes bf16 by itself; told so, Unsloth 2026.6.9 scores in fp16
    trainer = getattr(trainers_setup, kind)(model, tokenizer, out, **more)
    if kind.endswith("_peft_config"):
        with_start_values(FOLDER, kind, trainer.model)
    if precision in ("nf4", "float16"):
        in_fp32(trainer.model)
    if precision == "float16":
        # The default begins at 65536: a gradient above 1 overflows, and that step is skipped, on every device.
        trainer.accelerator.scaler = torch.amp.GradScaler("mps", init_scale=1024.0)
    trainer.data_collator = batches = Batches(trainer.data_collator)
    keep = FirstGradients()
    trainer.add_callback(keep)
    scored = fast = Calls(None)
    if kind in trainers_setup.ONLINE:
        # It kept Unsloth from bf16; here it would mean that completions are scored in fp16.
        say_that_it_computes_in_fp32(model, False)
        scored = trainer._generate_and_score_completions = Calls(trainer._generate_and_score_completions)
        fast = count_fast_decoding()
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    result = {
        "device": next(trainer.model.parameters()).device.type,
        "class": type(trainer).__name__,
        "layers": linear_layers(trainer.model),
        "adapters": sorted({str(p.dtype) for p in trainer.model.parameters() if p.requires_grad}),
        "losses": [entry["loss"] for entry in history],
        "rewards": [entry["reward"] for entry in history if "reward" in entry],
        "batches": batches.seen[: len(history)],
        "scored": {k: v.cpu() for k, v in (scored.first or {}).items() if isinstance(v, torch.Tensor)},
        "fast_decoding": fast.count,
        "gradients": keep.gradients,
        **after(trainer.model, tokenizer, out),
    }
    if kind == "seq2seq":
        result["evaluation"] = trainer.evaluate()
        result["predictions"] = trainer.predict(trainer.eval_dataset).predictions.tolist()
    return result


def answers() -> dict[str, Any]:
    """What asking for vLLM is answered, and how many workers Unsloth starts when asked for 4."""
    refusals = []
    for configuration in (trainers_setup.GRPOConfig, trainers_setup.RLOOConfig):
        try:
            configuration(output_dir=SPEC["out"], use_vllm=True)
        except NotOnMac as error:
            refusals.append(str(error))
    if not UNSLOTH:
        return {"vllm": refusals}
    from unsloth import FastLanguageModel
    from unsloth_zoo.dataset_num_proc import get_dataset_num_proc

    try:
        FastLanguageModel.from_pretrained(str(FOLDER / "llama"), load_in_4bit=False, fast_inference=True)
    except NotOnMac as error:
        refusals.append(str(error))
    return {"vllm": refusals, "workers": get_dataset_num_proc(4)}


def nothing(model: Any, tokenizer: Any, out: str) -> dict[str, Any]:
    """What is done after a training unless somebody wants more: the trained model, its tokenizer, a folder."""
    return {}


def finished(kind: str, precision: str, after: Callable[[Any, Any, str], dict[str, Any]] = nothing) -> dict[str, Any]:
    """What a run did, or its traceback: one that fails must not hide the others."""
    began = time.process_time()
    try:
        result = run(kind, precision, after)
    except Exception:  # noqa: BLE001
        result = {"failed": traceback.format_exc()}
    return {**result, "seconds": time.process_time() - began}


if __name__ == "__main__":
    # Unsloth collects garbage 14 times for each model; without what the imports made, that is 7 times as fast.
    gc.freeze()
    for one in SPEC["runs"]:
        torch.save(finished(*one), f"{SPEC['out']}/{'-'.join(one)}.pt")
    if not ON_CPU:
        Path(SPEC["out"], "answers.json").write_text(json.dumps(answers()))
