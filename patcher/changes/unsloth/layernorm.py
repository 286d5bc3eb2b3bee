"""LayerNorm runs on mps: the two halves of ``Fast_Layernorm``; ``fast_layernorm`` stays upstream's own."""

from __future__ import annotations

from functools import partial

from patcher.changes.unsloth import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    why="fast_layernorm launches Triton kernels, and there is no Triton for mps",
    upstream=source("unsloth/kernels/layernorm.py", "Fast_Layernorm"),
    until="Fast_Layernorm has a torch variant",
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="unsloth.kernels.layernorm:Fast_Layernorm.forward",
        replacement="patcher.replacements.unsloth.layernorm:forward",
        expects="(ctx, X, W, b, eps)",
    ),
    _patch(
        target="unsloth.kernels.layernorm:Fast_Layernorm.backward",
        replacement="patcher.replacements.unsloth.layernorm:backward",
        expects="(ctx, dY)",
    ),
)
