"""Parts that the ops over a vocabulary share: the head, tiles of its logits, and their transform.

A language-model head turns hidden states ``[N, H]`` into logits ``[N, V]``. With V of 32 thousand to 256 thousand
the logits are the largest tensor of a training step, so these ops only ever hold a tile ``[TOKENS, VOCABULARY]``
of them and compute it a second time in the backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

TOKENS = 1024
"""Rows of a tile."""

VOCABULARY = 8192
"""Columns of a tile; a fp32 tile of 1024 x 8192 takes 32 MiB."""


Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Of a head's hidden states, weight and bias."""


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

    @property
    def factor(self) -> float:
        """``dz / dy`` without a softcap, and where ``y`` is 0."""
        return self.scale / self.temperature


def spans(length: int, width: int) -> Iterator[tuple[int, int]]:
    """``(start, end)`` of consecutive pieces of at most ``width``."""
    for start in range(0, length, width):
        yield start, min(start + width, length)


def project(hidden: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    """``out = hidden @ weight.T + bias``, computed and rounded in ``out``'s dtype.

    The product is rounded before the bias is added, and the sum once more, as TRL's kernels do (``torch.mm(out=tile)``,
    then ``tile.add_``); a linear layer would round once. ``out=`` keeps autocast from choosing another dtype. Shapes:
    ``[n, H]``, ``[w, H]``, ``[w]`` or None, ``[n, w]``.
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


@dataclass(frozen=True)
class Head:
    """A language-model head and what it is applied to.

    Attributes:
        hidden: ``[N, H]``.
        weight: ``[V, H]``.
        bias: ``[V]`` or None.
        transform: scale, softcap and temperature of the logits.
        compute_dtype: the dtype in which the projection's operands are taken.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    transform: LogitTransform
    compute_dtype: torch.dtype

    def rows(self, first: int, last: int) -> Tensor:
        """Hidden states in the compute dtype."""
        return self.hidden[first:last].to(self.compute_dtype)

    def columns(self, start: int, end: int) -> Tensor:
        """The weight of a piece of the vocabulary in the compute dtype."""
        return self.weight[start:end].to(self.compute_dtype)

    def logits(self, rows: Tensor, start: int, end: int, buffer: TileBuffer) -> Tensor:
        """The projection of one tile before its transform, in the buffer's dtype and memory."""
        bias = None if self.bias is None else self.bias[start:end]
        return project(rows, self.columns(start, end), bias, buffer.tile(len(rows), end - start))

    def zero_gradients(self, output_mask: tuple[bool, bool, bool]) -> list[Tensor | None]:
        """Sums to be of the gradients of hidden, weight and bias: fp32 zeros, None where none is asked for."""
        tensors = (self.hidden, self.weight, self.bias)
        return [
            torch.zeros_like(tensor, dtype=torch.float32) if wanted and tensor is not None else None
            for tensor, wanted in zip(tensors, output_mask, strict=True)
        ]

    def in_own_dtypes(self, gradients: list[Tensor | None]) -> Gradients:
        """The sums of `zero_gradients`, each rounded to the dtype of what it is the gradient of."""
        hidden, weight, bias = (
            None if gradient is None or tensor is None else gradient.to(tensor.dtype)
            for gradient, tensor in zip(gradients, (self.hidden, self.weight, self.bias), strict=True)
        )
        return hidden, weight, bias
