"""``except torch.cuda.OutOfMemoryError`` catches that memory ran out on mps."""

from __future__ import annotations

from patcher.changes.torch import DISTRIBUTION, REVIEWED, native
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = tuple(
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target=f"{module}:__class__",
        replacement="patcher.replacements.torch.out_of_memory:KnowsOutOfMemory",
        needed_for=None,
        why="torch raises a plain RuntimeError on mps: a script that halves its batch in "
        "`except torch.cuda.OutOfMemoryError` ends instead",
        upstream=native(
            "aten/src/ATen/mps/MPSAllocator.mm",
            "alloc_buffer_block",
            ("https://github.com/huggingface/accelerate/issues/4226",),
        ),
        until="MPSAllocator.mm raises OutOfMemoryError",
    )
    for module in ("torch", "torch.cuda")
)
