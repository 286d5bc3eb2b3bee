"""``capturable=True`` and ``clip_grad_norm_(foreach=True)``, which torch refuses on mps, train there."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    until="torch accepts mps in the lists of devices for capturable and for foreach",
    needed_for=None,
)
_CAPTURABLE = "capturable=True prepares an optimizer for CUDA graphs, and torch refuses it on mps, where there are none"

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="torch.optim.optimizer:Optimizer.add_param_group",
        replacement="patcher.replacements.torch.optimizers:add_param_group",
        expects="(self, param_group)",
        why=_CAPTURABLE,
        upstream=source("torch/optim/optimizer.py", "_get_capturable_supported_devices"),
    ),
    _patch(
        target="torch.optim.optimizer:Optimizer.load_state_dict",
        replacement="patcher.replacements.torch.optimizers:load_state_dict",
        expects="(self, state_dict)",
        why=_CAPTURABLE,
        upstream=source("torch/optim/optimizer.py", "Optimizer.load_state_dict"),
    ),
    _patch(
        target="torch.nn.utils.clip_grad:_device_has_foreach_support",
        replacement="patcher.replacements.torch.optimizers:_device_has_foreach_support",
        expects="(device)",
        why="clip_grad_norm_(foreach=True) is refused on mps, though torch._foreach_norm works there",
        upstream=source("torch/utils/_foreach_utils.py", "_device_has_foreach_support"),
    ),
)
