"""Autograd functions that were written for CUDA's autocast keep mixed precision on mps."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution="torch",
    reviewed=">=2.11,<2.15",
    why="custom_fwd and custom_bwd with device_type='cuda' ask for CUDA's autocast, which is never on here: the "
    "backward of Unsloth's LoRA and checkpoint functions would run outside of mps autocast.",
    upstream="unsloth and unsloth_zoo 2026.10.9, kernels/utils.py and gradient_checkpointing.py: torch_amp_custom_*",
    needed_for="the backward of Unsloth's LoRA and checkpoint functions to run under autocast, as the forward does",
    until="Both build their decorators from DEVICE_TYPE_TORCH for every device.",
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="torch.amp:custom_fwd",
        replacement="patcher.replacements.torch.amp:custom_fwd",
        expects="(fwd=None, *, device_type, cast_inputs=None)",
    ),
    _patch(
        target="torch.amp:custom_bwd",
        replacement="patcher.replacements.torch.amp:custom_bwd",
        expects="(bwd=None, *, device_type)",
    ),
)
