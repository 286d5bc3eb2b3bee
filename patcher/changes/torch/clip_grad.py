"""Clipping takes gradients that lie side by side as one."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    why="without kernels for many tensors, clipping takes two kernels for each parameter on mps",
    upstream=source("torch/nn/utils/clip_grad.py", "_get_total_norm"),
    until="torch's mps backend has kernels of _foreach_norm and _foreach_mul_ for many tensors",
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="torch.nn.utils.clip_grad:_get_total_norm",
        replacement="patcher.replacements.torch.clip_grad:_get_total_norm",
        expects="(tensors, norm_type=2.0, error_if_nonfinite=False, foreach=None)",
    ),
    _patch(
        target="torch.nn.utils.clip_grad:_clip_grads_with_norm_",
        replacement="patcher.replacements.torch.clip_grad:_clip_grads_with_norm_",
        expects="(parameters, max_norm, total_norm, foreach=None)",
    ),
)
