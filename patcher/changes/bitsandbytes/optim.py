"""Paged optimizers that the script makes itself train on mps, with state that is not paged."""

from __future__ import annotations

from patcher.changes.bitsandbytes import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = tuple(
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target=target,
        replacement=f"patcher.replacements.bitsandbytes.optim:{target.rpartition('.')[2]}",
        expects="(self, p, dtype=torch.float32)",
        needed_for=None,
        why="state of 100000 values and more is asked from CUDA's managed memory: cget_managed_ptr is not available",
        upstream=source("bitsandbytes/optim/optimizer.py", "Optimizer8bit.get_state_buffer"),
        until="get_state_buffer leaves paging out on mps",
    )
    for target in (
        "bitsandbytes.optim.optimizer:Optimizer8bit.get_state_buffer",
        "bitsandbytes.optim.ademamix:AdEMAMix._get_state_double_buffer",
    )
)
