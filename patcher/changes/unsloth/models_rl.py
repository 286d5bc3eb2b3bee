"""Trainers that Unsloth writes plan their batches by the memory that mps has, not by 8 GB."""

from __future__ import annotations

from patcher.changes.unsloth import DISTRIBUTION, REVIEWED
from patcher.changes.unsloth_zoo import source as zoo
from patcher.engine.model import AnyChange, Substitute

CHANGES: tuple[AnyChange, ...] = (
    Substitute(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        module="unsloth.models.rl",
        references={
            "autotune_batch_and_chunks": "patcher.replacements.unsloth.models_rl:autotune_batch_and_chunks",
        },
        needed_for=None,
        why="without CUDA or XPU the generated GRPO trainer assumes 8 GB of free memory, on small and large Macs alike",
        upstream=zoo("unsloth_zoo/rl_replacements.py", "autotune_batch_and_chunks"),
        until="autotune_batch_and_chunks asks DEVICE_TYPE for the free memory",
    ),
)
