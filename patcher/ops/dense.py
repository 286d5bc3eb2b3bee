"""Operands of products without repeated rows and columns, which Apple's kernels leave out (pytorch issue 180201)."""

from __future__ import annotations

from torch import Tensor


def dense(operand: Tensor) -> Tensor:
    """The operand, copied out where a dimension has stride 0, as the gradient of a sum has."""
    return operand.contiguous() if 0 in operand.stride() else operand
