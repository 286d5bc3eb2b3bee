"""The two functions of ``unsloth.kernels.rms_layernorm`` that launch kernels, in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from patcher.ops.rms_norm import rms_norm, rms_norm_backward

Wrap = Callable[[Any], Any]


def _rms_forward(
    X: Tensor, W: Tensor, eps: float, gemma: bool, wrap: Wrap, multirow: object = None
) -> tuple[Tensor, Tensor]:
    """``Y`` and the reciprocal root mean square of rows; there are no kernels, so ``wrap`` and ``multirow`` are unused.

    Args:
        X: ``[rows, columns]``.
        W: ``[columns]``.
        eps: added to the mean square.
        gemma: whether the factor is ``W + 1``.
        wrap: upstream's choice of launcher.
        multirow: upstream's choice of kernel.
    """
    return rms_norm(X, W, eps, unit_offset=gemma)


def _rms_backward(
    dY: Tensor,
    dX: Tensor,
    X: Tensor,
    W: Tensor,
    r: Tensor,
    eps: float,
    gemma: bool,
    wrap: Wrap,
    multirow: object = None,
    train_w: bool = False,
    from_y: bool = False,
) -> Tensor | None:
    """Writes ``dX``, which may be ``dY``; returns ``dW`` if ``train_w``. With ``from_y``, ``X`` holds the output."""
    return rms_norm_backward(
        dY, X, W, r, grad_input=dX, unit_offset=gemma, needs_grad_weight=train_w, saved_is_output=from_y
    )
