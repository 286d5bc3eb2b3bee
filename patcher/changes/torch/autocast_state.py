"""Inside mixed precision on mps a script that asks for the state of CUDA's autocast hears that it is on."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, native
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    why="torch.is_autocast_enabled() and set_autocast_enabled(False) are about CUDA's autocast, which is never on here",
    upstream=native("torch/csrc/autograd/init.cpp", "is_autocast_enabled"),
    until="torch.is_autocast_enabled() without a device tells of the accelerator's",
    needed_for=None,
)

CHANGES: tuple[AnyChange, ...] = tuple(
    _patch(target=f"torch:{name}", replacement=f"patcher.replacements.torch.autocast_state:{name}")
    for name in (
        "is_autocast_enabled",
        "get_autocast_dtype",
        "get_autocast_gpu_dtype",
        "set_autocast_enabled",
        "set_autocast_dtype",
        "set_autocast_gpu_dtype",
    )
)
