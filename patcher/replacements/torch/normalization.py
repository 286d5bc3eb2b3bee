"""Normalization on mps, on layouts that torch's kernels take."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from patcher.engine.ledger import original


def native_batch_norm(
    keys: Any,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The normalized input (n, channels, ...), mean and scale of each channel; five dimensions become contiguous."""
    if input.dim() == 5:
        input = input.contiguous()
    call = original("aten::native_batch_norm on MPS").call_boxed
    normed: tuple[Tensor, Tensor, Tensor] = call(
        keys, input, weight, bias, running_mean, running_var, training, momentum, eps
    )
    return normed
