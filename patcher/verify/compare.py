"""When a result on the device is the CPU's up to rounding."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from patcher.verify.check import Failed


def tolerance(dtype: torch.dtype, *, length: int, roundings: float = 3) -> float:
    """Largest difference that rounding explains, relative to the largest element.

    A sum of n terms in fp32 in another order differs by some sqrt(n) eps; 16 eps more are for the other operations and
    for exp and its like, which Metal's fast math has within a few units in the last place. A 16-bit dtype adds its own
    eps for every rounding to it.

    Args:
        dtype: of inputs and result.
        length: of the longest sum.
        roundings: to a 16-bit dtype between inputs and result.
    """
    allowed = (16 + 2 * math.sqrt(length)) * torch.finfo(torch.float32).eps
    return allowed if dtype == torch.float32 else allowed + roundings * torch.finfo(dtype).eps


def assert_close(name: str, found: Tensor, exact: Tensor, allowed: float) -> float:
    """How far ``found`` is from ``exact``, in units of its largest element; raises Failed if beyond ``allowed``."""
    if found.shape != exact.shape:
        raise Failed(f"{name} has shape {tuple(found.shape)} instead of {tuple(exact.shape)}")
    wrong = int((~found.isfinite()).sum() - (~exact.isfinite()).sum())
    if wrong:
        raise Failed(f"{name}: {wrong} of {found.numel()} elements are not finite")
    scale = exact.abs().max().item() or 1.0
    error = (found.double() - exact.double()).abs().max().item() / scale
    if not error <= allowed:
        raise Failed(f"{name} is off by {error:.1e} of its largest element; rounding explains {allowed:.1e}")
    return error


def distance(errors: Iterable[float], allowed: float) -> str:
    """What a passed comparison says about itself."""
    return f"off by {max(errors):.0e}, {allowed:.0e} allowed"
