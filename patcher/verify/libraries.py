"""The patched libraries: whether they import, what was patched in them, and training through Unsloth."""

from __future__ import annotations

import importlib
import importlib.metadata
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

import patcher
from patcher.engine.model import State
from patcher.verify import text, training
from patcher.verify.check import INSTALL, MPS, REPORT_IT, Check, Failed, Situation, Skipped

NAMES = ("unsloth", "transformers", "trl", "peft", "bitsandbytes")
"""Unsloth first: it wants to be imported before what it changes."""

_PARTS = {"trl": "trl.trainer.sft_trainer"}
"""A module to import where the package itself is lazy."""


def imported(here: Situation, name: str) -> str:
    """The library imports under the patches."""
    module = importlib.import_module(_PARTS.get(name, name))
    version = importlib.metadata.version(name)
    return f"{name} {version}" + (" (our shim)" if version.endswith("+patcher") else "") + f" from {module.__name__}"


def patched(here: Situation) -> str:
    """Nothing was refused."""
    report = patcher.report()
    if report.inactive is not None:
        raise Failed(f"nothing is patched: {report.inactive}")
    refused = [entry for entry in report.entries if entry.state is State.REFUSED]
    if refused:
        raise Failed("; ".join(f"{e.change.key}: {' '.join(e.detail.split())}" for e in refused))
    return ", ".join(f"{count} {state}" for state, count in report.counts().items() if count)


def reviewed(here: Situation) -> str:
    """Every patched library has a version that the changes were reviewed for; what was not is told, and no failure."""
    found = [entry for entry in patcher.report().entries if entry.state is State.UNREVIEWED]
    if found:
        versions = sorted({f"{e.change.distribution} {e.installed} (reviewed {e.change.reviewed})" for e in found})
        raise Skipped(f"{len(found)} changes are in place in versions that nobody reviewed: {', '.join(versions)}")
    return "all versions are reviewed ones"


@cache
def _with_unsloth(folder: str, dtype: torch.dtype, length: int) -> tuple[Any, Any]:
    unsloth = importlib.import_module("unsloth")
    model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
        folder, max_seq_length=length, dtype=dtype, load_in_4bit=False
    )
    model = unsloth.FastLanguageModel.get_peft_model(
        model,
        r=8,
        lora_alpha=16,
        lora_dropout=0,
        bias="none",
        target_modules=training.TARGETS,
        use_gradient_checkpointing="unsloth",
        random_state=3407,
    )
    return model, tokenizer


def _train(here: Situation, dtype: torch.dtype, length: int, steps: int) -> tuple[list[float], dict[str, Tensor]]:
    from safetensors.torch import load_file

    model, tokenizer = _with_unsloth(str(training.folder(here.work)), dtype, 1024)
    training.set_adapter(model, load_file(here.work / "adapter.safetensors"))
    importlib.import_module("unsloth").FastLanguageModel.for_training(model)
    autocast = None if dtype == torch.float32 else dtype
    return training.train(model, text.batches(tokenizer, steps, length), "mps", autocast)


def unsloth_fp32(here: Situation) -> str:
    """A LoRA through FastLanguageModel in fp32: losses, first gradients, and the tokens of the trained model."""
    from safetensors.torch import load_file

    expected = training.reference(here.work)
    losses, gradients = _train(here, torch.float32, training.LENGTH, training.STEPS)
    training.compare_gradients(gradients, load_file(here.work / "gradients.safetensors"))
    told = training.compare_losses(losses, expected["losses"])
    model, tokenizer = _with_unsloth(str(training.folder(here.work)), torch.float32, 1024)
    importlib.import_module("unsloth").FastLanguageModel.for_inference(model)
    return f"{told}; {training.compare_tokens(training.greedy(model, tokenizer, 'mps'), expected['tokens'])}"


def unsloth_bf16(here: Situation) -> str:
    """The same in bf16, by Unsloth's fused LoRA functions; losses within 3 percent, some four bf16 eps, of fp32."""
    expected = training.reference(here.work)
    losses, _ = _train(here, torch.bfloat16, training.LENGTH, training.STEPS)
    return training.compare_losses(losses, expected["losses"], tolerance=0.03)


def unsloth_long(here: Situation) -> str:
    """Rows of 600 tokens, where Unsloth's checkpointing offloads: the loss falls and stays finite."""
    training.reference(here.work)
    losses, gradients = _train(here, torch.float32, training.LONG, training.STEPS)
    if not losses[-1] < losses[0] or not all(bool(gradient.isfinite().all()) for gradient in gradients.values()):
        raise Failed(f"losses {', '.join(f'{loss:.4f}' for loss in losses)}")
    return f"loss {losses[0]:.3f} to {losses[-1]:.3f}"


def _import_check(name: str) -> Check:
    do = f"{INSTALL} for the reviewed version; the whole error: python -m patcher report --import {name}"
    return Check("imports", name, partial(imported, name=name), do, needs=("torch", name))


_unsloth = partial(Check, "unsloth", needs=(MPS, "unsloth", "peft"))
_DO = f"look at the training and patches lines above first; without a FAIL there: {REPORT_IT}"

CHECKS = (
    *(_import_check(name) for name in NAMES),
    Check("patches", "refused", patched, f"{INSTALL}; the list: python -m patcher report --import unsloth"),
    Check("patches", "reviewed", reviewed, f"{INSTALL}, or compare your own losses with a CPU run before you trust it"),
    _unsloth("LoRA in fp32", unsloth_fp32, _DO),
    _unsloth("LoRA in bf16", unsloth_bf16, "train in fp32; " + _DO, full=True),
    _unsloth("LoRA, 600 tokens", unsloth_long, "use rows of at most 512 tokens; " + _DO, full=True),
)
