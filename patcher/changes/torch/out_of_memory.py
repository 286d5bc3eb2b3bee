"""``except torch.cuda.OutOfMemoryError`` catches that memory ran out on mps."""

from __future__ import annotations

from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = tuple(
    Patch(
        distribution="torch",
        reviewed=">=2.11,<2.15",
        target=f"{module}:__class__",
        replacement="patcher.replacements.torch.out_of_memory:KnowsOutOfMemory",
        needed_for=None,
        why="torch raises a plain RuntimeError on mps: a script that halves its batch in "
        "`except torch.cuda.OutOfMemoryError` ends instead",
        upstream="torch 2.13.0 and 2.14.0 ATen/mps/MPSAllocator.mm: TORCH_CHECK; accelerate issue 4226",
        until="MPSAllocator raises OutOfMemoryError",
    )
    for module in ("torch", "torch.cuda")
)
