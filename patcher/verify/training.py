"""A few steps of a tiny Llama, and greedy generation with it, on the device and on the CPU; without Unsloth.

What the CPU gives with a LoRA is kept in the work folder for the group that trains it through Unsloth.
"""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patcher.verify import text
from patcher.verify.check import INSTALL, MPS, REPORT_IT, Check, Failed, Situation, Skipped
from patcher.verify.compare import assert_close

STEPS = 4
LENGTH = 48
LONG = 600
"""Beyond 512 tokens Unsloth's checkpointing takes its offloading path (unsloth_zoo 2026.10.9)."""

LOSS_TOLERANCE = 1e-3
"""Relative, in fp32 over a few steps: a rounding in a gradient near zero changes the direction of an AdamW step."""

GRADIENT_TOLERANCE = 1e-3
"""Of a tensor's largest element: some hundred fp32 eps through two layers, with room for sums in another order."""

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NEW_TOKENS = 16


def folder(work: Path) -> Path:
    """The checkpoint of this run; written on first use."""
    made = work / "model"
    if not made.exists():
        text.save_model(made)
    return made


def load(work: Path, device: str) -> tuple[Any, Any]:
    """The checkpoint with transformers, in fp32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder(work), dtype=torch.float32)
    return model.to(device), AutoTokenizer.from_pretrained(folder(work))


def train(
    model: Any, rows: list[Tensor], device: str, autocast: torch.dtype | None = None
) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of every step with AdamW, and the gradients of the first."""
    model.train()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=2e-3)
    losses: list[float] = []
    first: dict[str, Tensor] = {}
    for row in rows:
        ids = row.to(device)
        with torch.autocast(device, dtype=autocast, enabled=autocast is not None):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        first = first or {name: p.grad.detach().float().cpu() for name, p in trained.items() if p.grad is not None}
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, first


def greedy(model: Any, tokenizer: Any, device: str) -> list[int]:
    """The tokens that the model adds to the prompt, greedily."""
    model.eval()
    inputs = tokenizer(text.PROMPT, return_tensors="pt").to(device)
    made = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, use_cache=True)
    tokens: list[int] = made[0, inputs["input_ids"].shape[1] :].tolist()
    return tokens


def compare_losses(found: list[float], expected: list[float], tolerance: float = LOSS_TOLERANCE) -> str:
    """Raises Failed where two runs' losses differ by more than ``tolerance``, relative."""
    for step, (ours, theirs) in enumerate(zip(found, expected, strict=True), start=1):
        if not abs(ours - theirs) <= tolerance * abs(theirs):
            raise Failed(f"loss {ours:.5f} at step {step}, on the CPU {theirs:.5f}; {tolerance:g} relative is allowed")
    return f"loss {found[0]:.3f} to {found[-1]:.3f} in {len(found)} steps, as on the CPU"


def compare_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raises Failed where a tensor's gradient is another."""
    if found.keys() != expected.keys():
        raise Failed(f"{len(found)} tensors have a gradient instead of {len(expected)}")
    for name, gradient in found.items():
        assert_close(f"the first gradient of {name}", gradient, expected[name], GRADIENT_TOLERANCE)


def compare_tokens(found: list[int], expected: list[int]) -> str:
    """Raises Failed where generation gives other tokens."""
    if found != expected:
        same = next((i for i, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), len(found))
        raise Failed(f"token {same + 1} of {len(expected)} differs from the CPU's: {found} instead of {expected}")
    return f"{len(found)} greedy tokens as on the CPU"


@cache
def _trained(work: Path, device: str) -> tuple[Any, Any, list[float], dict[str, Tensor]]:
    model, tokenizer = load(work, device)
    return model, tokenizer, *train(model, text.batches(tokenizer, STEPS, LENGTH), device)


def fp32(here: Situation) -> str:
    """Full fine-tuning in fp32: losses and first gradients."""
    ours, cpu = _trained(here.work, "mps"), _trained(here.work, "cpu")
    compare_gradients(ours[3], cpu[3])
    return compare_losses(ours[2], cpu[2])


def bf16(here: Situation) -> str:
    """The same under bf16 autocast; losses within 3 percent, some four bf16 eps, of fp32."""
    model, tokenizer = load(here.work, "mps")
    losses, _ = train(model, text.batches(tokenizer, STEPS, LENGTH), "mps", torch.bfloat16)
    return compare_losses(losses, _trained(here.work, "cpu")[2], tolerance=0.03)


def checkpointed(here: Situation) -> str:
    """With gradient checkpointing, on rows of 600 tokens."""
    results = []
    for device in ("mps", "cpu"):
        model, tokenizer = load(here.work, device)
        model.gradient_checkpointing_enable({"use_reentrant": False})
        results.append(train(model, text.batches(tokenizer, 2, LONG), device))
    compare_gradients(results[0][1], results[1][1])
    return compare_losses(results[0][0], results[1][0])


def generation(here: Situation) -> str:
    """Greedy generation with a cache, by the trained weights of the CPU on both devices."""
    model, tokenizer, *_ = _trained(here.work, "cpu")
    expected = greedy(model, tokenizer, "cpu")
    moved, _ = load(here.work, "mps")
    moved.load_state_dict(model.state_dict())
    return compare_tokens(greedy(moved, tokenizer, "mps"), expected)


def lora(here: Situation) -> str:
    """A LoRA with PEFT in fp32; keeps what the CPU gives for the comparison with Unsloth."""
    from safetensors.torch import load_file, save_file

    initial = here.work / "adapter.safetensors"
    runs = {}
    for device in ("cpu", "mps"):
        model, tokenizer = load(here.work, device)
        model = _with_lora(model)
        if device == "cpu":
            save_file(adapter(model), initial)
        set_adapter(model, load_file(initial))
        rows = text.batches(tokenizer, STEPS, LENGTH)
        runs[device] = (*train(model, rows, device), greedy(model, tokenizer, device))
    save_file(runs["cpu"][1], here.work / "gradients.safetensors")
    kept = {"losses": runs["cpu"][0], "tokens": runs["cpu"][2]}
    (here.work / "reference.json").write_text(json.dumps(kept))
    compare_gradients(runs["mps"][1], runs["cpu"][1])
    compare_tokens(runs["mps"][2], runs["cpu"][2])
    return compare_losses(runs["mps"][0], runs["cpu"][0])


def _with_lora(model: Any) -> Any:
    """``model`` with a LoRA whose second factor is not zero, so that every tensor has a gradient at once."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    made = get_peft_model(
        model, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM")
    )
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return made


def adapter(model: Any) -> dict[str, Tensor]:
    """The adapter's tensors by name, as copies on the CPU."""
    return {n: p.detach().float().cpu().clone() for n, p in model.named_parameters() if "lora_" in n}


def set_adapter(model: Any, values: dict[str, Tensor]) -> None:
    """Gives the adapter these values. Raises Failed if it has other tensors."""
    parameters = {name: parameter for name, parameter in model.named_parameters() if "lora_" in name}
    if parameters.keys() != values.keys():
        raise Failed(f"the adapter has {len(parameters)} tensors of other names than PEFT's {len(values)}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


def reference(work: Path) -> dict[str, Any]:
    """What `lora` kept. Raises Skipped if it did not run."""
    kept = work / "reference.json"
    if not kept.exists():
        raise Skipped("there is no result of the CPU to compare with: the LoRA check did not end")
    data: dict[str, Any] = json.loads(kept.read_text())
    return data


_check = partial(Check, "training", needs=(MPS, "transformers"))
_LOOK = f"look at the kernel and hazard lines above first; without a FAIL there: {REPORT_IT}"

CHECKS = (
    _check("fine-tuning in fp32", fp32, _LOOK),
    _check("fine-tuning in bf16", bf16, "train in fp32 or fp16; " + _LOOK, full=True),
    _check("checkpointing, 600 tokens", checkpointed, "train without gradient checkpointing; " + _LOOK, full=True),
    _check("LoRA in fp32", lora, f"{_LOOK}; if peft is missing: {INSTALL}", needs=(MPS, "transformers", "peft")),
    Check("generation", "greedy", generation, _LOOK, needs=(MPS, "transformers")),
)
