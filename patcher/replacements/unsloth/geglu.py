"""The four functions of ``unsloth.kernels.geglu`` in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from patcher.ops.gated_linear_unit import gated, gated_backward_
from patcher.ops.geglu import gelu, gelu_and_slope, gelu_tanh, gelu_tanh_and_slope


def geglu_exact_forward_kernel(gate: Tensor, up: Tensor) -> Tensor:
    """``gelu(gate) * up`` for ``[batch, tokens, columns]``, as a new tensor; outside autograd."""
    with torch.no_grad():
        return gated(gate, up, gelu)


def geglu_exact_backward_kernel(DW: Tensor, e: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``h = gelu(e) * g``, ``DW * gelu(e)`` and the gradient of ``e``, written over ``DW``, ``e`` and ``g``."""
    with torch.no_grad():
        return gated_backward_(DW, e, g, gelu_and_slope)


def geglu_approx_forward_kernel(gate: Tensor, up: Tensor) -> Tensor:
    """As `geglu_exact_forward_kernel` with the tanh form of gelu."""
    with torch.no_grad():
        return gated(gate, up, gelu_tanh)


def geglu_approx_backward_kernel(DW: Tensor, e: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `geglu_exact_backward_kernel` with the tanh form of gelu."""
    with torch.no_grad():
        return gated_backward_(DW, e, g, gelu_tanh_and_slope)
