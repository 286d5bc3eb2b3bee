"""The low-rank part of projections that read one input: ``Y_i += s_i * X @ A_i^T @ B_i^T``, and its gradients.

Projections that read the same rows (query, key and value; gate and up) are computed side by side: their ``A_i`` lie one
below the other as ``A``, ``[R, in]``, so that ``H = A @ X^T``, ``[R, T]``, is one product, and so are the gradients of
``A`` and the part of ``dX``. Ranks, widths of outputs and scales may differ.

    H    = A @ X^T                      [R, T]
    Y_i += s_i * H_i^T @ B_i^T          [T, out_i]
    G_i  = B_i^T @ dY_i^T               [rank_i, T]
    dA_i = s_i * G_i @ X,  dB_i = s_i * dY_i^T @ H_i^T
    dX  += sum of s_i * G_i^T @ A_i

``H`` and ``G`` hold tokens in rows, so that the part of each projection is contiguous. Products accumulate in fp32 and
round once to the dtype of ``X``; gradients of adapters in a wider dtype are rounded to it too, as Unsloth's are. From
Hu et al., https://arxiv.org/abs/2106.09685.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor


class Adapter(NamedTuple):
    """``A``, ``[rank, in]``, and ``B``, ``[out, rank]``, of one projection, and the factor of their product."""

    A: Tensor
    B: Tensor
    scale: float


@dataclass(frozen=True)
class Layout:
    """Where the adapters of a group of projections lie in one buffer: every ``A``, then every ``B``."""

    width: int
    ranks: tuple[int, ...]
    outs: tuple[int, ...]
    scales: tuple[float, ...]

    @classmethod
    def of(cls, adapters: Sequence[Adapter]) -> Layout:
        """That of ``adapters``, in their order."""
        return cls(
            adapters[0].A.shape[1],
            tuple(adapter.A.shape[0] for adapter in adapters),
            tuple(adapter.B.shape[0] for adapter in adapters),
            tuple(adapter.scale for adapter in adapters),
        )

    @property
    def rows(self) -> list[slice]:
        """The rows of each projection in ``A``, ``H`` and ``G``."""
        ends = list(accumulate(self.ranks))
        return [slice(end - rank, end) for end, rank in zip(ends, self.ranks, strict=True)]

    @property
    def spans(self) -> Iterator[tuple[slice, float]]:
        """Rows that have one scale, and the scale: all of them, or those of each projection."""
        if len(set(self.scales)) == 1:
            return iter([(slice(0, sum(self.ranks)), self.scales[0])])
        return zip(self.rows, self.scales, strict=True)

    def parts(self, buffer: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """``A``, ``[R, in]``, and each ``B`` in a buffer of this layout; views."""
        sizes = [sum(self.ranks) * self.width, *(o * r for o, r in zip(self.outs, self.ranks, strict=True))]
        A, *B = torch.split(buffer, sizes)
        shapes = zip(B, self.outs, self.ranks, strict=True)
        return A.view(-1, self.width), tuple(part.view(out, rank) for part, out, rank in shapes)


def pack(adapters: Sequence[Adapter], dtype: torch.dtype) -> Tensor:
    """All adapters in one buffer of `Layout.of` them, rounded to ``dtype``."""
    every = [adapter.A for adapter in adapters] + [adapter.B for adapter in adapters]
    buffer = torch.empty(sum(one.numel() for one in every), dtype=dtype, device=every[0].device)
    return torch.cat([one.reshape(-1) for one in every], out=buffer)


def lora(X: Tensor, outputs: Sequence[Tensor], buffer: Tensor, layout: Layout) -> Tensor:
    """Adds the low-rank part to each of ``outputs``, ``[T, out_i]``; returns ``H``, which the gradients need.

    Args:
        X: ``[T, in]``, in the dtype of ``buffer`` and ``outputs``.
        outputs: of the base weights, written in place.
        buffer: what `pack` gave.
        layout: of ``buffer``.
    """
    A, B = layout.parts(buffer)
    H = torch.mm(A, X.t(), out=X.new_empty(A.shape[0], X.shape[0]))  # which autocast leaves alone
    for output, rows, part, scale in zip(outputs, layout.rows, B, layout.scales, strict=True):
        output.addmm_(H[rows].t(), part.t(), alpha=scale)
    return H


def lora_back(grad_outputs: Sequence[Tensor], buffer: Tensor, layout: Layout) -> Tensor:
    """``G`` of the gradients ``[T, out_i]`` of each output."""
    _, B = layout.parts(buffer)
    G = torch.empty(sum(layout.ranks), grad_outputs[0].shape[0], dtype=buffer.dtype, device=buffer.device)
    for grad, rows, part in zip(grad_outputs, layout.rows, B, strict=True):
        torch.mm(part.t(), grad.t(), out=G[rows])
    return G


def lora_gradients(
    X: Tensor, H: Tensor, G: Tensor, grad_outputs: Sequence[Tensor], layout: Layout, dtype: torch.dtype
) -> list[tuple[Tensor, Tensor]]:
    """Gradients of ``A_i`` and ``B_i`` of each projection in ``dtype``; they are parts of one buffer."""
    size = layout.width * sum(layout.ranks) + sum(o * r for o, r in zip(layout.outs, layout.ranks, strict=True))
    buffer = torch.empty(size, dtype=X.dtype, device=X.device)
    grad_A, grad_B = layout.parts(buffer)
    for rows, scale in layout.spans:
        grad_A[rows].addmm_(G[rows], X, beta=0, alpha=scale)
    for grad, rows, part, scale in zip(grad_outputs, layout.rows, grad_B, layout.scales, strict=True):
        part.addmm_(grad.t(), H[rows].t(), beta=0, alpha=scale)
    grad_A, grad_B = layout.parts(buffer.to(dtype))
    return [(grad_A[rows], part) for rows, part in zip(layout.rows, grad_B, strict=True)]


def add_lora_grad_input(grad_input: Tensor, G: Tensor, buffer: Tensor, layout: Layout) -> None:
    """Adds to ``grad_input``, ``[T, in]``, what comes through the adapters."""
    A, _ = layout.parts(buffer)
    for rows, scale in layout.spans:
        grad_input.addmm_(G[rows].t(), A[rows], alpha=scale)
