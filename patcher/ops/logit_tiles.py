"""Parts that the ops over a vocabulary share: tiles of logits, their transform, and gradients summed in fp32.

A language-model head turns hidden states ``[N, H]`` into logits ``[N, V]``. With V of 32 thousand to 256 thousand
the logits are the largest tensor of a training step, so these ops only ever hold a tile ``[TOKENS, VOCABULARY]``
of them and compute it a second time in the backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_REDUCTION = 32766
"""Longest sum that one matmul may run over: from 32767 on, mps reads past its operands
(pytorch#177116, #193487, #195163)."""

TOKENS = 1024
"""Rows of a tile."""

VOCABULARY = 8192
"""Columns of a tile; a fp32 tile of 1024 x 8192 takes 32 MiB."""


@dataclass(frozen=True)
class LogitTransform:
    """What happens to a projected value ``y`` before the softmax, in fp32.

    ``z = softcap * tanh(y * scale / softcap) / temperature``, or ``z = y * scale / temperature`` without a softcap.
    """

    scale: float = 1.0
    softcap: float | None = None
    temperature: float = 1.0

    def __call__(self, y: Tensor) -> Tensor:
        """``z`` for a tile ``y`` of any dtype; a new fp32 tensor."""
        return self.with_slope(y)[0]

    def with_slope(self, y: Tensor) -> tuple[Tensor, Tensor | float]:
        """``z`` and ``dz / dy``; the slope is a number where it does not depend on ``y``."""
        inverse_temperature = 1 / self.temperature
        z = y.to(torch.float32) * self.scale
        if self.softcap is None:
            return z.mul_(inverse_temperature), self.scale * inverse_temperature
        softcap = self.softcap or 1.0
        t = z.div_(softcap).tanh_()
        slope = t.square().neg_().add_(1).mul_(self.scale * inverse_temperature)
        return t.mul_(softcap * inverse_temperature), slope


def spans(length: int, width: int) -> Iterator[tuple[int, int]]:
    """``(start, end)`` of consecutive pieces of at most ``width``."""
    for start in range(0, length, width):
        yield start, min(start + width, length)


def project(hidden: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    """``out = hidden @ weight.T + bias``, computed and rounded in ``out``'s dtype.

    ``out=`` keeps autocast from choosing another dtype. Shapes: ``[n, H]``, ``[w, H]``, ``[w]`` or None, ``[n, w]``.
    """
    torch.mm(hidden.to(out.dtype), weight.to(out.dtype).t(), out=out)
    return out if bias is None else out.add_(bias.to(out.dtype))


class TileBuffer:
    """Memory for one tile at a time; every tile is a contiguous view of it."""

    def __init__(self, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> None:
        self._memory = torch.empty(rows * columns, dtype=dtype, device=device)

    def tile(self, rows: int, columns: int) -> Tensor:
        """Uninitialised ``[rows, columns]``; the tile given out before is overwritten."""
        return self._memory[: rows * columns].view(rows, columns)


def addmm_fp32_(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``total += a @ b`` in place for a fp32 ``total``; the products of bf16 or fp16 inputs are not rounded first.

    The sum over ``a``'s columns is split into pieces of at most `MAX_REDUCTION`.
    """
    for start, end in spans(a.shape[1], MAX_REDUCTION):
        total.addmm_(a[:, start:end].to(torch.float32), b[start:end].to(torch.float32))
    return total


def matmul_split(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` for matrices or equal batches of them, with the sum split into pieces of at most `MAX_REDUCTION`.

    The pieces are added in the inputs' dtype, so this is meant for fp32. Shapes: ``[..., m, k]``, ``[..., k, n]``.
    """
    k = a.shape[-1]
    if k <= MAX_REDUCTION:
        return torch.matmul(a, b)
    pieces = [torch.matmul(a[..., i:j], b[..., i:j, :]) for i, j in spans(k, MAX_REDUCTION)]
    return torch.stack(pieces).sum(0)
