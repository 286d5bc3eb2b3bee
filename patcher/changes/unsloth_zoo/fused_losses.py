"""Unsloth's chunked cross entropy logs the right loss: its chunks are added up without torch.compile."""

from __future__ import annotations

from patcher.engine.model import AnyChange, Substitute

CHANGES: tuple[AnyChange, ...] = (
    Substitute(
        distribution="unsloth_zoo",
        reviewed="==2026.10.9",
        module="unsloth_zoo.fused_losses.cross_entropy_loss",
        constants={"_FUSED_CE_COMPILE_SUPPORTED": False},
        needed_for=None,
        why="Inductor's Metal code for total.add_(chunk.sum()) lets every thread add to the total it reads: a race",
        upstream="torch 2.13.0 torch/_inductor/codegen/mps.py: stores after an in-place reduction",
        until="Inductor stores the result of an in-place reduction from one thread only",
    ),
)
