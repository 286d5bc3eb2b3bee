"""Unsloth's LoRA functions cast their adapters once, and compute those that read one input side by side."""

from __future__ import annotations

from functools import partial

from patcher.changes.unsloth import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import Patch

half = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    why="fp32 adapters are cast to the activations' dtype one by one, in the forward and again in the backward, and "
    "their gradients back one by one: 42 of the 106 kernels that the projections of a layer take",
    upstream=source("unsloth/kernels/fast_lora.py", "LoRA_QKV"),
    until="upstream casts adapters once for forward and backward",
)
"""A forward or a backward."""
