"""The two functions of ``unsloth.kernels.swiglu`` in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from patcher.ops.gated_linear_unit import gated, gated_backward, gated_backward_
from patcher.ops.swiglu import silu, silu_and_slope


def swiglu_fg_kernel(e: Tensor, g: Tensor) -> Tensor:
    """``silu(e) * g`` for ``[batch, tokens, columns]``, as a new tensor; outside autograd."""
    with torch.no_grad():
        return gated(e, g, silu)


def swiglu_DWf_DW_dfg_kernel(DW: Tensor, e: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From the gradient ``DW`` of ``h = silu(e) * g``: ``h``, ``DW * silu(e)`` and the gradient of ``e``.

    They are written over ``DW``, ``e`` and ``g``, ``[rows, columns]``, in this order; while torch.compile traces they
    are new tensors.
    """
    if torch.compiler.is_compiling():
        return gated_backward(DW, e, g, silu_and_slope)
    with torch.no_grad():
        return gated_backward_(DW, e, g, silu_and_slope)
