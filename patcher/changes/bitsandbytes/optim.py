"""Paged optimizers that the script makes itself train on mps, with state that is not paged."""

from __future__ import annotations

from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = tuple(
    Patch(
        distribution="bitsandbytes",
        reviewed="==0.50.2",
        target=target,
        replacement=f"patcher.replacements.bitsandbytes.optim:{target.rpartition('.')[2]}",
        expects="(self, p, dtype=torch.float32)",
        needed_for=None,
        why="state of 100000 values and more is asked from CUDA's managed memory: cget_managed_ptr is not available",
        upstream="bitsandbytes 0.50.2 optim/optimizer.py: get_state_buffer, which leaves paging out on the CPU only",
        until="bitsandbytes leaves paging out on mps",
    )
    for target in (
        "bitsandbytes.optim.optimizer:Optimizer8bit.get_state_buffer",
        "bitsandbytes.optim.ademamix:AdEMAMix._get_state_double_buffer",
    )
)
