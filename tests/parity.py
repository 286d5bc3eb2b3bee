"""When two results are the same up to rounding."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = {torch.float32: 2**-23, torch.bfloat16: 2**-8, torch.float16: 2**-11}
"""The unit of bounds: fp32's eps; for 16 bits one rounding, half an eps."""


def assert_parity(found: Tensor, expected: Tensor, *, noise: float = 8, steps: float = 1, share: float = 0.05) -> None:
    """``found`` is ``expected`` but for fp32 noise, and for steps of a 16-bit dtype where the noise changes a rounding.

    Args:
        found: the result under test; it must have ``expected``'s dtype and shape.
        expected: the result of the same arithmetic in another order.
        noise: allowed difference of the fp32 computation, in units of fp32's eps times the largest element. Sums of n
            terms in another order differ by some sqrt(n) eps, each further operation by half an eps.
        steps: how many roundings to a 16-bit dtype lie between input and output; each may go the other way.
        share: how many of 16-bit elements may differ at all. fp32 noise changes a rounding to fp16 or bf16 about once
            in a thousand elements, more often only where a value has lost digits; a rounding that is left out, or done
            at another place, changes every fourth.
    """
    assert found.dtype == expected.dtype and found.shape == expected.shape
    exact = expected.double()
    allowed = noise * torch.finfo(torch.float32).eps * exact.abs().max()
    if expected.dtype != torch.float32:
        info = torch.finfo(expected.dtype)
        allowed = allowed + steps * info.eps * torch.clamp(exact.abs(), min=info.smallest_normal)
        assert found.ne(expected).double().mean() <= share, "roundings are not where they were"
    excess = (found.double() - exact).abs() - allowed
    assert not found.isnan().any() and excess.max() <= 0, f"exceeds the tolerance by {excess.max():.3g}"


def assert_accurate(found: Tensor, exact: Tensor, *, roundings: float = 4) -> None:
    """``found`` is the float64 result ``exact`` up to ``roundings`` roundings of its dtype, each half an eps.

    The unit is the largest element of the last dimension's row: sums and differences within a row err by that much.
    """
    assert exact.dtype == torch.float64 and found.shape == exact.shape
    scale = exact.abs().amax(-1, keepdim=True).clamp(min=1e-3 * exact.abs().max().item())
    excess = (found.double() - exact).abs() - roundings / 2 * torch.finfo(found.dtype).eps * scale
    assert not found.isnan().any() and excess.max() <= 0, f"exceeds the tolerance by {excess.max():.3g}"
