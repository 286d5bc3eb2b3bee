"""Inside mixed precision on mps a script that asks for the state of CUDA's autocast hears that it is on."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution="torch",
    reviewed=">=2.13,<2.15",
    why="torch.is_autocast_enabled() and get_autocast_gpu_dtype() tell of CUDA's autocast, which mps's does not switch",
    upstream="torch 2.13.0 torch/amp/autocast_mode.py: __enter__ sets the state of its own device only",
    until="torch.is_autocast_enabled() without a device tells of the accelerator's",
    required=False,
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="torch.amp.autocast_mode:autocast.__enter__",
        replacement="patcher.replacements.torch.autocast_state:__enter__",
        expects="(self)",
    ),
    _patch(
        target="torch.amp.autocast_mode:autocast.__exit__",
        replacement="patcher.replacements.torch.autocast_state:__exit__",
        expects="(self, exc_type, exc_val, exc_tb)",
    ),
)
