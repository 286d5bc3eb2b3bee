"""``find_executable_batch_size`` tries a smaller batch where one tensor was too large for Metal."""

from __future__ import annotations

from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution="accelerate",
        reviewed=">=1.10,<2",
        target="accelerate.utils.memory:should_reduce_batch_size",
        replacement="patcher.replacements.accelerate.memory:should_reduce_batch_size",
        expects="(exception)",
        needed_for=None,
        why="a tensor longer than a Metal buffer may be is refused as `Invalid buffer size`, which accelerate does not "
        "know: auto_find_batch_size and find_executable_batch_size end instead of halving",
        upstream="torch 2.13.0 ATen/mps/MPSAllocator.mm: alloc_buffer_block; accelerate utils/memory.py",
        until="accelerate knows the message",
    ),
)
