"""How far a variant may be from the torch variant on the CPU: what rounding explains, and no more."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FLIPPED = 0.05
"""How many of 16-bit numbers may be the next one. Noise of fp32 changes a rounding to fp16 or bf16 about once in a
thousand numbers, more often where a value has lost digits; a rounding left out, or at another place, changes every
fourth."""

FEW = 4
"""So many may be the next one by chance, however few numbers there are."""


def noise(length: int, exponent: float = 0) -> float:
    """What fp32 explains, relative to the largest number of a row.

    A sum of n terms that n / 32 lanes or more add up differs by some sqrt(n / 32) eps from another order of it, of
    which sqrt(n) / 2 is three times as much; 16 eps are for the other operations and for exp, tanh and their like,
    which Metal has within 4 or 5 units in the last place each (Metal Shading Language Specification, 8.4). A difference
    that is rounded before exp is taken of it makes the result off by as many eps as it is large.

    Args:
        length: of the longest sum.
        exponent: the largest number of which exp is taken after a rounding.
    """
    return (16 + math.sqrt(length) / 2 + exponent) * torch.finfo(torch.float32).eps


def difference(found: Tensor, right: Tensor, *, length: int, steps: float = 1, exponent: float = 0) -> str:
    """What is wrong with ``found``; empty where nothing is.

    A number may be off by `noise`, and in 16 bits by ``steps`` of its own or of the mean size of its row.

    Args:
        found: on the CPU.
        right: what the torch variant gives there.
        length: of the longest sum.
        exponent: as for `noise`.
        steps: how many of its roundings to a 16-bit type may go the other way for one number.
    """
    if found.shape != right.shape or found.dtype != right.dtype:
        return f"{found.dtype} of shape {tuple(found.shape)} instead of {right.dtype} of {tuple(right.shape)}"
    same = (found == right) | (found.isnan() & right.isnan())
    x, y = found.double(), right.double()
    size = y.abs().nan_to_num(0.0, 0.0)
    allowed = noise(length, exponent) * (size.amax(-1, keepdim=True) if size.dim() else size)
    if right.dtype.itemsize <= 2:
        about = torch.finfo(right.dtype)
        terms = size.square().mean(-1, keepdim=True).sqrt() if size.dim() else size  # of sums that nearly cancel
        allowed = allowed + steps * about.eps * torch.maximum(size, terms).clamp(min=about.smallest_normal)
        others = int((~same).sum())
        if others > FEW + FLIPPED * right.numel():
            return f"{others} of {right.numel()} numbers of {right.dtype} are others"
    apart = (x - y).abs().nan_to_num(math.inf, math.inf)
    off = ~same & ~(apart <= allowed)
    if count := int(off.sum()):
        worst = float((apart / allowed.clamp(min=torch.finfo(torch.float32).tiny))[off].max())
        return f"{count} of {right.numel()} numbers of {right.dtype} are off, by {worst:.3g} times what may be"
    return ""
