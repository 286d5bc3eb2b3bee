"""Trains through Unsloth with its compiler on, and writes which of the generated code ran. Run by the tests:

    python -m tests.e2e.generated MODELS OUT.json

``MODELS`` holds the folders "qwen3" and "qwen3_moe"; what Unsloth generates goes to UNSLOTH_COMPILE_LOCATION.
"""

from __future__ import annotations

from patcher import patch_for_mac

patch_for_mac(simulate="M3 Max 36GB")

import unsloth

# isort: split
import gc
import inspect
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from unsloth.models._utils import unsloth_compile_transformers

from tests.e2e import trainers_setup

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

FAMILIES = ("gemma3", "gpt_oss", "qwen2_5_vl", "qwen3_next", "whisper")
"""A sliding window, a mixture of experts with sinks, vision, a state space, sound."""
GENERATED = Path(os.environ["UNSLOTH_COMPILE_LOCATION"]).resolve()


class Trace:
    """Which functions of generated files ran, and which of them held tensors on mps."""

    def __init__(self) -> None:
        self.ran: set[tuple[str, str]] = set()
        self.on_mps: set[tuple[str, str]] = set()
        self._files: dict[str, str | None] = {}

    def __enter__(self) -> Trace:
        sys.setprofile(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def __call__(self, frame: Any, event: str, result: Any) -> None:
        if event != "return":
            return
        file = self.file(frame.f_code.co_filename)
        if file is None:
            return
        place = (file, frame.f_code.co_name)
        self.ran.add(place)
        if place not in self.on_mps and any(map(on_mps, (result, *frame.f_locals.values()))):
            self.on_mps.add(place)

    def file(self, name: str) -> str | None:
        """The name of a generated file, None for another one."""
        if name not in self._files:
            path = Path(name).resolve()
            self._files[name] = path.name if path.parent == GENERATED else None
        return self._files[name]


def on_mps(value: Any) -> bool:
    """Whether a value is a tensor on mps, or a dict or a row of values with one."""
    if isinstance(value, torch.Tensor):
        return value.device.type == "mps"
    members: Iterable[Any] = value.values() if type(value) is dict else value if type(value) in (list, tuple) else ()
    return any(isinstance(member, torch.Tensor) and member.device.type == "mps" for member in members)


def loaded(folder: str, modules: list[str]) -> tuple[Any, Any]:
    """A model of a family that Unsloth compiles, with LoRA, in fp32."""
    model, tokenizer = unsloth.FastModel.from_pretrained(
        folder, max_seq_length=256, dtype=torch.float32, load_in_4bit=False
    )
    model = unsloth.FastModel.get_peft_model(
        model, r=8, lora_alpha=16, target_modules=modules, use_gradient_checkpointing=False, random_state=3407
    )
    model._unsloth_forced_float32 = True
    return model, tokenizer


def sources(kind: type) -> list[str]:
    """The files in which a class and those above it are written."""
    return [str(inspect.getsourcefile(one)) for one in kind.__mro__ if one.__module__ != "builtins"]


def trained(kind: str, models: str) -> dict[str, Any]:
    """What ran while a trainer took two steps."""
    model, tokenizer = loaded(f"{models}/qwen3", MODULES)
    trainer = getattr(trainers_setup, kind)(model, tokenizer, f"{models}/{kind}")
    trainer.args.max_steps = 2
    with Trace() as trace:
        trainer.train()
    decoder = trainer.model.get_base_model().model.layers[0]
    result = {
        "class": type(trainer).__name__,
        "sources": sources(type(trainer)),
        "compute_loss": type(trainer).compute_loss.__code__.co_filename,
        "module": str(getattr(sys.modules.get(type(trainer).__name__), "__file__", None)),
        "attention": inspect.getsourcefile(type(decoder.self_attn).forward),
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "ran": sorted(trace.ran),
        "on_mps": sorted(trace.on_mps),
    }
    del model, trainer
    gc.collect()
    return result


def experts(models: str) -> dict[str, Any]:
    """What ran in one step of a mixture of experts."""
    model, _ = loaded(f"{models}/qwen3_moe", ["q_proj", "k_proj", "v_proj", "o_proj"])
    ids = torch.arange(32, device="mps").reshape(2, 16)
    with Trace() as trace:
        model(input_ids=ids, labels=ids).loss.backward()
    return {"ran": sorted(trace.ran), "on_mps": sorted(trace.on_mps)}


def other_families() -> None:
    """Has the code of families generated as `FastModel.from_pretrained` does it, without a model of them."""
    for family in FAMILIES:
        unsloth_compile_transformers(torch.float32, family, [family], fast_residual_stream=False)


if __name__ == "__main__":
    gc.freeze()  # Unsloth collects garbage a dozen times for each model, with all modules
    _, MODELS, OUT = sys.argv
    results = {
        "sft": trained("sft_completion", MODELS),
        "dpo": trained("dpo", MODELS),
        "grpo": trained("grpo", MODELS),
        "experts": experts(MODELS),
    }
    other_families()
    Path(OUT).write_text(json.dumps(results))
