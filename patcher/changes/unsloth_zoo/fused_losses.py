"""Unsloth's chunked cross entropy logs the right loss: its chunks are added up without torch.compile.

Only what `fused_linear` does not take comes here: ``UNSLOTH_CHUNKED_CE=0``, ``UNSLOTH_CE_LOSS_TARGET_GB``,
``UNSLOTH_CE_LOSS_N_CHUNKS``, and gradients written over the hidden states.
"""

from __future__ import annotations

from patcher.changes.torch import source as torch
from patcher.changes.unsloth_zoo import DISTRIBUTION, REVIEWED
from patcher.engine.model import AnyChange, Substitute

CHANGES: tuple[AnyChange, ...] = (
    Substitute(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        module="unsloth_zoo.fused_losses.cross_entropy_loss",
        constants={"_FUSED_CE_COMPILE_SUPPORTED": False},
        needed_for=None,
        why="Inductor's Metal code for total.add_(chunk.sum()) lets every thread add to the total it reads: a race",
        upstream=torch("torch/_inductor/codegen/mps.py", "MetalKernel.store"),
        until="MetalKernel.store writes what follows a reduction from one thread only",
    ),
)
