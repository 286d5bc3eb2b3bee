"""A tile of a head's logits folded into the softmax of its rows, or made its gradient.

A tile ``y`` is ``[n, w]``, contiguous, fp32, fp16 or bf16, and lies at the start of memory that holds one element
more. ``z = transform(y + bias)`` in fp32 (see `patcher.ops.logit_tiles.LogitTransform`). ``places`` ``[n]``, int64,
says where in the tile, counted row by row, the label of each row is; ``n w``, behind it, where it is in another tile.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.compiler import is_compiling

from patcher.ops.logit_tiles import LogitTransform
from patcher.ops.variants.choice import Choice

VARIANT = Choice("softmax_tile")

LOWEST = torch.finfo(torch.float32).min / 2
"""A maximum over nothing; finite, so that the difference of two is no NaN."""


@dataclass
class Sums:
    """Of each row over the tiles so far, ``[n]`` fp32; all but ``z`` without the labels. None where it is not wanted.

    Attributes:
        maximum: of ``z``.
        total: of ``exp(z - maximum)``.
        z: of ``z``.
        z_exp: of ``z exp(z - maximum)``.
        square: of ``exp(z - maximum) ** 2``.
    """

    maximum: Tensor
    total: Tensor
    z: Tensor | None = None
    z_exp: Tensor | None = None
    square: Tensor | None = None

    @classmethod
    def of_nothing(cls, rows: int, device: torch.device, wanted: tuple[str, ...] = ()) -> Sums:
        """Before the first tile; ``wanted`` names those that are not always there."""
        zeros = {name: torch.zeros(rows, dtype=torch.float32, device=device) for name in ("total", *wanted)}
        return cls(torch.full_like(zeros["total"], LOWEST), **zeros)


def fold_(
    y: Tensor, places: Tensor, bias: Tensor | None, transform: LogitTransform, sums: Sums, *, weights: bool
) -> Tensor:
    """Adds a tile to ``sums``.

    Args:
        y: the tile; with ``weights`` it becomes ``dz/dy / factor * exp(z - maximum)``, 0 at the labels, else its
            content is lost. ``factor`` is `LogitTransform.factor`, what is left of the slope without a softcap.
        places: of the labels.
        bias: ``[w]`` or None.
        transform: of the logits.
        sums: changed in place.
        weights: whether the weights of a product are wanted.

    Returns:
        ``[n]``, what sums of earlier weights have to be multiplied by: ``exp`` of the change of the maximum.
    """
    if y.is_mps and not is_compiling() and (variant := VARIANT[y.dtype]):
        return variant.fold_(y, places, bias, transform, sums, weights=weights)  # type: ignore[no-any-return]
    memory, z = _wide(y)
    slope = _transformed(z, bias, transform)
    if sums.z is not None:
        sums.z += z.sum(1)
    memory.index_fill_(0, places, 2 * LOWEST)
    maximum = torch.maximum(sums.maximum, z.amax(1))
    rescale = torch.exp(sums.maximum - maximum)
    sums.maximum.copy_(maximum)
    exp = z if sums.z_exp is None and sums.square is None else torch.empty_like(z)
    torch.sub(z, maximum[:, None], out=exp).exp_()
    sums.total.mul_(rescale).add_(exp.sum(1))
    if sums.z_exp is not None:
        sums.z_exp.mul_(rescale).add_(z.mul_(exp).sum(1))
    if sums.square is not None:
        sums.square.mul_(rescale.square()).add_(torch.mul(exp, exp, out=z).sum(1))
    if weights:
        if slope is not None:
            exp.mul_(slope)
        if exp is not y:
            y.copy_(exp)
    return rescale


@dataclass(frozen=True)
class Gradient:
    """Of a loss by ``z``: ``p (a + b log p) - c``, and what it is at the label; ``p`` is the softmax.

    Attributes:
        log_z: ``[n]`` fp32.
        at_label: ``[n]`` fp32.
        a: ``[n]`` fp32; None for 1.
        b: ``[n]`` fp32; None for 0.
        c: a number.
    """

    log_z: Tensor
    at_label: Tensor
    a: Tensor | None = None
    b: Tensor | None = None
    c: float = 0.0

    def of(self, part: slice) -> Gradient:
        """That of some of the rows."""
        a, b = (None if each is None else each[part] for each in (self.a, self.b))
        return Gradient(self.log_z[part], self.at_label[part], a, b, self.c)


def gradient_(y: Tensor, places: Tensor, bias: Tensor | None, transform: LogitTransform, gradient: Gradient) -> None:
    """Makes the gradient by ``y`` of a tile ``y``, in place.

    Args:
        y: the tile.
        places: of the labels.
        bias: ``[w]`` or None.
        transform: of the logits.
        gradient: of the rows.
    """
    if y.is_mps and not is_compiling() and (variant := VARIANT[y.dtype]):
        variant.gradient_(y, places, bias, transform, gradient)
        return
    memory, z = _wide(y)
    slope = _transformed(z, bias, transform)
    z.sub_(gradient.log_z[:, None])
    if gradient.b is None:
        z.exp_()
        if gradient.a is not None:
            z.mul_(gradient.a[:, None])
    else:
        p = torch.exp(z)
        z.mul_(gradient.b[:, None])
        z.add_(1.0 if gradient.a is None else gradient.a[:, None]).mul_(p)
    if gradient.c:
        z.sub_(gradient.c)
    memory.index_copy_(0, places, gradient.at_label)
    if slope is not None:
        z.mul_(slope)
    if transform.factor != 1:
        z.mul_(transform.factor)
    if z is not y:
        y.copy_(z)


def _wide(y: Tensor) -> tuple[Tensor, Tensor]:
    """The tile in fp32, as memory with one element more, and as it is."""
    if y.dtype == torch.float32:
        return y.as_strided((y.numel() + 1,), (1,)), y
    memory = torch.empty(y.numel() + 1, dtype=torch.float32, device=y.device)
    return memory, memory[:-1].view_as(y).copy_(y)


def _transformed(z: Tensor, bias: Tensor | None, transform: LogitTransform) -> Tensor | None:
    """Makes ``z`` of ``y`` in place; what its slope is of `LogitTransform.factor`, where there is a softcap."""
    if bias is not None:
        z.add_(bias.to(torch.float32))
    if transform.softcap is None:
        if transform.factor != 1:
            z.mul_(transform.factor)
        return None
    z.mul_(transform.scale / transform.softcap).tanh_()
    slope = torch.mul(z, z).neg_().add_(1)
    z.mul_(transform.softcap / transform.temperature)
    return slope
