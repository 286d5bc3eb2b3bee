"""Models whose layers are kernels of Liger-Kernel or of flash-linear-attention, trained on mps, beside the CPU without:

    python -m tests.clients.models SITE-PACKAGES

SITE-PACKAGES is the folder with both packages, as `tests.clients` leaves it. For each model the losses of four steps in
fp32, the largest difference of one, that of the first step's gradients relative to their norm, the launches of kernels,
whether eight tokens that are chosen greedily are the same, and the tensor whose gradient is furthest off relative to
its own norm. Then how far the gated delta rule is from fp64, on mps with the kernels and on the CPU without.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from tests.clients import delta_rule
from tests.process import ROOT, run_module

COMMON = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "initializer_range": 0.08,
}
LINEAR = {
    **COMMON,
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
PACKAGES = {"liger": "liger_kernel", "fla": "fla"}
STEPS, TOKENS, RATE = 4, 70, 1e-3


def _of(name: str, **config: Any) -> Callable[[], Any]:
    def make() -> Any:
        import transformers

        configuration = getattr(transformers, "Qwen3_5TextConfig" if name == "Qwen3_5" else f"{name}Config")
        return getattr(transformers, f"{name}ForCausalLM")(configuration(**config))

    return make


MODELS: dict[str, tuple[str, Callable[[], Any]]] = {
    "Llama": ("liger", _of("Llama", **COMMON, num_hidden_layers=2)),
    "Qwen3": ("liger", _of("Qwen3", **COMMON, num_hidden_layers=2)),
    "Gemma2": ("liger", _of("Gemma2", **COMMON, num_hidden_layers=2)),
    "Qwen3Next": ("fla", _of("Qwen3Next", **LINEAR, **EXPERTS)),
    "Qwen3_5": ("fla", _of("Qwen3_5", **LINEAR)),
}


def train(name: str, device: str) -> dict[str, Any]:
    """Losses, the first step's gradients, tokens."""
    library, make = MODELS[name]
    torch.manual_seed(0)
    model = make()
    if device == "mps" and library == "liger":
        from liger_kernel.transformers import _apply_liger_kernel_to_instance

        _apply_liger_kernel_to_instance(model=model)
    model = model.to(device)
    ids = torch.randint(0, 256, (2, TOKENS), generator=torch.Generator().manual_seed(1)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    losses, gradients = [], {}
    for step in range(STEPS):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        if step == 0:
            gradients = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    tokens = model.eval().generate(ids[:1, :20], max_new_tokens=8, do_sample=False)
    return {"losses": losses, "gradients": gradients, "tokens": tokens.tolist()}


def work(device: str, names: list[str], file: Path) -> None:
    """Trains in this process; with mps, after the one line, as a script does."""
    launched = None
    if device == "mps":
        from patcher import patch_for_mac

        patch_for_mac(simulate="1")
        from patcher.tiles.backends import launches as launched
    found = {}
    for name in names:
        before = launched.total() if launched is not None else 0
        found[name] = train(name, device)
        found[name]["launches"] = launched.total() - before if launched is not None else 0
    rule = delta_rule.run(delta_rule.of_transformers, device, torch.float32)
    torch.save({"models": found, "rule": rule}, file)


def main(packages: Path) -> int:
    """Prints tables for the packages that are there; 1 where a model launched no kernel of its library."""
    there = [name for name, (library, _) in MODELS.items() if (packages / PACKAGES[library]).is_dir()]
    with tempfile.TemporaryDirectory() as scratch:
        for device, path in (("cpu", [ROOT]), ("mps", [ROOT, packages.resolve()])):
            file = Path(scratch) / f"{device}.pt"
            path = os.pathsep.join(map(str, path))
            run_module("tests.clients.models", device, json.dumps(there), file, PYTHONPATH=path)
        ours, reference = (torch.load(Path(scratch) / f"{device}.pt") for device in ("mps", "cpu"))
    print("| model | library | launches | losses | gradients | tokens | worst |\n|---|---|---|---|---|---|---|")
    for name in there:
        print(_row(name, MODELS[name][0], ours["models"][name], reference["models"][name]))
    if "Qwen3Next" in there:
        _print_delta_rule(ours["rule"], reference["rule"])
    return 0 if all(found["launches"] for found in ours["models"].values()) else 1


def _print_delta_rule(ours: list[torch.Tensor], reference: list[torch.Tensor]) -> None:
    right = delta_rule.run(delta_rule.reference, "cpu", torch.float64)
    print(f"\n| delta rule | {' | '.join(delta_rule.NAMES)} |\n|---|---|---|---|---|---|---|")
    print(delta_rule.line("kernels on mps", ours, right))
    print(delta_rule.line("torch on the CPU", reference, right))


def _row(name: str, library: str, ours: dict[str, Any], reference: dict[str, Any]) -> str:
    losses = max(abs(a - b) for a, b in zip(ours["losses"], reference["losses"], strict=True))
    right = reference["gradients"]
    assert ours["gradients"].keys() == right.keys()
    off = {key: (ours["gradients"][key] - right[key]).norm() for key in right}
    worst = max(off, key=lambda key: off[key] / right[key].norm())
    whole = _norm(off.values()) / _norm(tensor.norm() for tensor in right.values())
    tokens = "equal" if ours["tokens"] == reference["tokens"] else "other"
    said = f"{off[worst] / right[worst].norm():.0e} {worst}"
    return f"| {name} | {library} | {ours['launches']} | {losses:.0e} | {whole:.0e} | {tokens} | {said} |"


def _norm(norms: Iterable[torch.Tensor]) -> torch.Tensor:
    """Of tensors together, from the norm of each."""
    return torch.stack(list(norms)).norm()


if __name__ == "__main__":
    if len(sys.argv) == 2:
        sys.exit(main(Path(sys.argv[1])))
    work(sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3]))
