"""Trainers that Unsloth writes plan their batches by the memory that mps has, not by 8 GB."""

from __future__ import annotations

from patcher.engine.model import AnyChange, Substitute

CHANGES: tuple[AnyChange, ...] = (
    Substitute(
        distribution="unsloth",
        reviewed="==2026.10.9",
        module="unsloth.models.rl",
        references={
            "autotune_batch_and_chunks": "patcher.replacements.unsloth.models_rl:autotune_batch_and_chunks",
        },
        needed_for=None,
        why="without CUDA or XPU the generated GRPO trainer assumes 8 GB of free memory, on small and large Macs alike",
        upstream="unsloth_zoo 2026.10.9 rl_replacements.py: autotune_batch_and_chunks; unsloth/models/rl.py takes it "
        "from RL_REPLACEMENTS and writes its source into every generated trainer",
        until="Unsloth asks DEVICE_TYPE for the free memory",
    ),
)
