"""SwiGLU's activation ``silu(e) = e * sigmoid(e)`` in fp32, for `gated_linear_unit`."""

from __future__ import annotations

import torch
from torch import Tensor


def silu(e: Tensor) -> Tensor:
    """``e * sigmoid(e)``."""
    return torch.sigmoid(e).mul_(e)


def silu_and_slope(e: Tensor) -> tuple[Tensor, Tensor]:
    """``s * e`` and ``s * (1 + e * (1 - s))`` with ``s = sigmoid(e)``."""
    s = torch.sigmoid(e)
    slope = (1.0 - s).mul_(e).add_(1.0).mul_(s)
    return s.mul_(e), slope
