"""What the libraries believe about the device after patch_for_mac(), as JSON on the last line. Run by test_identity."""

import os

from patcher import patch_for_mac

HANDLE = patch_for_mac(simulate="M2 Pro 32GB")

import unsloth  # noqa: I001
import ast
import json
from collections.abc import Iterator
from pathlib import Path
import unsloth._gpu_init
import unsloth.device_type
import unsloth.models._utils
import unsloth_zoo.device_type
import accelerate
import torch
from transformers import TrainingArguments
from trl import SFTConfig

CONSTANTS = ("DEVICE_TYPE", "DEVICE_TYPE_TORCH", "DEVICE_COUNT")


def checkpoint_keeps_dropout() -> float:
    """The gradient of sum(dropout(x)) minus its value: zero where recomputation draws the same mask."""
    torch.manual_seed(0)
    x = torch.ones(64, device="mps", requires_grad=True)
    y = torch.utils.checkpoint.checkpoint(lambda t: torch.dropout(t, 0.5, True) * t.detach(), x, use_reentrant=True)
    torch.randn(100, device="mps")
    y.sum().backward()
    return (x.grad - y.detach()).abs().max().item()


def under_autocast(device: str) -> str:
    with torch.autocast(device, dtype=torch.bfloat16):
        return str((torch.ones(2, 2, device="mps") @ torch.ones(2, 2, device="mps")).dtype)


def names_for_cuda(body: list[ast.stmt]) -> Iterator[str]:
    """Public names that statements bind where the device is CUDA, nested branches included, and that they keep."""
    bound, deleted = [], set()
    for node in (inner for statement in body for inner in walk_without_functions(statement)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            bound.append(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            bound += [name.asname or name.name.partition(".")[0] for name in node.names]
        elif isinstance(node, ast.Name):
            bound += [node.id] if isinstance(node.ctx, ast.Store) else []
            deleted |= {node.id} if isinstance(node.ctx, ast.Del) else set()
    yield from (name for name in dict.fromkeys(bound) if not name.startswith("_") and name not in deleted)


def walk_without_functions(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Lambda)):
        for child in ast.iter_child_nodes(node):
            yield from walk_without_functions(child)


def missing_from_unsloth() -> list[str]:
    """What ``from unsloth import ...`` finds on CUDA and not here, read from the branches for CUDA in its source."""
    tree = ast.parse(Path(unsloth._gpu_init.__file__).read_text())
    tests = {"DEVICE_TYPE == 'cuda'", "DEVICE_TYPE in ('cuda', 'hip')"}
    branches = [n.body for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) in tests]
    assert branches, "unsloth/_gpu_init.py asks for the device in another way"
    return sorted({name for body in branches for name in names_for_cuda(body)} - set(dir(unsloth)))


HELD = torch.ones(1024, device="cuda")


def compiled(device: str) -> float:
    """How far a compiled function is from the same function uncompiled."""
    x = torch.linspace(-1, 1, 100, device=device)
    return (torch.compile(lambda t: torch.sin(t) * 2 + t)(x) - (torch.sin(x) * 2 + x)).abs().max().item()


FACTS = {
    "unsloth": [getattr(unsloth.device_type, name) for name in CONSTANTS],
    "zoo": [getattr(unsloth_zoo.device_type, name) for name in CONSTANTS],
    "functions": [unsloth.device_type.get_device_type(), unsloth_zoo.device_type.get_device_type()],
    "stats": unsloth.device_type.get_device_stats(),
    "module": unsloth.device_type._DEVICE_MODULE is torch.mps,
    "bf16": [unsloth.is_bfloat16_supported(), unsloth.SUPPORTS_BFLOAT16, torch.cuda.is_bf16_supported()],
    "missing": missing_from_unsloth(),
    "is_bf16_supported": unsloth.is_bf16_supported(),
    "allow_cpu": os.environ.get("UNSLOTH_ALLOW_CPU"),
    "copied": unsloth.models._utils.DEVICE_TYPE,
    "cuda available": torch.cuda.is_available(),
    "cuda answers": [
        torch.cuda.get_device_name(0),
        torch.cuda.get_device_properties(0).total_memory,
        list(torch.cuda.get_device_capability()),
        torch.cuda.current_device(),
        torch.cuda.device_count(),
    ],
    "memory": [
        torch.cuda.memory_allocated() >= 4096,
        torch.cuda.max_memory_allocated() >= torch.cuda.memory_allocated(),
    ],
    "accelerate": str(accelerate.Accelerator().device),
    "transformers": str(TrainingArguments("out", report_to="none").device),
    "trl": str(SFTConfig("out", report_to="none").device),
    "autocast": [under_autocast("cuda"), under_autocast("mps")],
    "dropout": checkpoint_keeps_dropout(),
    "inductor": [compiled("cpu"), compiled("mps")],
    "compiled": os.environ["UNSLOTH_COMPILE_LOCATION"],
    "refused": [str(entry.detail) for entry in HANDLE.report().entries if entry.state.value == "refused"],
    "unreviewed": [str(entry.change) for entry in HANDLE.report().entries if entry.state.value == "unreviewed"],
}
print(json.dumps(FACTS))
