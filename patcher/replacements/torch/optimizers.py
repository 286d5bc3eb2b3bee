"""Options of optimizers that torch accepts for CUDA alone."""

from __future__ import annotations

from typing import Any

import torch

from patcher.engine.ledger import original


def add_param_group(self: torch.optim.Optimizer, param_group: dict[str, Any]) -> None:
    """As torch; a group on mps is not capturable: there is nothing to capture, and the numbers are the same."""
    original("torch.optim.optimizer:Optimizer.add_param_group")(self, param_group)
    _without_capture(self)


def load_state_dict(self: torch.optim.Optimizer, state_dict: Any) -> None:
    """As torch, also for the checkpoint of a capturable optimizer."""
    original("torch.optim.optimizer:Optimizer.load_state_dict")(self, state_dict)
    _without_capture(self)


def _without_capture(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        if group.get("capturable") and any(parameter.device.type == "mps" for parameter in group["params"]):
            group["capturable"] = False
            if isinstance(group.get("lr"), torch.Tensor):  # which torch takes together with foreach for a capture alone
                group["foreach"] = False


def _device_has_foreach_support(device: torch.device) -> bool:
    """As torch, and yes for mps. Asked where a script wants ``foreach=True``; without it nothing changes."""
    return device.type == "mps" or bool(original("torch.nn.utils.clip_grad:_device_has_foreach_support")(device))
