"""``capturable=True`` and ``clip_grad_norm_(foreach=True)``, which torch refuses on mps, train there."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import AnyChange, Patch

_patch = partial(Patch, distribution="torch", reviewed=">=2.13,<2.15", until="torch accepts mps there", needed_for=None)
_CAPTURABLE = "capturable=True prepares an optimizer for CUDA graphs; torch refuses it on mps, where there are none"

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="torch.optim.optimizer:Optimizer.add_param_group",
        replacement="patcher.replacements.torch.optimizers:add_param_group",
        expects="(self, param_group)",
        why=_CAPTURABLE,
        upstream="torch 2.13.0 torch/optim/optimizer.py: _get_capturable_supported_devices",
    ),
    _patch(
        target="torch.optim.optimizer:Optimizer.load_state_dict",
        replacement="patcher.replacements.torch.optimizers:load_state_dict",
        expects="(self, state_dict)",
        why=_CAPTURABLE,
        upstream="torch 2.13.0 torch/optim/optimizer.py: a checkpoint brings its own groups",
    ),
    _patch(
        target="torch.nn.utils.clip_grad:_device_has_foreach_support",
        replacement="patcher.replacements.torch.optimizers:_device_has_foreach_support",
        expects="(device)",
        why="clip_grad_norm_(foreach=True) is refused on mps, though torch._foreach_norm works there",
        upstream="torch 2.13.0 torch/nn/utils/clip_grad.py; native_functions.yaml: CompositeExplicitAutograd",
    ),
)
