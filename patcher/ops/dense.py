"""Operands of products without repeated rows and columns, which Apple's kernels leave out (pytorch issue 180201)."""

from __future__ import annotations

from torch import Tensor


def dense(operand: Tensor) -> Tensor:
    """The operand, (..., m, k), copied out where its rows or columns are one, as in the gradient of a sum.

    A matrix that is one for the whole batch stays what it is.
    """
    repeats = 0 in operand.stride()[-2:] and any(
        step == 0 and size > 1 for step, size in zip(operand.stride()[-2:], operand.shape[-2:], strict=True)
    )
    return operand.contiguous() if repeats else operand
