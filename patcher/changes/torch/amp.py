"""Autograd functions that were written for CUDA's autocast keep mixed precision on mps."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED
from patcher.changes.unsloth import source as unsloth
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    why="custom_fwd and custom_bwd with device_type='cuda' ask for CUDA's autocast, which is never on here: the "
    "backward of Unsloth's LoRA and checkpoint functions would run outside of mps autocast",
    upstream=unsloth("unsloth/kernels/utils.py", "torch_amp_custom_fwd"),
    needed_for="the backward of Unsloth's LoRA and checkpoint functions to run under autocast, as the forward does",
    until="Unsloth makes torch_amp_custom_fwd and torch_amp_custom_bwd from DEVICE_TYPE_TORCH on every device",
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
