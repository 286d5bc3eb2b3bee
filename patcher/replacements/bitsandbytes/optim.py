"""State of bitsandbytes' optimizers: on mps never paged, since memory is unified there."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from patcher.engine.ledger import LEDGER, original

_LOGGER = logging.getLogger("patcher")


def get_state_buffer(self: Any, p: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Zeros in ``p``'s shape."""
    if self.is_paged and p.device.type == "mps":
        _tell(type(self).__name__)
        return torch.zeros_like(p, dtype=dtype)
    state: Tensor = original("bitsandbytes.optim.optimizer:Optimizer8bit.get_state_buffer")(self, p, dtype)
    return state


def _get_state_double_buffer(self: Any, p: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Zeros for two moments in one tensor, ``[2, *p.shape]``."""
    if self.is_paged and p.device.type == "mps":
        _tell(type(self).__name__)
        return torch.zeros((2, *p.shape), dtype=dtype, device=p.device)
    state: Tensor = original("bitsandbytes.optim.ademamix:AdEMAMix._get_state_double_buffer")(self, p, dtype)
    return state


def _tell(optimizer: str) -> None:
    if LEDGER.is_news(f"{optimizer} is not paged"):
        _LOGGER.warning(
            "patcher: %s: its state is not paged: memory is unified on a Mac; the numbers are the same", optimizer
        )
